"""`forkwatch.verdicts/1`: every verdict of every release in one small file, for machines that act on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from reports.contract import adapter, dump, load, schema_of
from reports.interface import ReleaseView, SiteView
from reports.pretty import pretty
from reports.routes import Routes, routes, sorted_releases, sorted_scans
from reports.rows import ForkRow
from reports.scan import (
    CertaintyName,
    EditView,
    OriginalView,
    PairView,
    VerdictLabel,
)
from reports.summary import Past, former_names, sorted_gaps

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = "forkwatch.verdicts/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class EditSummary:
    """One edit without its evidence."""

    kind: str
    certainty: CertaintyName


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow:
    """One fork."""

    repo: str
    commit: str
    verdict: VerdictLabel
    certainty: CertaintyName
    summary: str
    edits: tuple[EditSummary, ...]
    claimed: str | None
    """The base it claims. Hostile text."""
    lineage: Literal["proved", "consistent-with", "unknown", "unrelated"]
    """What the weights say."""
    safety: Literal["retained", "degraded", "removed", "not-measured"]
    refusal: PairView
    first_verdict_at: str
    scanned_at: str
    page: str
    """Relative to the site's root."""
    document: str
    """The `forkwatch.scan/1` document, relative to the site's root."""
    attestation: str | None = None
    """The signed verdict (`docs/attestation.md`), relative to the site's root; null when it is not signed."""
    gone_at: str | None = None
    """ISO 8601, UTC: since when the repository is gone; null while it is there."""
    former_names: tuple[str, ...] = ()
    """What it was called before, oldest first."""
    withdrawn_at: str | None = None
    """ISO 8601, UTC: since when the operator stands by this verdict no more; null while he does."""
    disputed: bool = False
    """A dispute about it is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GapRow:
    """A candidate that could not be examined, and why; a verdict that it has is about an earlier state."""

    repo: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseVerdicts:
    """One release and its forks, by name."""

    repo: str
    commit: str
    original: OriginalView
    verdicts: tuple[VerdictRow, ...]
    gaps: tuple[GapRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictsDocument:
    """The whole file."""

    schema: Literal["forkwatch.verdicts/1"] = "forkwatch.verdicts/1"
    generated_at: str
    """ISO 8601, UTC: the time of the newest result."""
    version: str
    """Of forkwatch."""
    releases: tuple[ReleaseVerdicts, ...]


def verdicts(view: SiteView) -> VerdictsDocument:
    """Collect them."""
    addresses = routes(view)
    return VerdictsDocument(
        generated_at=view.generated_at,
        version=view.version,
        releases=tuple(
            _release(release, tuple(_rows(release, addresses))) for release in sorted_releases(view)
        ),
    )


def verdicts_json(view: SiteView) -> str:
    """Canonical JSON of them: the content of `verdicts.json`."""
    return dump(verdicts(view))


def verdicts_from(view: SiteView, rows_of: Callable[[ReleaseView], Sequence[str]]) -> str:
    """The same text from the texts of its rows, see `row_json`; forks by name."""
    releases = sorted_releases(view)
    empty = tuple(_release(release, ()) for release in releases)
    document = VerdictsDocument(generated_at=view.generated_at, version=view.version, releases=empty)
    parts = dump(document).split(_EMPTY)
    text = [parts[0]]
    for release, rest in zip(releases, parts[1:], strict=True):
        rows = rows_of(release)
        text.append(f"{_HEAD}[{_LINE}{f',{_LINE}'.join(rows)}\n      ]" if rows else _EMPTY)
        text.append(rest)
    return "".join(text)


def row_json(release: ReleaseView, past: Past, scan: ForkRow, addresses: Routes) -> str:
    """One fork, as `verdicts_json` has it."""
    return pretty(_row(release, past, scan, addresses), 8)


_HEAD = '\n      "verdicts": '
_LINE = "\n        "
_EMPTY = f"{_HEAD}[]"
"""No text of JSON holds a newline, so that this is found between texts only."""


def from_json(text: str) -> VerdictsDocument:
    """Read the file strictly.

    Raises:
        InvalidDocumentError: the text is not a `forkwatch.verdicts/1` document.
    """
    return load(_reader(), text)


def json_schema() -> dict[str, object]:
    """JSON Schema 2020-12 of the file, generated from the types above."""
    return schema_of(_reader(), SCHEMA)


@cache
def _reader() -> TypeAdapter[VerdictsDocument]:
    return adapter(VerdictsDocument)


def _rows(release: ReleaseView, addresses: Routes) -> Iterator[VerdictRow]:
    past = Past(release)
    return (_row(release, past, scan, addresses) for scan in sorted_scans(release))


def _release(release: ReleaseView, rows: tuple[VerdictRow, ...]) -> ReleaseVerdicts:
    return ReleaseVerdicts(
        repo=release.repo,
        commit=release.commit,
        original=release.original,
        verdicts=rows,
        gaps=tuple(GapRow(repo=gap.repo, reason=gap.reason) for gap in sorted_gaps(release)),
    )


def _row(release: ReleaseView, past: Past, scan: ForkRow, addresses: Routes) -> VerdictRow:
    history = past.history(scan.repo)
    document = addresses.document(release, scan.repo)
    withdrawn = past.withdrawn(scan.repo)
    return VerdictRow(
        repo=scan.repo,
        commit=scan.commit,
        verdict=scan.verdict.label,
        certainty=scan.verdict.certainty,
        summary=scan.verdict.summary,
        edits=tuple(_edit(edit) for edit in scan.edits),
        claimed=scan.lineage.claimed,
        lineage=scan.lineage.status,
        safety=scan.safety.status,
        refusal=scan.safety.refusal,
        first_verdict_at=past.first_verdict(scan),
        scanned_at=scan.scanned_at,
        page=addresses.fork_page(release, scan.repo),
        document=document,
        attestation=addresses.signed(document) if past.is_signed(scan.repo) else None,
        gone_at=None if history is None else history.gone_at,
        former_names=() if history is None else former_names(history),
        withdrawn_at=None if withdrawn is None else withdrawn.decided_at or withdrawn.opened_at,
        disputed=past.is_disputed(scan.repo),
    )


def _edit(edit: EditView) -> EditSummary:
    return EditSummary(kind=edit.kind, certainty=edit.certainty)
