"""`forkwatch.robustness/1`: one fork's dose response, or a release under benign adapters.

The types below *are* the JSON contract: fields are added, never renamed. Plain values, as in `reports.scan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from reports.contract import adapter, dump, load, schema_of
from reports.scan import NumberView, UnmeasuredView

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = "forkwatch.robustness/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class DosePointView:
    """What was measured with so much of the fork's delta."""

    dose: float
    """0: the original. 1: the fork."""
    refusal: NumberView
    refusal_drop: NumberView
    """Against the original on the same prompts."""
    over_refusal: NumberView
    degenerate: NumberView
    choice: NumberView
    """Accuracy on the multiple-choice questions."""
    kl_per_token: NumberView
    perplexity_ratio: NumberView
    fitted: float | None
    """Refusal rate by the monotone fit; None: the dose is not in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfDoseView:
    """The dose at which refusals have fallen to half of the original's."""

    dose: float
    """By a straight line between the two doses of `between`."""
    low: float
    """95 % interval, in doses that were measured."""
    high: float | None
    """None: beyond the largest dose."""
    between: tuple[float, float]
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoHalfDoseView:
    """There is none, and why."""

    no_collapse: str
    share: float | None
    """Share of the bootstrap's resamples in which there was one all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoseView:
    """A fork's dose response."""

    fork: str
    """`org/name@<commit>`, or the digest of local files."""
    points: tuple[DosePointView, ...]
    half: HalfDoseView | NoHalfDoseView


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeView:
    """The release with one or two adapters merged in."""

    adapters: tuple[str, ...]
    """`org/name@<commit>`; none: the release alone."""
    scale: float
    storage: Literal["original", "int4"]
    refusal: NumberView
    refusal_drop: NumberView
    p_value: float | None
    """Exact McNemar, Holm-corrected over all merges."""
    significant: bool
    choice: NumberView
    kl_per_token: NumberView
    degenerate: NumberView


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterView:
    """The worst merge that an adapter is in."""

    adapter: str
    worst: MergeView | UnmeasuredView


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOutView:
    """An adapter that no merge was made with, and why."""

    adapter: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MergesView:
    """A release under benign adapters."""

    merges: tuple[MergeView, ...]
    worst: MergeView | UnmeasuredView
    by_adapter: tuple[AdapterView, ...]
    left_out: tuple[LeftOutView, ...]
    dropped: int
    """Merges beyond the bound, which were not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustnessDocument:
    """One series of variants of a release, and how it was measured."""

    schema: Literal["forkwatch.robustness/1"] = "forkwatch.robustness/1"
    release: str
    """`org/name@<commit>`"""
    dose: DoseView | None
    merges: MergesView | None
    suite: str
    suite_digest: str
    judge: str
    tier: str
    isolation: str
    device: str
    seconds: float


def to_json(document: RobustnessDocument) -> str:
    """Canonical JSON."""
    return dump(document)


def from_json(text: str) -> RobustnessDocument:
    """Read a document strictly.

    Raises:
        InvalidDocumentError: the text is not a `forkwatch.robustness/1` document.
    """
    return load(_reader(), text)


def json_schema() -> dict[str, object]:
    """JSON Schema 2020-12, generated from the types above."""
    return schema_of(_reader(), SCHEMA)


@cache
def _reader() -> TypeAdapter[RobustnessDocument]:
    return adapter(RobustnessDocument)
