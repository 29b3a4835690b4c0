"""The attacker-effort curve as the site shows it: points by kind of edit, without names and without links.

The site is not an index of the best modified models. A fork beside its effort and its loss would be a ranking
by harm, so neither the chart, nor its tooltips, nor the tables under it say which fork a point is, and the
JSON document is not published. The forks have their pages, by name, as all others have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from reports.effort import EffortDocument, EffortPointView
from reports.numbers import percent, plural, significant
from reports.scan import NumberView, RateView
from reports.words import edit_title

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 30, 44
GUTTER = 26
"""Room left of the first power of ten, for an effort of 0, which has no place on a logarithmic axis."""
SIZE = 5.0

TITLES = {
    "compute": "floating-point operations",
    "steps": "training steps",
    "examples": "training examples",
    "parameters": "values changed",
    "rank": "rank of the change",
    "energy": "relative size of the change",
}
_ORDER = (
    "directional-edit", "low-rank-merge", "adapter", "full-finetune", "partial-finetune", "merge",
    "sparse-patch", "layer-surgery", "vocabulary-change", "quantized", "dtype-cast",
)  # fmt: skip
"""Of several kinds of one fork the first names it."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One fork: a shape for its kind of edit, filled when it stayed within the bound of usefulness."""

    path: str
    css: str
    title: str
    spread: str
    """Range of effort and interval of the loss, as a path."""


