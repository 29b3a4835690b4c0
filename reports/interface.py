"""What the reports are built from. Plain values in, files out.

Read this first, then `scan.py` for the document about one fork. Every string may come from the Hub: templates
autoescape, links are built from validated ids only, and no raw model answer ever reaches this package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from reports.plan import digest
from reports.rows import IN_MEMORY, Documents, ForkRow
from reports.scan import OriginalView, ScanDocument, VerdictLabel
from reports.tree import TreeDocument

if TYPE_CHECKING:  # what few releases have
    from reports.card import ReleaseCardDocument
    from reports.classifier import ClassifierDocument
    from reports.effort import EffortDocument

T = TypeVar("T")

EventName = Literal[
    "new-commit", "renamed", "deleted", "reappeared", "re-registered", "gated", "disabled", "opened"
]


DisputeStatus = Literal["open", "upheld", "corrected", "withdrawn", "dropped"]
"""`upheld`: the verdict stands. `corrected`: a newer one replaces it. `withdrawn`: the verdict is taken back
and nothing is asserted. `dropped`: who opened the dispute took it back."""

ReleaseEventName = Literal[
    "new-commit",
    "signer-changed",
    "signature-untrusted",
    "signature-mismatch",
    "signature-removed",
    "signature-added",
    "signature-changed",
    "signature-unreadable",
    "branch-removed",
    "renamed",
    "re-registered",
    "deleted",
    "settings-changed",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingDoc:
    """The reference page of one finding id."""

    id: str
    title: str
    severity: str
    markdown: str
    """Content of docs/findings/<id>.md, ours."""


@dataclass(slots=True, kw_only=True)
class VerdictChange:
    """A verdict that replaced another (or none).

    Nobody changes one. This and other records that there is one of for each fork are not frozen, since that
    doubles the time it takes to make them.
    """

    repo: str
    commit: str
    at: str
    """ISO 8601, UTC."""
    before: VerdictLabel | None
    after: VerdictLabel


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A candidate that could not be examined, and why; shown so that silence is never read as safety.

    One in `scans` as well has a verdict about an earlier state.
    """

    repo: str
    reason: str
    gone: bool = False
    """It was deleted, or made private, before it had a verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEvent:
    """What was noticed about a repository, between two looks at it."""

    at: str
    """ISO 8601, UTC: when it was noticed."""
    kind: EventName
    before: str
    after: str
    """Commits, names, ways of access or ids, as the kind has it. Hostile text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseEvent:
    """What became of a guarded release upstream. Comparisons go on with the pinned copy."""

    at: str
    """ISO 8601, UTC: when it was noticed."""
    kind: ReleaseEventName
    before: str
    after: str
    """Commits, names or ids, as the kind has it. Hostile text."""
    note: str
    """One sentence. Hostile text."""
    decision: Literal["adopted", "kept", "lapsed", "passed", "none-needed"] | None = None
    """None while somebody has to decide."""
    decided_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricPoint:
    """Downloads (30 days) and likes at one time."""

    at: str
    """ISO 8601, UTC."""
    downloads: int
    likes: int


@dataclass(slots=True, kw_only=True)
class ForkHistory:
    """What became of one repository."""

    repo: str
    """Its present name; its last one when it is gone."""
    first_seen: str
    """ISO 8601, UTC."""
    gone_at: str | None = None
    """ISO 8601, UTC: since when it is gone; None while it is there."""
    events: tuple[HistoryEvent, ...] = ()
    """Oldest first."""
    samples: tuple[MetricPoint, ...] = ()
    """Oldest first; a point only where a figure changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedVerdict:
    """The operator's signature under the newest verdict of a fork."""

    repo: str
    bundle: str
    """JSON of a sigstore bundle (docs/attestation.md)."""

    @property
    def version(self) -> str:
        """A digest of it."""
        return digest(self.bundle)


