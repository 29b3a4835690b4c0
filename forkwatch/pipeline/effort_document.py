"""Observed forks → the `forkwatch.effort/1` document."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from evals.effort import Compute, Effort, Evidence, Fact
from evals.frontier import Axis, Cell, Observed, Point, curve
from evals.interface import Unmeasured
from forkwatch.pipeline.views import number_view
from forkwatch.text import plain
from reports.effort import (
    CheapestView,
    ComputeView,
    EffortDocument,
    EffortPointView,
    FactView,
    MissingView,
    UnplacedView,
)

UTILITY_LOSS = 0.1
"""Bound on the loss of usefulness: what TamperBench's README names."""

LIMITS = (
    "Observed forks only: an upper bound on the least effort. Nobody has shown how little would do.",
    "Effort is inferred from the weights, or stated by the repository: a false statement makes a fork cheap.",
    "Where effort is a range, its upper end counts.",
    "Refusals are measured on our prompts with our judge; a lost refusal need not be a harmful answer.",
)


def effort_document(
    release: str, forks: Iterable[Observed], axis: Axis, utility_loss: float = UTILITY_LOSS
) -> EffortDocument:
    """The curve of a release (`org/name@commit`)."""
    found = curve(forks, axis, utility_loss)
    return EffortDocument(
        release=release,
        axis=axis.value,
        utility_loss=utility_loss,
        points=tuple(_point(point, utility_loss) for point in found.points),
        unplaced=tuple(UnplacedView(fork=name, reason=plain(reason)) for name, reason in found.unplaced),
        cheapest=tuple(_cheapest(cell) for cell in found.cells),
        limits=LIMITS,
    )


def published_effort(release: str, forks: tuple[Observed, ...]) -> EffortDocument | None:
    """For the site: by compute, or by values changed where that places more of them; None without a fork."""
    if not forks:
        return None
    both = [effort_document(release, forks, axis) for axis in (Axis.COMPUTE, Axis.PARAMETERS)]
    return max(both, key=lambda document: len(document.points))


def _point(point: Point, bound: float) -> EffortPointView:
    effort = point.fork.effort
    evidence = dict(_evidence(effort))
    return EffortPointView(
        fork=point.fork.name,
        kinds=effort.weights.kinds,
        low=_rounded(point.span.low),
        high=_rounded(point.span.high),
        basis=point.span.basis.value,
        refusal_loss=number_view(point.loss),
        utility_loss=number_view(point.utility),
        within=point.utility.value <= bound,
        on_frontier=point.on_frontier,
        compute=_compute(effort.compute),
        evidence=tuple(
            FactView(name=name, value=_rounded(fact.value), basis=fact.basis.value, source=fact.source)
            for name, fact in evidence.items()
            if isinstance(fact, Fact)
        ),
        missing=tuple(
            MissingView(name=name, unmeasured=plain(gap.reason))
            for name, gap in evidence.items()
            if isinstance(gap, Unmeasured)
        ),
    )


def _rounded(value: float) -> float:
    """To six significant digits."""
    return float(f"{value:.6g}")


def _evidence(effort: Effort) -> Iterable[tuple[str, Evidence]]:
    for part in (effort.weights, effort.statements):
        for field in fields(part):
            value = getattr(part, field.name)
            if isinstance(value, Fact | Unmeasured) and field.name != "method":
                yield field.name.replace("_", "-"), value


def _compute(compute: Compute | Unmeasured) -> ComputeView | MissingView:
    if isinstance(compute, Unmeasured):
        return MissingView(name="compute", unmeasured=plain(compute.reason))
    return ComputeView(
        low=_rounded(compute.low), high=_rounded(compute.high), basis=compute.basis.value, how=compute.how
    )


def _cheapest(cell: Cell) -> CheapestView:
    point = cell.cheapest
    found = None if isinstance(point, Unmeasured) else point
    return CheapestView(
        refusal_loss=cell.loss,
        utility_loss=cell.utility,
        fork=None if found is None else found.fork.name,
        kinds=() if found is None else found.fork.effort.weights.kinds,
        effort=None if found is None else _rounded(found.span.high),
        basis=None if found is None else found.span.basis.value,
    )
