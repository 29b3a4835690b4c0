"""Files of the site for machines, as entries of its plan; see `reports.plan`.

A new export is an `Entry(path, key, render)` yielded by one of the functions below. Its key covers all that
it depends on: `site.key`, `release.key` or `fork.key`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

from reports import schemas, tree_json, verdicts
from reports.context import Fork, Release, Site
from reports.exports import api, badge, evidence, feeds, graph, moderation, names, osv, rows
from reports.interface import ReleaseView
from reports.plan import Entry, digest, fixed
from reports.routes import sorted_releases

SITE_ATOM, SITE_FEED = "api/v1/atom.xml", "api/v1/feed.json"


def site_exports(site: Site) -> Iterator[Entry]:
    """Files about no release in particular."""
    yield Entry("verdicts.json", digest("verdicts", site.key), lambda: _verdicts(site))
    known = schemas.published()
    published = tuple(f"api/v1/schema/{name}" for name in known)
    yield Entry("api/v1/index.json", digest("index", site.key), lambda: api.index_json(site, published))
    told = cache(lambda: feeds.newest(site.about(view) for view in sorted_releases(site.view)))
    yield Entry(
        SITE_ATOM, digest("atom", site.key), lambda: feeds.to_atom(feeds.site_feed(site, SITE_ATOM, told()))
    )
    yield Entry(
        SITE_FEED,
        digest("feed", site.key),
        lambda: feeds.to_json_feed(feeds.site_feed(site, SITE_FEED, told())),
    )
    for week, views in api.weekly(site).items():
        yield _week(site, week, views)
    for name, text in known.items():
        yield fixed(f"api/v1/schema/{name}", text)
    for key in site.view.keys:
        yield fixed(site.routes.key(key), key.pem)


def release_exports(release: Release) -> Iterator[Entry]:
    """Files about one release."""
    tree, page = release.view.tree, release.site.routes.release(release.view)
    if tree is not None:
        path = release.site.routes.tree(release.view)
        yield Entry(path, digest("tree", release.tree_key), lambda: tree_json.to_json(tree))
        path = names.of_release(page, "tree.graphml")
        yield Entry(path, digest("graph", release.tree_key), lambda: graph.to_graphml(tree))
    atom, feed = names.of_release(page, "atom.xml"), names.of_release(page, "feed.json")
    told = cache(lambda: feeds.newest([release]))
    made: tuple[tuple[str, Callable[[], bytes]], ...] = (
        (names.of_release(page, "forks.csv"), lambda: rows.forks_csv(release)),
        (names.of_release(page, "forks.jsonl"), lambda: rows.to_jsonl(release)),
        (atom, lambda: feeds.to_atom(feeds.release_feed(release, atom, told()))),
        (feed, lambda: feeds.to_json_feed(feeds.release_feed(release, feed, told()))),
    )
    for path, render in made:
        yield Entry(path, digest(path, release.site.base, release.key), render)
    card = release.view.classifier
    if card is not None:
        from reports import classifier_json  # few releases have one

        yield fixed(names.of_release(page, "classifier.json"), classifier_json.to_json(card))
        yield fixed(names.of_release(page, "classifier.md"), card.markdown)


def fork_exports(fork: Fork) -> Iterator[Entry]:
    """Files about one fork. Its document is loaded when one is rendered."""
    yield Entry(fork.document, fork.key, lambda: evidence.document_of(fork))
    if fork.signed is not None:
        path = fork.site.routes.signed(fork.document)
        yield Entry(path, fork.key, lambda: fork.bundle or "")
    yield _about(fork, names.bom(fork.document), evidence.bom_of)
    yield _about(fork, names.badge(fork.document), badge.to_svg)
    if osv.has_advisory(fork):
        yield _about(fork, names.advisory(fork.document), evidence.advisory_of)
        yield _about(fork, names.evidence(fork.document), evidence.to_zip)
    if moderation.has_draft(fork):
        yield _about(fork, names.moderation(fork.document), evidence.draft_of)


def _verdicts(site: Site) -> str:
    def row(fork: Fork) -> str:
        return verdicts.row_json(fork.release.view, fork.release.past, fork.row, site.routes)

    def rows(view: ReleaseView) -> list[str]:
        release = site.about(view)
        return release.pieces("verdict", release.forks, row)

    return verdicts.verdicts_from(site.view, rows)


def _about(fork: Fork, path: str, make: Callable[[Fork], bytes]) -> Entry:
    return Entry(path, digest(fork.file_key), lambda: make(fork))


def _week(site: Site, week: str, views: tuple[ReleaseView, ...]) -> Entry:
    parts = [(view.repo, view.commit, site.about(view).week_keys[week]) for view in views]
    path = names.changes(week)
    return Entry(path, digest(path, parts), lambda: api.changes_json(site, week, views))
