"""What pages and exports are planned from: the site as a whole, one release, one fork.

Each has a `key`, a digest of everything that a file about it may depend on. `Site.page` plans an HTML page.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property

from markupsafe import Markup

from reports.interface import (
    DisputeView,
    ForkHistory,
    Gap,
    OperatorKey,
    ReleaseView,
    ReplacedFork,
    Signed,
    SiteView,
    VerdictChange,
)
from reports.numbers import moment, week_of
from reports.pieces import Pieces
from reports.plan import Entry, digest, digest_of
from reports.render import environment
from reports.routes import Routes, relative, release_key, routes, sorted_replaced, sorted_scans
from reports.rows import ForkRow
from reports.scan import ScanDocument, VerdictLabel
from reports.summary import Past, by_week, first_verdict, verdict_since, withdrawal
from reports.tree import tree_digest

Values = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What every page may say about the site. Nothing here changes with a new verdict."""

    version: str
    """Of forkwatch."""
    contact: str | None
    keys: tuple[OperatorKey, ...]
    base_url: str | None


@dataclass(frozen=True)
class Site:
    """The site as a whole."""

    view: SiteView
    routes: Routes
    folders: Mapping[str, Sequence[tuple[str, str]]]
    """By repository: key of each release that it was compared with, and the folder of that page. Empty where
    there is one release."""
    pieces: Pieces = field(default_factory=Pieces, repr=False)

    @cached_property
    def facts(self) -> Facts:
        """The `view` of templates about a release or a fork."""
        view = self.view
        return Facts(version=view.version, contact=view.contact, keys=view.keys, base_url=view.base_url)

    @cached_property
    def base(self) -> str:
        """Key of what every page may depend on: the facts, and which findings have pages."""
        return digest(self.facts, sorted(self.routes.findings))

    @cached_property
    def week(self) -> str:
        """ISO week of the newest result, e.g. `2026-W47`."""
        return week_of(self.view.generated_at)

    @cached_property
    def newest(self) -> datetime:
        """When the newest result was found."""
        return moment(self.view.generated_at)

    @cached_property
    def key(self) -> str:
        """Key of everything on the site."""
        releases = sorted(self.about(release).key for release in self.view.releases)
        return digest(self.base, self.view.generated_at, self.view.findings, releases)

    def about(self, release: ReleaseView) -> Release:
        """One release, worked out once."""
        return self._releases[release_key(release)]

    @cached_property
    def _releases(self) -> dict[str, Release]:
        return {release_key(view): Release(self, view, view.once(Past)) for view in self.view.releases}

    def page(self, template: str, path: str, key: str, values: Callable[[], Values]) -> Entry:
        """Plan one page.

        Args:
            template: its file name. It sees `view` (the `Facts`), `routes`, `path`, `href`,
                `rows`, and `values`.
            path: relative to the site's root.
            key: digest of what `values` gives; what every page depends on is added here.
            values: asked for when the page is rendered.
        """

        def href(target: str) -> str:
            return relative(path, target)

        def render() -> str:
            known = {
                "view": self.facts,
                "routes": self.routes,
                "path": path,
                "href": href,
                "rows": _table_rows,
                "json": None,
            }
            return environment().get_template(template).render(known | dict(values()))

        return Entry(path, digest(self.base, template, path, key), render)


def site_of(view: SiteView, pieces: Pieces | None = None) -> Site:
    """Give every page its address."""
    found = routes(view)
    folders: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    if len(view.releases) > 1:
        for (key, name), folder in found.forks.items():
            folders[name].append((key, folder))
    return Site(view, found, folders, pieces or Pieces())