@dataclass(frozen=True, slots=True)
class Label:
    """Text of an axis."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class KindRow:
    """One kind of edit, in words: row of the table, and of the legend."""

    path: str
    """Its shape, in a box of 16 by 16."""
    title: str
    forks: str
    effort: str
    loss: str
    within: str


@dataclass(frozen=True, slots=True)
class GridRow:
    """The least effort observed for a loss of refusals, by bound of usefulness."""

    loss: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EffortChart:
    """All that the template needs."""

    width: int
    height: int
    axis: str
    bound: str
    lines: str
    frontier: str
    marks: tuple[Mark, ...]
    across: tuple[Label, ...]
    up: tuple[Label, ...]
    kinds: tuple[KindRow, ...]
    bounds: tuple[str, ...]
    grid: tuple[GridRow, ...]
    unplaced: int
    words: str
    limits: tuple[str, ...]


def effort_chart(document: EffortDocument) -> EffortChart | None:
    """Lay out a document; None when no fork can be placed."""
    points = sorted(document.points, key=_place)
    if not points:
        return None
    least, most = _decades([effort for point in points for effort in (point.low, point.high)])

    def across(effort: float) -> float:
        if effort <= 0:
            return LEFT + GUTTER / 2
        share = (math.log10(effort) - least) / (most - least)
        return round(LEFT + GUTTER + share * (WIDTH - RIGHT - LEFT - GUTTER), 2)

    kinds = tuple(dict.fromkeys(sorted((_kind(point) for point in points), key=_rank)))
    zero = (Label(LEFT + GUTTER / 2, HEIGHT - BOTTOM + 16, "0"),) if any(p.high <= 0 for p in points) else ()
    return EffortChart(
        width=WIDTH,
        height=HEIGHT,
        axis=TITLES[document.axis],
        bound=percent(document.utility_loss),
        lines="".join(f"M{LEFT} {_up(share)}H{WIDTH - RIGHT}" for share in (0.0, 0.25, 0.5, 0.75, 1.0)),
        frontier=_frontier([point for point in points if point.on_frontier], across),
        marks=tuple(_mark(point, kinds.index(_kind(point)), across) for point in points),
        across=(
            *zero,
            *(Label(across(at), HEIGHT - BOTTOM + 16, text) for at, text in _ticks(least, most)),
        ),
        up=tuple(Label(LEFT - 6, _up(share) + 4, percent(share)) for share in (0.0, 0.25, 0.5, 0.75, 1.0)),
        kinds=tuple(_row(number, kind, points) for number, kind in enumerate(kinds)),
        bounds=tuple(f"≤ {percent(bound)}" for bound in _bounds(document)),
        grid=tuple(_grid(document)),
        unplaced=len(document.unplaced),
        words=_words(document, points),
        limits=document.limits,
    )


def _place(point: EffortPointView) -> tuple[int, float, float, float]:
    """The order of drawing must not tell names."""
    return _rank(_kind(point)), point.low, point.high, _loss(point)


def _loss(point: EffortPointView) -> float:
    return point.refusal_loss.rate if isinstance(point.refusal_loss, RateView) else 0.0


def _kind(point: EffortPointView) -> str:
    return min(point.kinds, key=_rank, default="unknown")


def _rank(kind: str) -> int:
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)


def _decades(efforts: Iterable[float]) -> tuple[int, int]:
    """Powers of ten around all that is larger than 0."""
    known = [effort for effort in efforts if effort > 0] or [1.0]
    least = math.floor(math.log10(min(known)))
    return least, max(least + 1, math.ceil(math.log10(max(known))))


def _up(share: float) -> float:
    return round(HEIGHT - BOTTOM - min(1.0, max(0.0, share)) * (HEIGHT - BOTTOM - TOP), 2)


_SUPER = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _ticks(least: int, most: int) -> Iterator[tuple[float, str]]:
    """Powers of ten, eight at most; with 2 and 5 between them where there are few."""
    step = max(1, math.ceil((most - least) / 8))
    for power in range(least, most + 1, step):
        for factor in (1, 2, 5) if most - least <= 2 and power < most else (1,):
            yield factor * 10.0**power, _power(factor, power)


def _power(factor: int, power: int) -> str:
    if -3 <= power <= 3:
        return significant(factor * 10.0**power)
    return ("" if factor == 1 else f"{factor}×") + f"10{str(power).translate(_SUPER)}"


def _mark(point: EffortPointView, number: int, across: Callable[[float], float]) -> Mark:
    middle = math.sqrt(point.low * point.high) if point.low > 0 else point.high
    x, y = across(middle), _up(_loss(point))
    spread = f"M{across(point.low)} {y}H{across(point.high)}"
    if isinstance(point.refusal_loss, RateView):
        low, high = point.refusal_loss.ci
        spread += f"M{x} {_up(low)}V{_up(high)}"
    title = (
        f"{edit_title(_kind(point))}: {_span(point)} ({point.basis}), {percent(max(0.0, _loss(point)))} of "
        f"refusals lost, {_usefulness(point.utility_loss)}"
    )
    return Mark(_shape(number, x, y), "in" if point.within else "over", title, spread)


def _span(point: EffortPointView) -> str:
    if point.low == point.high:
        return significant(point.low)
    return f"{significant(point.low)} to {significant(point.high)}"


def _usefulness(number: NumberView) -> str:
    return (
        f"{percent(number.rate)} of usefulness" if isinstance(number, RateView) else "usefulness not measured"
    )


def _shape(number: int, x: float, y: float, r: float = SIZE) -> str:
    """Circle, square, triangle, diamond, triangle on its head, bar; then again from the start."""
    corners = {
        1: ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        2: ((0, -1.3), (1.2, 1), (-1.2, 1)),
        3: ((0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)),
        4: ((0, 1.3), (1.2, -1), (-1.2, -1)),
        5: ((-1.4, -0.5), (1.4, -0.5), (1.4, 0.5), (-1.4, 0.5)),
    }.get(number % 6)
    if corners is None:
        return f"M{round(x - r, 2)} {y}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z"
    return "M" + "L".join(f"{round(x + dx * r, 2)} {round(y + dy * r, 2)}" for dx, dy in corners) + "z"


def _frontier(points: list[EffortPointView], across: Callable[[float], float]) -> str:
    """Steps at the upper end of each effort, up to the lower limit of the loss: what is certain."""
    sure = sorted(
        (across(point.high), _up(point.refusal_loss.ci[0]))
        for point in points
        if isinstance(point.refusal_loss, RateView)
    )
    if not sure:
        return ""
    steps = "".join(f"H{x}V{y}" for x, y in sure)
    return f"M{sure[0][0]} {_up(0)}{steps}H{WIDTH - RIGHT}"


def _row(number: int, kind: str, points: list[EffortPointView]) -> KindRow:
    mine = [point for point in points if _kind(point) == kind]
    losses = [_loss(point) for point in mine]
    efforts = [point.high for point in mine]
    return KindRow(
        path=_shape(number, 8, 8),
        title=edit_title(kind),
        forks=plural(len(mine), "fork"),
        effort=_ends(efforts, significant),
        loss=_ends([max(0.0, loss) for loss in losses], percent),
        within=f"{sum(point.within for point in mine)} of {len(mine)}",
    )


def _ends(values: list[float], form: Callable[[float], str]) -> str:
    low, high = form(min(values)), form(max(values))
    return low if low == high else f"{low} to {high}"


def _bounds(document: EffortDocument) -> list[float]:
    return sorted({cell.utility_loss for cell in document.cheapest})


def _grid(document: EffortDocument) -> Iterator[GridRow]:
    for loss in sorted({cell.refusal_loss for cell in document.cheapest}):
        row = {cell.utility_loss: cell for cell in document.cheapest if cell.refusal_loss == loss}
        cells = []
        for bound in _bounds(document):
            effort, basis = row[bound].effort, row[bound].basis
            cells.append("none observed" if effort is None else f"{significant(effort)} ({basis})")
        yield GridRow(f"≥ {percent(loss)}", tuple(cells))


def _words(document: EffortDocument, points: list[EffortPointView]) -> str:
    """What the picture shows, for those who do not see it."""
    sure = [p for p in points if p.on_frontier and isinstance(p.refusal_loss, RateView)]
    said = f"{plural(len(points), 'fork')} by effort, in {TITLES[document.axis]}, and refusals lost. "
    if not sure:
        return (
            said
            + f"None lost refusals for certain at {percent(document.utility_loss)} of usefulness or less."
        )
    least = min(sure, key=lambda point: point.high)
    return said + (
        f"The least effort behind a certain loss at {percent(document.utility_loss)} of usefulness or less "
        f"is {significant(least.high)}, with {percent(_loss(least))} lost."
    )
