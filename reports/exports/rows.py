"""`forkwatch.fork/1`: one fork in one flat object, for tables, notebooks and data bases."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Literal

from reports.context import Fork, Release
from reports.contract import adapter, plain_value, schema_of
from reports.exports.tables import Cell, to_csv
from reports.routes import release_key
from reports.scan import CertaintyName, NumberView, RateView, VerdictLabel
from reports.summary import withdrawal

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = "forkwatch.fork/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkLine:
    """One fork of one release. Fields are added, never renamed."""

    schema: Literal["forkwatch.fork/1"] = "forkwatch.fork/1"
    release: str
    """`org/name@<commit>`"""
    repo: str
    """Hostile text, as all that is not otherwise described."""
    commit: str
    verdict: VerdictLabel
    certainty: CertaintyName
    withdrawn_at: str | None
    """Since when the operator stands by this verdict no more; null while he does."""
    disputed: bool
    """A dispute about it is open."""
    gone_at: str | None
    summary: str
    edits: str
    """Kinds, separated by spaces."""
    claimed_base: str | None
    claimed_relation: str | None
    lineage: Literal["proved", "consistent-with", "unknown", "unrelated"]
    """What the weights say."""
    safety: Literal["retained", "degraded", "removed", "not-measured"]
    refusal_original: float | None
    """Share of harmful prompts refused; null where it was not measured."""
    refusal_fork: float | None
    refusal_fork_low: float | None
    """95 % interval."""
    refusal_fork_high: float | None
    refusal_n: int | None
    over_refusal_fork: float | None
    kl_per_token: float | None
    perplexity_ratio: float | None
    not_measured: str
    """Why there is no refusal rate; empty when there is one."""
    downloads: int
    """In 30 days, as the Hub says."""
    likes: int
    license: str | None
    access: Literal["open", "gated", "disabled"]
    first_verdict_at: str
    verdict_since: str
    scanned_at: str
    page: str
    """Relative to the site's root, as `document`."""
    document: str


COLUMNS = tuple(field.name for field in fields(ForkLine) if field.name != "schema")


def line(fork: Fork) -> ForkLine:
    """From what lists know; no document is loaded."""
    row, refusal = fork.row, fork.row.safety.refusal
    measured = refusal.fork if isinstance(refusal.fork, RateView) else None
    withdrawn = withdrawal(fork.disputes)
    return ForkLine(
        release=release_key(fork.release.view),
        repo=row.repo,
        commit=row.commit,
        verdict=row.verdict.label,
        certainty=row.verdict.certainty,
        withdrawn_at=None if withdrawn is None else withdrawn.decided_at or withdrawn.opened_at,
        disputed=any(dispute.status == "open" for dispute in fork.disputes),
        gone_at=None if fork.history is None else fork.history.gone_at,
        summary=row.verdict.summary,
        edits=" ".join(edit.kind for edit in row.edits),
        claimed_base=row.lineage.claimed,
        claimed_relation=row.lineage.relation,
        lineage=row.lineage.status,
        safety=row.safety.status,
        refusal_original=_rate(refusal.original),
        refusal_fork=_rate(refusal.fork),
        refusal_fork_low=None if measured is None else measured.ci[0],
        refusal_fork_high=None if measured is None else measured.ci[1],
        refusal_n=None if measured is None else measured.n,
        over_refusal_fork=_rate(row.safety.over_refusal.fork),
        kl_per_token=_rate(row.safety.utility.kl_per_token),
        perplexity_ratio=_rate(row.safety.utility.perplexity_ratio),
        not_measured="" if isinstance(refusal.fork, RateView) else refusal.fork.unmeasured,
        downloads=row.hub.downloads,
        likes=row.hub.likes,
        license=row.hub.license,
        access=row.hub.access,
        first_verdict_at=fork.first,
        verdict_since=fork.since,
        scanned_at=row.scanned_at,
        page=fork.path,
        document=fork.document,
    )


def to_jsonl(release: Release) -> bytes:
    """One JSON object a line, in ASCII."""
    return "".join(release.pieces("jsonl", _all(release), _jsonl)).encode("ascii")


def forks_csv(release: Release) -> bytes:
    """The same as a table."""
    return to_csv(COLUMNS, ()) + "".join(release.pieces("csv", _all(release), _csv)).encode("utf-8")


def _all(release: Release) -> tuple[Fork, ...]:
    return (*release.forks, *release.formers)


def json_schema() -> dict[str, object]:
    """JSON Schema 2020-12 of one line, generated from the types above."""
    return schema_of(_reader(), SCHEMA)


@cache
def _reader() -> TypeAdapter[ForkLine]:
    return adapter(ForkLine)


def _jsonl(fork: Fork) -> str:
    return json.dumps(plain_value(line(fork)), allow_nan=False) + "\n"


def _csv(fork: Fork) -> str:
    return to_csv(None, [_cells(line(fork))]).decode("utf-8")


def _cells(row: ForkLine) -> list[Cell]:
    return [getattr(row, name) for name in COLUMNS]


def _rate(number: NumberView) -> float | None:
    return number.rate if isinstance(number, RateView) else None