@dataclass(frozen=True)
class Release:
    """One release. `view` is all of it."""

    site: Site
    view: ReleaseView
    past: Past

    @cached_property
    def facts(self) -> ReleaseView:
        """The release without its forks: the `release` of pages about one fork."""
        return replace(
            self.view,
            scans=(),
            changes=(),
            gaps=(),
            histories=(),
            replaced=(),
            tree=None,
            signed=(),
            disputes=(),
            events=(),
            effort=None,
            classifier=None,
        )

    @cached_property
    def facts_key(self) -> str:
        """Key of `facts`, and of its address."""
        return digest(self.facts, self.site.routes.release(self.view))

    @cached_property
    def key(self) -> str:
        """Key of everything about the release and its forks, in whatever order the view has them."""
        view = self.view
        return digest(
            self.facts_key,
            digest_of(
                (
                    [fork.key for fork in self.forks],
                    [fork.key for fork in self.formers],
                    sorted((gap.repo, gap.reason, gap.gone) for gap in view.gaps),
                    sorted(self.week_keys.items()),
                )
            ),
            self.tree_key,
            view.events,
            view.effort,
            view.classifier,
            view.disputes,
        )

    def pieces(self, kind: str, forks: Iterable[Fork], make: Callable[[Fork], str]) -> list[str]:
        """A text about each fork that depends on its key and the site's `base` alone, kept between builds."""
        wanted = ((fork.document, fork.file_key, fork) for fork in forks)
        return self.site.pieces.texts(f"{kind} {release_key(self.view)}", wanted, make)

    @cached_property
    def week_keys(self) -> Mapping[str, str]:
        """By ISO week a key of everything that changed in it, and of the pages about that."""
        pages = {fork.row.repo: fork.path for fork in self.forks}
        return {
            week: digest_of((sorted((*change_key(each), pages.get(each.repo, "")) for each in changes),))
            for week, changes in self.view.once(by_week).items()
        }

    @cached_property
    def tree_key(self) -> str:
        """Key of its family."""
        return "" if self.view.tree is None else tree_digest(self.view.tree)

    @cached_property
    def forks(self) -> tuple[Fork, ...]:
        """Forks with a verdict, by name."""
        return tuple(self._fork(row) for row in sorted_scans(self.view))

    def judged(self, label: VerdictLabel) -> Sequence[Fork]:
        """Those of one verdict."""
        return self._by_label.get(label, ())

    @cached_property
    def _by_label(self) -> Mapping[VerdictLabel, list[Fork]]:
        found: defaultdict[VerdictLabel, list[Fork]] = defaultdict(list)
        for fork in self.forks:
            found[fork.row.verdict.label].append(fork)
        return dict(found)

    @cached_property
    def formers(self) -> tuple[Fork, ...]:
        """Repositories that are gone and whose name another one has, by name."""
        return tuple(self._former(former) for former in sorted_replaced(self.view))

    @cached_property
    def _by_name(self) -> Mapping[str, tuple[ReplacedFork, ...]]:
        found: defaultdict[str, tuple[ReplacedFork, ...]] = defaultdict(tuple)
        for former in sorted_replaced(self.view):
            found[former.scan.repo] += (former,)
        return dict(found)

    def _fork(self, row: ForkRow) -> Fork:
        addresses = self.site.routes
        own = release_key(self.view)
        return Fork(
            release=self,
            row=row,
            path=addresses.fork_page(self.view, row.repo),
            document=addresses.document(self.view, row.repo),
            signed=self.past.signed(row.repo),
            history=self.past.history(row.repo),
            changes=self.past.changes(row.repo),
            disputes=self.past.disputes(row.repo),
            gap=self.past.gap(row.repo),
            formers=self._by_name.get(row.repo, ()),
            also=tuple(
                (key, f"{folder}/index.html")
                for key, folder in self.site.folders.get(row.repo, ())
                if key != own
            ),
        )

    def _former(self, former: ReplacedFork) -> Fork:
        """The other repository's verdicts are not its own."""
        addresses = self.site.routes
        return Fork(
            release=self,
            row=former.scan,
            path=addresses.former_page(self.view, former),
            document=addresses.former_document(self.view, former),
            signed=former.signed,
            history=former.history,
            changes=former.changes,
            disputes=former.disputes,
            former=former,
            also=tuple(
                (key, f"{folder}/index.html")
                for key, folder in self.site.folders.get(former.scan.repo, ())
                if key != release_key(self.view)
            ),
        )


