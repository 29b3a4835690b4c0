"""Plain values that the store gives out, and how hub values are kept as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter

from crawler.history import EventKind
from crawler.interface import Channel, Claim, RepoId, RepoSummary, Snapshot
from detector.interface import Manifest
from forkwatch.store.models import Release
from reports.scan import ScanDocument, VerdictLabel

T = TypeVar("T")


def json_of(kind: type[T]) -> TypeAdapter[T]:
    """Reads and writes values of a kind. Made when asked for: most commands do without most of them."""
    found: TypeAdapter[T] = _adapter(cast("Any", kind))
    return found


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def manifest_of(row: Release) -> Manifest:
    """The files of a guarded release, as they were verified or pinned."""
    return json_of(Manifest).validate_python(row.manifest)


@dataclass(frozen=True, slots=True)
class StageKey:
    """What a result is about; the identity of DESIGN section 3."""

    snapshot_id: int
    root_digest: str
    stage: str
    version: str


@dataclass(frozen=True, slots=True)
class Spent:
    """What computing a result cost."""

    seconds: float
    requests: int
    bytes_downloaded: int


@dataclass(frozen=True, slots=True)
class Examined:
    """A snapshot, and which results about it there are."""

    snapshot: Snapshot
    stages: tuple[tuple[str, str], ...]
    """(stage, version) of the newest result of each stage against one release, sorted."""
    snapshot_id: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the append-only verdict log."""

    repo_id: int
    repo: str
    """The repository's name at the time."""
    created_at: datetime
    before: VerdictLabel | None
    document: ScanDocument


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A candidate of one release, with what is known of its repository."""

    repo_id: int
    identity: str
    """The Hub's `_id`, or `name:<name>`."""
    repo: RepoId
    """Its present name; its last one when it is gone."""
    channels: tuple[Channel, ...]
    claims: tuple[Claim, ...]
    summary: RepoSummary
    first_seen: datetime
    observed_at: datetime
    """When the Hub last said something about it, be it that it is gone."""
    gone_at: datetime | None
    gap: str | None
    over_budget: int | None
    """Bytes of the budget that it was over, when that is the gap."""


@dataclass(frozen=True, slots=True)
class KeptEvent:
    """An event, and when it was noticed."""

    at: datetime
    kind: EventKind
    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Downloads (30 days) and likes at one time."""

    at: datetime
    downloads: int
    likes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What became of one repository."""

    repo_id: int
    identity: str
    repo: str
    first_seen: datetime
    gone_at: datetime | None
    events: tuple[KeptEvent, ...]
    """Oldest first."""
    samples: tuple[Sample, ...]
    """Oldest first."""


def dump_claims(claims: Iterable[Claim]) -> list[dict[str, Any]]:
    """Claims as JSON, each once, in an order that does not depend on who found them when."""
    dumped: list[dict[str, Any]] = json_of(tuple[Claim, ...]).dump_python(
        tuple(sorted(set(claims), key=_order)), mode="json"
    )
    return dumped


def load_claims(stored: list[dict[str, Any]]) -> tuple[Claim, ...]:
    """The claims again."""
    return json_of(tuple[Claim, ...]).validate_python(stored)


def dump_channels(channels: Iterable[Channel]) -> list[str]:
    """Channels as JSON, each once, in their fixed order."""
    found = set(channels)
    return [str(channel) for channel in Channel if channel in found]


def load_channels(stored: list[str]) -> tuple[Channel, ...]:
    """The channels again."""
    return tuple(Channel(channel) for channel in stored)


def dump_summary(summary: RepoSummary) -> dict[str, Any]:
    """A summary as JSON, without what is not known."""
    dumped: dict[str, Any] = json_of(RepoSummary).dump_python(summary, mode="json", exclude_defaults=True)
    return dumped


def load_summary(stored: dict[str, Any]) -> RepoSummary:
    """The summary again."""
    return json_of(RepoSummary).validate_python(stored)


def _order(claim: Claim) -> tuple[bool, str, str, str, bool]:
    return (claim.base is None, claim.base or "", claim.relation or "", claim.statement, claim.faithful)
