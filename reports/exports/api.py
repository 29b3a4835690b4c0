"""`forkwatch.index/1`, where everything for machines is; `forkwatch.changes/1`, what changed in a week."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from reports.context import Release, Site
from reports.contract import adapter, dump, schema_of
from reports.exports.names import changes, of_release, zulu
from reports.interface import ReleaseView
from reports.routes import sorted_releases
from reports.scan import VerdictLabel
from reports.summary import by_week, week_changes

if TYPE_CHECKING:
    from pydantic import TypeAdapter

INDEX = "forkwatch.index/1"
CHANGES = "forkwatch.changes/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseEntry:
    """One guarded release. Paths are relative to the site's root."""

    repo: str
    commit: str
    root_digest: str
    signature: Literal["verified", "claimed", "unsigned", "invalid"]
    forks: int
    """With a verdict."""
    page: str
    forks_csv: str
    forks_jsonl: str
    atom: str
    json_feed: str
    tree: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexDocument:
    """`api/v1/index.json`."""

    schema: Literal["forkwatch.index/1"] = "forkwatch.index/1"
    generated_at: str
    """RFC 3339, UTC: the time of the newest result."""
    version: str
    """Of forkwatch."""
    verdicts: str
    schemas: tuple[str, ...]
    atom: str
    json_feed: str
    changes: tuple[str, ...]
    """One file a week, newest first."""
    releases: tuple[ReleaseEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeEntry:
    """The net change of one fork's verdict within the week."""

    release: str
    repo: str
    before: VerdictLabel | None
    """null: it had none."""
    after: VerdictLabel
    at: str
    page: str | None
    """null: there is no page about it any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangesDocument:
    """`api/v1/changes/<week>.json`."""

    schema: Literal["forkwatch.changes/1"] = "forkwatch.changes/1"
    week: str
    changes: tuple[ChangeEntry, ...]


def index_json(site: Site, schemas: tuple[str, ...]) -> str:
    """The index."""
    view = site.view
    return dump(
        IndexDocument(
            generated_at=zulu(view.generated_at),
            version=view.version,
            verdicts="verdicts.json",
            schemas=schemas,
            atom="api/v1/atom.xml",
            json_feed="api/v1/feed.json",
            changes=tuple(changes(week) for week in weeks(site)),
            releases=tuple(_release(site.about(release)) for release in sorted_releases(view)),
        )
    )


def weeks(site: Site) -> tuple[str, ...]:
    """ISO weeks in which a verdict changed, newest first."""
    return tuple(sorted({week for view in site.view.releases for week in view.once(by_week)}, reverse=True))


def weekly(site: Site) -> Mapping[str, tuple[ReleaseView, ...]]:
    """Releases of which a verdict changed in a week, newest week first."""
    found: dict[str, list[ReleaseView]] = {week: [] for week in weeks(site)}
    for view in sorted_releases(site.view):
        for week in view.once(by_week):
            found[week].append(view)
    return {week: tuple(views) for week, views in found.items()}


def changes_json(site: Site, week: str, views: tuple[ReleaseView, ...]) -> str:
    """What changed in a week, in the releases that `weekly` gave; releases and forks by name."""
    entries = (
        ChangeEntry(
            release=f"{view.repo}@{view.commit}",
            repo=net.repo,
            before=net.before,
            after=net.after,
            at=zulu(net.at),
            page=site.routes.fork(view, net.repo),
        )
        for view in views
        for net in week_changes(view, week)
    )
    return dump(ChangesDocument(week=week, changes=tuple(entries)))


def index_schema() -> dict[str, object]:
    """JSON Schema 2020-12 of the index."""
    return schema_of(_index(), INDEX)


def changes_schema() -> dict[str, object]:
    """JSON Schema 2020-12 of a week."""
    return schema_of(_changes(), CHANGES)


def _release(release: Release) -> ReleaseEntry:
    view, addresses = release.view, release.site.routes
    page = addresses.release(view)
    return ReleaseEntry(
        repo=view.repo,
        commit=view.commit,
        root_digest=view.original.root_digest,
        signature=view.original.signature,
        forks=len(view.scans),
        page=page,
        forks_csv=of_release(page, "forks.csv"),
        forks_jsonl=of_release(page, "forks.jsonl"),
        atom=of_release(page, "atom.xml"),
        json_feed=of_release(page, "feed.json"),
        tree=None if view.tree is None else addresses.tree(view),
    )


@cache
def _index() -> TypeAdapter[IndexDocument]:
    return adapter(IndexDocument)


@cache
def _changes() -> TypeAdapter[ChangesDocument]:
    return adapter(ChangesDocument)
