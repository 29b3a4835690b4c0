"""`forkwatch.effort/1`: what the observed forks of a release took, and what they achieved.

The types below *are* the JSON contract: fields are added, never renamed. Plain values, as in `reports.scan`.
The document names forks, for those who guard the release; what the site shows does not: see `effort_chart`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reports.scan import NumberView

AxisName = Literal["compute", "steps", "examples", "parameters", "rank", "energy"]
BasisName = Literal["inferred", "stated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FactView:
    """One piece of effort evidence."""

    name: str
    value: float
    basis: BasisName
    """`inferred` from the weights by us, or `stated` by the repository, and not verified."""
    source: str
    """Stage or file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingView:
    """Evidence that there is not, and why."""

    name: str
    unmeasured: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeView:
    """Estimated floating-point operations."""

    low: float
    high: float
    basis: BasisName
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EffortPointView:
    """One fork with measured refusals."""

    fork: str
    """`org/name@<commit>`"""
    kinds: tuple[str, ...]
    """Of edits."""
    low: float
    """Effort on the document's axis. What is not a range has low = high."""
    high: float
    basis: BasisName
    refusal_loss: NumberView
    """Original rate minus fork rate on the same prompts."""
    utility_loss: NumberView
    within: bool
    """Usefulness loss is within the document's bound."""
    on_frontier: bool
    """Within the bound, and no other such fork took as little and lost as much."""
    compute: ComputeView | MissingView
    evidence: tuple[FactView, ...]
    missing: tuple[MissingView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnplacedView:
    """A fork with measured refusals that has no place on this axis, and why."""

    fork: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheapestView:
    """The cheapest observed fork that lost so much of refusals for so little usefulness."""

    refusal_loss: float
    """At least, by the lower 95 % limit."""
    utility_loss: float
    """At most."""
    fork: str | None
    """None: no observed fork did."""
    kinds: tuple[str, ...]
    effort: float | None
    """The upper end of its range."""
    basis: BasisName | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EffortDocument:
    """The attacker-effort curve of a release on one axis."""

    schema: Literal["forkwatch.effort/1"] = "forkwatch.effort/1"
    release: str
    """`org/name@<commit>`"""
    axis: AxisName
    utility_loss: float
    """Bound that the frontier is drawn for."""
    points: tuple[EffortPointView, ...]
    """By name."""
    unplaced: tuple[UnplacedView, ...]
    """By name."""
    cheapest: tuple[CheapestView, ...]
    """By refusal loss, then usefulness loss."""
    limits: tuple[str, ...]
    """What the curve cannot show, one sentence each."""