@dataclass(eq=False, kw_only=True)
class Fork:
    """One fork of one release. Nobody changes it: it is not frozen since there are so many of them."""

    release: Release
    row: ForkRow
    path: str
    """Its page, relative to the site's root."""
    document: str
    """Its `forkwatch.scan/1` document, relative to the site's root."""
    signed: Signed | None
    """The signed verdict; None when it is not signed."""
    history: ForkHistory | None
    changes: tuple[VerdictChange, ...]
    """Of its verdict, oldest first."""
    disputes: tuple[DisputeView, ...] = ()
    """About its verdicts, oldest first."""
    gap: Gap | None = None
    """Why its present state could not be examined."""
    former: ReplacedFork | None = None
    """Set on a repository whose name another one has."""
    formers: tuple[ReplacedFork, ...] = ()
    """Gone repositories that had its name before it."""
    also: tuple[tuple[str, str], ...] = ()
    """(release, page) of its comparisons with other releases."""

    @property
    def site(self) -> Site:
        """The site it is on."""
        return self.release.site

    def scan(self) -> ScanDocument:
        """Its document, loaded now. Call this only while rendering, and do not keep it."""
        return self.release.view.documents.whole(self.row)

    @property
    def bundle(self) -> str | None:
        """The signed verdict, a sigstore bundle, as `scan` made now; None when it is not signed."""
        return None if self.signed is None else self.signed.bundle

    @property
    def past(self) -> ForkHistory | None:
        """Its `history` with downloads and likes over time, as `scan` loaded now."""
        if self.history is None:
            return None
        samples = self.release.view.documents.samples(self.row, self.history)
        return replace(self.history, samples=samples)

    @property
    def file_key(self) -> str:
        """Key of files about it that show what every page may depend on too."""
        return f"{self.key[:32]}{self.site.base[:32]}"

    @property
    def withdrawn(self) -> DisputeView | None:
        """How its newest verdict was taken back, if it was."""
        return withdrawal(self.disputes)

    @property
    def since(self) -> str:
        """When it got the verdict it has now: ISO 8601, UTC."""
        return verdict_since(self.row, self.changes)

    @property
    def first(self) -> str:
        """When it got its first verdict: ISO 8601, UTC."""
        return first_verdict(self.row, self.changes)

    @cached_property
    def key(self) -> str:
        """Key of everything that a file about this fork alone may depend on."""
        return digest_of(
            (
                self.release.facts_key,
                self.release.view.documents.version(self.row),
                [(former.identity, former.scan.repo) for former in self.formers],
                None if self.former is None else self.former.identity,
                None if self.signed is None else self.signed.version,
                self.path,  # and with it of its document
                None if self.history is None else _history_key(self.history),
                [change_key(change) for change in self.changes],
                digest(self.disputes, self.gap) if self.disputes or self.gap else None,
                self.also,
            )
        )


def _history_key(history: ForkHistory) -> tuple[object, ...]:
    """Everything about it."""
    events = [(event.at, event.kind, event.before, event.after) for event in history.events]
    samples = [(sample.at, sample.downloads, sample.likes) for sample in history.samples]
    return history.repo, history.first_seen, history.gone_at, events, samples


def change_key(change: VerdictChange) -> tuple[str, ...]:
    """Everything about it."""
    return change.at, change.repo, change.commit, change.before or "", change.after


def _table_rows(
    release: ReleaseView, forks: Sequence[Fork], macro: Callable[[ReleaseView, Fork], Markup]
) -> Markup:
    """Rows of the table of forks: pages that have the table are in one folder, so that links agree."""
    if not forks:
        return Markup()
    rows = forks[0].release.pieces("row", forks, lambda fork: str(macro(release, fork)))
    return Markup("".join(rows))  # noqa: S704 - what a template made
