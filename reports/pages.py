"""The HTML pages of the site. Each is a function of the view and says nothing about the time of the build."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from reports import charts, markdown
from reports.effort_chart import effort_chart
from reports.interface import FindingDoc, ForkHistory, Gap, ReleaseView, ReplacedFork, SiteView
from reports.numbers import week_of
from reports.render import environment
from reports.routes import (
    Routes,
    relative,
    release_key,
    routes,
    sorted_releases,
    sorted_replaced,
    sorted_scans,
)
from reports.scan import ScanDocument
from reports.summary import (
    Past,
    attention,
    attention_count,
    former_names,
    funnel,
    gone,
    sorted_gaps,
    weeks,
)
from reports.tree import branches

MOST_EVENTS = 30
"""Decided events of a release that its page lists, the newest ones."""
MOST_BRANCHES = 300
"""Lines of the family drawn on a release's page; the whole is in its JSON."""


@dataclass(frozen=True, slots=True)
class _Site:
    """What every page needs."""

    view: SiteView
    routes: Routes
    folders: Mapping[str, Sequence[tuple[str, str]]]
    """By repository: key of each release that it was compared with, and the folder of that page."""

    def page(self, template: str, path: str, **values: object) -> tuple[str, str]:
        """Render one page at `path`."""

        def href(target: str) -> str:
            return relative(path, target)

        text = (
            environment()
            .get_template(template)
            .render(
                view=self.view,
                routes=self.routes,
                path=path,
                href=href,
                week=week_of(self.view.generated_at),
                **values,
            )
        )
        return path, text


def pages(view: SiteView) -> Iterator[tuple[str, str]]:
    """Path and HTML of every page."""
    site = _site(view)
    yield _index(site)
    yield site.page("guide.html", "how-to-read.html")
    findings = sorted(view.findings, key=lambda finding: finding.id)
    yield site.page("findings.html", "findings/index.html", findings=findings)
    for finding in findings:
        yield _finding(site, finding)
    for release in sorted_releases(view):
        past, replaced = Past(release), sorted_replaced(release)
        yield _release(site, release, past)
        formers: defaultdict[str, list[ReplacedFork]] = defaultdict(list)
        for former in replaced:
            formers[former.scan.repo].append(former)
        for scan in sorted_scans(release):
            yield _fork(site, release, past, scan, formers.get(scan.repo, []))
        for former in replaced:
            yield _former(site, release, former)


def _site(view: SiteView) -> _Site:
    found = routes(view)
    folders: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for (key, name), folder in found.forks.items():
        folders[name].append((key, folder))
    return _Site(view, found, folders)


def _index(site: _Site) -> tuple[str, str]:
    releases = sorted_releases(site.view)
    return site.page(
        "index.html",
        "index.html",
        releases=[
            (release, charts.verdict_bar(release.scans), funnel([release]), attention_count(release))
            for release in releases
        ],
        attention=attention(site.view),
        funnel=funnel(releases),
        gaps=[(release, gap) for release in releases for gap in sorted_gaps(release)],
    )


def _release(site: _Site, release: ReleaseView, past: Past) -> tuple[str, str]:
    scans = sorted_scans(release)
    return site.page(
        "release.html",
        site.routes.release(release),
        release=release,
        rows=[(scan, past.first_verdict(scan)) for scan in scans],
        bar=charts.verdict_bar(scans),
        funnel=funnel([release]),
        weeks=weeks(release),
        gaps=sorted_gaps(release),
        gone=gone(release),
        decided=[event for event in release.events if event.decision is not None][-MOST_EVENTS:],
        gone_names={history.repo for history in release.histories if history.gone_at is not None},
        branches=() if release.tree is None else branches(release.tree),
        most_branches=MOST_BRANCHES,
        effort=None if release.effort is None else effort_chart(release.effort),
    )


def _fork(
    site: _Site, release: ReleaseView, past: Past, scan: ScanDocument, formers: list[ReplacedFork]
) -> tuple[str, str]:
    return _fork_page(
        site,
        release,
        past,
        scan,
        site.routes.fork_page(release, scan.repo),
        document=site.routes.document(release, scan.repo),
        signed=past.is_signed(scan.repo),
        history=past.history(scan.repo),
        former=None,
        formers=formers,
        gap=past.gap(scan.repo),
    )


def _former(site: _Site, release: ReleaseView, former: ReplacedFork) -> tuple[str, str]:
    """The page of a repository whose name another one has. The other one's verdicts are not its own."""
    own = replace(release, changes=former.changes, histories=())
    return _fork_page(
        site,
        own,
        Past(own),
        former.scan,
        site.routes.former_page(release, former),
        document=site.routes.former_document(release, former),
        signed=former.signed is not None,
        history=former.history,
        former=former,
        formers=[],
    )


def _fork_page(  # noqa: PLR0913 - what the two kinds of page differ in
    site: _Site,
    release: ReleaseView,
    past: Past,
    scan: ScanDocument,
    path: str,
    *,
    document: str,
    signed: bool,
    history: ForkHistory | None,
    former: ReplacedFork | None,
    formers: list[ReplacedFork],
    gap: Gap | None = None,
) -> tuple[str, str]:
    return site.page(
        "fork.html",
        path,
        release=release,
        scan=scan,
        document=document,
        signed=signed,
        history=history,
        former=former,
        formers=formers,
        lost=gap,
        former_names=() if history is None else former_names(history),
        verdict_changes=past.changes(scan.repo),
        curve=None if history is None else charts.curve(history.samples),
        since=past.verdict_since(scan),
        first=past.first_verdict(scan),
        heat=charts.heatmap(scan.heatmap) if scan.heatmap else None,
        speaking_for=[finding for finding in scan.findings if finding.direction == "for"],
        speaking_against=[finding for finding in scan.findings if finding.direction == "against"],
        also=_other_pages(site, release, scan.repo),
    )


def _other_pages(site: _Site, release: ReleaseView, repo: str) -> list[tuple[str, str]]:
    """The same repository compared with other releases: (release, page)."""
    return [
        (key, f"{folder}/index.html")
        for key, folder in site.folders.get(repo, ())
        if key != release_key(release)
    ]


def _finding(site: _Site, finding: FindingDoc) -> tuple[str, str]:
    path = site.routes.finding_page(finding.id)
    body = markdown.to_html(finding.markdown, site.routes.findings, _link_from(site, path))
    return site.page("finding.html", path, finding=finding, body=body)


def _link_from(site: _Site, path: str) -> Callable[[str], str]:
    return lambda finding_id: relative(path, site.routes.finding_page(finding_id))
