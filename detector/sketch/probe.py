"""The third round: more rows of a few changed matrices, where the survey has shown changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detector.interface import WeightReader
from detector.pairing import Pair
from detector.sketch import direction
from detector.sketch.direction import Found, choose, find_direction
from detector.sketch.plan import Bands, by_module, cost, spread
from detector.sketch.reading import Values, measure
from detector.sketch.shape import Form, Shape, classify

PROBE_ROWS = (256, 192, 128, 96, 64, 48, 32, 24, 16, 8)
"""Rows of one matrix of each module; the first that fits is taken. Rank r shows in more than r rows."""
PROBES = (2, 1)
"""Matrices of each module; as many as fit with 64 rows or more, else one."""
ENOUGH_ROWS = 64
DIRECTION_SHARE = 0.4
"""Share of what is left of the budget for the residual writers' common rows."""


@dataclass(frozen=True, slots=True)
class Probes:
    """What the changed matrices look like."""

    direction: Found | None
    shapes: Mapping[str, tuple[tuple[Pair, Shape], ...]]
    """Module → probed matrices; where there is a direction, what is left of the writers' change beside it."""
    planned: tuple[Bands, ...]


def probe(
    changed: Sequence[Pair], hidden: Sequence[Pair], original: WeightReader, fork: WeightReader, budget: int
) -> Probes:
    """Read more rows of changed matrices and say what their change looks like.

    Args:
        changed: matrices that the survey saw changed.
        hidden: matrices whose rounding may hide a change; a shared direction shows through it.
        original: the original.
        fork: the fork.
        budget: bytes of the fork.
    """
    writers = _common_rows(choose([*changed, *hidden]), fork, int(budget * DIRECTION_SHARE))
    values = measure(writers, original, fork, lambda _, found: found)
    found = find_direction(values, original)
    del values
    plans = _plan(changed, fork, budget - cost(writers, fork))

    def judge(plan: Bands, values: Values) -> tuple[Pair, Shape]:
        beside = found is not None and direction.is_writer(plan.pair) and len(values.original) > found.count
        return plan.pair, classify(values, direction.without(values, found) if beside and found else None)

    shapes: dict[str, list[tuple[Pair, Shape]]] = {}
    for pair, shape in measure(plans, original, fork, judge):
        shapes.setdefault(pair.module, []).append((pair, shape))
    return Probes(found, {module: tuple(found) for module, found in shapes.items()}, (*writers, *plans))


def settled(probes: Sequence[tuple[Pair, Shape]]) -> Shape:
    """What the probes of one module say together: the larger of two ranks, and undecided where they differ.

    A matrix in which only smaller ranks could be tested does not contradict a larger one.
    """
    low = [shape for _, shape in probes if shape.form is Form.LOW]
    dense = [shape for _, shape in probes if shape.form is Form.DENSE]
    if low and all(shape.rank < max(each.rank for each in low) for shape in dense):
        return max(low, key=lambda shape: shape.rank)
    if low:
        return Shape(Form.UNDECIDED)
    if dense:
        return min(dense, key=lambda shape: shape.rank)
    nothing = bool(probes) and all(shape.form is Form.NONE for _, shape in probes)
    return Shape(Form.NONE if nothing else Form.UNDECIDED)


def _common_rows(writers: Sequence[Pair], fork: WeightReader, budget: int) -> tuple[Bands, ...]:
    """The same rows of every writer: one band, at a place that follows from their height alone."""
    if len(writers) < direction.FEWEST_WRITERS:
        return ()
    height = writers[0].fork.shape[0]
    rows = direction.ROWS
    while rows >= direction.FEWEST_ROWS:
        places = spread(height, rows, 1, f"writers {height}")
        plans = tuple(Bands(pair, places) for pair in writers)
        if cost(plans, fork) <= budget:
            return plans
        rows //= 2
    return ()


def _plan(changed: Sequence[Pair], fork: WeightReader, budget: int) -> tuple[Bands, ...]:
    modules = by_module(pair for pair in changed if min(pair.fork.shape) >= 2)
    for rows in PROBE_ROWS:
        for count in PROBES:
            if count > 1 and rows < ENOUGH_ROWS:
                continue
            plans = [plan for members in modules.values() for plan in _of_module(members, rows, count)]
            if cost(plans, fork) <= budget:
                return tuple(plans)
    plans, spent = [], 0
    for members in modules.values():  # not even a few rows of each: of those that fit
        for plan in _of_module(members, PROBE_ROWS[-1], 1):
            if spent + cost([plan], fork) <= budget:
                plans.append(plan)
                spent += cost([plan], fork)
    return tuple(plans)


def _of_module(members: Sequence[Pair], rows: int, count: int) -> list[Bands]:
    """The middle matrix of a module, or two in its first and last third."""
    places = [len(members) // 2] if count == 1 else [len(members) // 3, 2 * len(members) // 3]
    chosen = {
        members[min(place, len(members) - 1)].name: members[min(place, len(members) - 1)] for place in places
    }
    return [
        Bands(pair, spread(pair.fork.shape[0], rows, 1, f"probe {pair.name} {pair.fork.shape}"))
        for pair in chosen.values()
    ]