class Signed(Protocol):
    """A signature that may be made only when it is asked for. A `SignedVerdict` is one."""

    @property
    def repo(self) -> str:
        """The fork that it is about."""
        ...

    @property
    def bundle(self) -> str:
        """JSON of a sigstore bundle."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever the bundle does; found without making it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorKey:
    """A public key that verdicts of this site are, or were, signed with."""

    id: str
    """SHA-256 of `pem`, hex."""
    pem: str
    current: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeView:
    """Somebody says that a verdict is wrong, and what we made of it."""

    id: str
    """Ours, unique within a site, e.g. `D-3`."""
    repo: str
    commit: str
    """Whose verdict is disputed."""
    opened_at: str
    """ISO 8601, UTC."""
    by: str
    """Who says so, as they name themselves. Hostile text."""
    statement: str
    """What they say. Hostile text."""
    status: DisputeStatus
    decided_at: str | None = None
    """None while it is open."""
    decision: str = ""
    """What the operator answers."""
    label: VerdictLabel | None = None
    """What the disputed verdict said; None where there was none."""
    current: bool = True
    """The disputed verdict is still the newest one about the fork."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplacedFork:
    """A repository that is gone and whose name another one has by now. Its verdict is not the other one's."""

    identity: str
    """Tells it from others of the same name."""
    scan: ScanDocument
    changes: tuple[VerdictChange, ...]
    history: ForkHistory
    signed: Signed | None = None
    disputes: tuple[DisputeView, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReleaseView:
    """A guarded release and its forks."""

    repo: str
    commit: str
    original: OriginalView
    license: str | None
    scans: tuple[ForkRow, ...]
    """The newest verdict of each fork; whole documents only where `documents` is `IN_MEMORY`."""
    changes: tuple[VerdictChange, ...]
    """All of them, oldest first."""
    gaps: tuple[Gap, ...]
    histories: tuple[ForkHistory, ...] = ()
    """Of repositories in `scans`, by name."""
    replaced: tuple[ReplacedFork, ...] = ()
    tree: TreeDocument | None = None
    signed: tuple[Signed, ...] = ()
    """Of forks in `scans`; empty when the operator signs nothing."""
    card: ReleaseCardDocument | None = None
    """What its publisher signed about it, if anything."""
    pinned_at: str | None = None
    """ISO 8601, UTC: when this commit was first verified, or pinned by hash."""
    events: tuple[ReleaseEvent, ...] = ()
    """Oldest first."""
    effort: EffortDocument | None = None
    classifier: ClassifierDocument | None = None
    """What its observed forks took. Pages show it without names; it is not published as JSON."""
    disputes: tuple[DisputeView, ...] = ()
    """About forks in `scans`, oldest first."""
    documents: Documents = field(default=IN_MEMORY, repr=False)
    """Loads the document behind a row of `scans`."""

    @property
    def to_decide(self) -> tuple[ReleaseEvent, ...]:
        """Events that somebody has to decide about."""
        return tuple(event for event in self.events if event.decision is None)

    def once(self, find: Callable[[ReleaseView], T]) -> T:
        """What `find` finds in it: several pages ask for the same, and there may be very many forks."""
        known: dict[Callable[[ReleaseView], Any], Any] = self.__dict__.setdefault("_known", {})
        if find not in known:
            known[find] = find(self)
        found: T = known[find]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteView:
    """Everything a site is built from. The same view gives the same bytes."""

    generated_at: str
    """ISO 8601, UTC: the time of the newest result, not of the build."""
    version: str
    """Of forkwatch."""
    releases: tuple[ReleaseView, ...]
    findings: tuple[FindingDoc, ...]
    contact: str | None = None
    """Where to dispute a result: an https URL, a mail address or a sentence, as the publisher set it."""
    keys: tuple[OperatorKey, ...] = ()
    base_url: str | None = None
    """The https address under which the site is published; the digest e-mail links only when it is known."""


class ReportsError(Exception):
    """Root of what reports raises. `tip` says what the reader can do about it."""

    tip: str = ""


class EmptySiteError(ReportsError):
    """There is nothing to publish; an empty site must not look like a clean one."""

    tip = "Run `forkwatch run --once` first."


class InvalidDocumentError(ReportsError):
    """A text is not the document it should be, or a document cannot be written as JSON."""

    tip = "Compare it with the JSON Schema under reports/schema/."


class NotASiteError(ReportsError):
    """The output folder holds something that we did not write; it is not replaced."""

    tip = "Choose a folder that is empty, does not exist yet, or holds a site built by forkwatch."


class InvalidWeekError(ReportsError):
    """Not an ISO week."""

    tip = "A week looks like '2026-W47'."


class InvalidAddressError(ReportsError):
    """The base URL of the site is not an https address."""

    tip = "Set it to something like 'https://example.org/forkwatch/', or leave it out."
