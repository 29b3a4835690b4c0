"""A fork as lists show it, and where its whole document comes from.

A site of 10,000 forks does not fit in memory as whole documents. Tables, counts, the digest and most exports
work on rows; a page about one fork loads that fork's document, and forgets it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from reports.plan import digest
from reports.scan import (
    EditView,
    FilesView,
    HubView,
    LineageView,
    OriginalView,
    SafetyView,
    ScanDocument,
    VerdictView,
)

if TYPE_CHECKING:
    from reports.interface import ForkHistory, MetricPoint


class ForkRow(Protocol):
    """What is known of a fork without loading its document. A `ScanDocument` is one.

    A row that is not the document itself has no evidence in its edits and its lineage, and no matrix of
    topics by languages.
    """

    @property
    def repo(self) -> str:
        """Its present name."""
        ...

    @property
    def commit(self) -> str:
        """What the verdict is about."""
        ...

    @property
    def release(self) -> str:
        """The release, as `org/name@<commit>`."""
        ...

    @property
    def original(self) -> OriginalView:
        """What it was compared with."""
        ...

    @property
    def hub(self) -> HubView:
        """What the Hub reports about it."""
        ...

    @property
    def files(self) -> FilesView:
        """Its files against the manifest, and hashes of its weight files."""
        ...

    @property
    def lineage(self) -> LineageView:
        """Claimed descent beside what the weights say."""
        ...

    @property
    def edits(self) -> tuple[EditView, ...]:
        """What was done to it."""
        ...

    @property
    def safety(self) -> SafetyView:
        """What that did to refusals."""
        ...

    @property
    def verdict(self) -> VerdictView:
        """The policy's conclusion."""
        ...

    @property
    def scanned_at(self) -> str:
        """ISO 8601, UTC."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LightScan:
    """A row by itself, as the store keeps it beside the document. Small enough to read 10,000 of them."""

    repo: str
    commit: str
    release: str
    original: OriginalView
    hub: HubView
    files: FilesView
    lineage: LineageView
    edits: tuple[EditView, ...]
    safety: SafetyView
    verdict: VerdictView
    scanned_at: str


def light(document: ScanDocument) -> LightScan:
    """The row of a document."""
    return LightScan(
        repo=document.repo,
        commit=document.commit,
        release=document.release,
        original=document.original,
        hub=document.hub,
        files=document.files,
        lineage=replace(document.lineage, evidence=()),
        edits=tuple(replace(edit, evidence=()) for edit in document.edits),
        safety=replace(document.safety, matrix=()),
        verdict=document.verdict,
        scanned_at=document.scanned_at,
    )


@dataclass(frozen=True, slots=True)
class Counted:
    """What counts over all forks ask of one."""

    safety: Literal["retained", "degraded", "removed", "not-measured"]
    reason: str
    """Why its behaviour was not measured."""
    lineage: Literal["proved", "consistent-with", "unknown", "unrelated"]
    isolation: str
    """See `SafetyView`."""


def counted(row: ForkRow) -> Counted:
    """Without reading a row that is read when somebody asks for more."""
    if isinstance(row, KeptRow):
        return row.counted
    return Counted(row.safety.status, row.safety.reason or "", row.lineage.status, row.safety.isolation)


def downloads(row: ForkRow) -> int:
    """In 30 days, found in the same way."""
    return row.figures[0] if isinstance(row, KeptRow) else row.hub.downloads


class Rows(Protocol):
    """Where whole rows are."""

    def row(self, number: int) -> LightScan:
        """One of them."""
        ...


@dataclass(slots=True, eq=False, repr=False)
class KeptRow:
    """A row of which lists know enough, and the rest is read when somebody asks for it."""

    number: int
    rows: Rows
    repo: str
    commit: str
    scanned_at: str
    verdict: VerdictView
    counted: Counted
    figures: tuple[int, int]
    """The newest downloads and likes."""

    @property
    def hub(self) -> HubView:
        """As `ForkRow`."""
        return self.updated(self.rows.row(self.number).hub)

    def updated(self, hub: HubView) -> HubView:
        """What the Hub said when the fork was scanned, with the newest figures."""
        return replace(hub, downloads=self.figures[0], likes=self.figures[1])

    @property
    def release(self) -> str:
        """As `ForkRow`."""
        return self.rows.row(self.number).release

    @property
    def original(self) -> OriginalView:
        """As `ForkRow`."""
        return self.rows.row(self.number).original

    @property
    def files(self) -> FilesView:
        """As `ForkRow`."""
        return self.rows.row(self.number).files

    @property
    def lineage(self) -> LineageView:
        """As `ForkRow`."""
        return self.rows.row(self.number).lineage

    @property
    def edits(self) -> tuple[EditView, ...]:
        """As `ForkRow`."""
        return self.rows.row(self.number).edits

    @property
    def safety(self) -> SafetyView:
        """As `ForkRow`."""
        return self.rows.row(self.number).safety


class Documents(Protocol):
    """Where the documents behind rows are."""

    def whole(self, row: ForkRow) -> ScanDocument:
        """The document of a row."""
        ...

    def version(self, row: ForkRow) -> str:
        """Changes whenever the document or the samples do; found without loading them."""
        ...

    def samples(self, row: ForkRow, history: ForkHistory) -> tuple[MetricPoint, ...]:
        """Downloads and likes of a fork, oldest first. Lists go without them."""
        ...


class InMemory:
    """The rows are the documents, and histories have their samples."""

    def whole(self, row: ForkRow) -> ScanDocument:
        """The row itself.

        Raises:
            TypeError: it is only a row.
        """
        if not isinstance(row, ScanDocument):
            raise TypeError(f"{row.repo}: this row is not a whole document")
        return row

    def version(self, row: ForkRow) -> str:
        """A digest of its content."""
        return digest(row)

    def samples(self, row: ForkRow, history: ForkHistory) -> tuple[MetricPoint, ...]:  # noqa: ARG002
        """Those of the history."""
        return history.samples


IN_MEMORY = InMemory()
