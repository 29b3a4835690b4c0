"""Geometry of the charts.

Templates turn it into inline SVG whose colours are CSS classes, so that the site needs no inline style (CSP),
follows dark mode and prints. Every chart has the same numbers as text beside it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reports.interface import MetricPoint
from reports.numbers import moment, significant
from reports.rows import ForkRow
from reports.scan import HeatmapView, NumberView, RateView
from reports.words import VERDICTS, VerdictWord

BREAKS = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
"""Upper bounds of heatmap classes h0…h8 (relative delta norm); h9 is everything above. Fixed and logarithmic,
so that two forks can be compared by eye."""

MOST_COLUMNS = 48
"""Columns of a heatmap; a deeper model has several layers in one, of which the largest change is shown."""

CELL = 16
LABEL = 148
TOP = 4


@dataclass(frozen=True, slots=True)
class Segment:
    """One verdict's share of a bar 100 units wide."""

    word: VerdictWord
    count: int
    x: float
    width: float


def verdict_bar(scans: Sequence[ForkRow]) -> tuple[Segment, ...]:
    """Verdict counts as adjoining segments, in the fixed order of the verdicts; empty for no scans."""
    found = Counter(scan.verdict.label for scan in scans)
    counts = [(word, found[word.label]) for word in VERDICTS.values()]
    segments = []
    x = 0.0
    for word, count in counts:
        if count:
            width = 100 * count / len(scans)
            segments.append(Segment(word, count, round(x, 2), round(width, 2)))
            x += width
    return tuple(segments)


@dataclass(frozen=True, slots=True)
class Mark:
    """A share on a 0–100 axis: point and interval."""

    at: float
    low: float
    high: float


def mark(number: NumberView) -> Mark | None:
    """Where a measured share is drawn; None when it was not measured."""
    if not isinstance(number, RateView):
        return None
    at, low, high = (round(100 * min(1.0, max(0.0, value)), 2) for value in (number.rate, *number.ci))
    return Mark(at, low, high)


@dataclass(frozen=True, slots=True)
class Curve:
    """Downloads over time, in a box of 100 by 30: steps, since a figure holds until the next one is seen."""

    path: str
    first: int
    last: int
    most: int

    @property
    def growth(self) -> str:
        """Last against first, in words; empty where that says nothing."""
        if self.first <= 0 or self.last == self.first:
            return ""
        ratio = self.last / self.first
        return f"{significant(ratio)} times the first count" if ratio >= 2 else f"{ratio - 1:+.0%}"


def curve(samples: Sequence[MetricPoint]) -> Curve | None:
    """Lay out the downloads; None where there are fewer than two points."""
    if len(samples) < 2:
        return None
    times = [moment(sample.at).timestamp() for sample in samples]
    counts = [sample.downloads for sample in samples]
    span, most = (times[-1] - times[0]) or 1.0, max(*counts, 1)
    places = [
        (round(100 * (at - times[0]) / span, 2), round(28 - 26 * count / most, 2))
        for at, count in zip(times, counts, strict=True)
    ]
    steps = "".join(f"H{x}V{y}" for x, y in places[1:])
    return Curve(f"M{places[0][0]} {places[0][1]}{steps}", counts[0], counts[-1], max(counts))


@dataclass(frozen=True, slots=True)
class Cell:
    """One tensor of the heatmap."""

    x: int
    y: int
    css: str
    title: str


@dataclass(frozen=True, slots=True)
class Tick:
    """An axis label."""

    x: int
    y: int
    text: str


@dataclass(frozen=True, slots=True)
class Heatmap:
    """Layers left to right, modules top to bottom."""

    width: int
    height: int
    cells: tuple[Cell, ...]
    modules: tuple[Tick, ...]
    layers: tuple[Tick, ...]
    summary: str
    pooled: int
    """Layers in one column."""


def shade(value: float | None) -> str:
    """CSS class of a relative delta norm: `h0` unchanged … `h9`, `hx` where no tensor was compared."""
    return "hx" if value is None else f"h{bisect_left(BREAKS, value)}"


def legend() -> tuple[tuple[str, str], ...]:
    """CSS class and meaning of every shade."""
    bounds = [f"≤ {significant(bound)}" for bound in BREAKS[1:]]
    return (("h0", "0"), *((f"h{index}", text) for index, text in enumerate(bounds, 1)), ("h9", "> 0.3"))


def heatmap(view: HeatmapView) -> Heatmap:
    """Lay out a heatmap."""
    pool = -(-len(view.layers) // MOST_COLUMNS)
    starts = range(0, len(view.layers), max(1, pool))
    cells = tuple(
        _cell(view, slice(start, start + pool), row, LABEL + column * CELL)
        for row in range(len(view.modules))
        for column, start in enumerate(starts)
    )
    bottom = TOP + len(view.modules) * CELL
    step = max(1, -(-len(starts) // 16))
    return Heatmap(
        width=LABEL + len(starts) * CELL + 8,
        height=bottom + 20,
        cells=cells,
        modules=tuple(
            Tick(LABEL - 8, TOP + row * CELL + 12, module) for row, module in enumerate(view.modules)
        ),
        layers=tuple(
            Tick(LABEL + column * CELL + CELL // 2, bottom + 15, str(view.layers[starts[column]]))
            for column in range(0, len(starts), step)
        ),
        summary=_in_words(view),
        pooled=pool,
    )


def _cell(view: HeatmapView, part: slice, row: int, x: int) -> Cell:
    known = [value for layer in view.values[part] if (value := layer[row]) is not None]
    value = max(known, default=None)
    layers = view.layers[part]
    place = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]}–{layers[-1]}"
    return Cell(x, TOP + row * CELL, shade(value), f"{place}, {view.modules[row]}: {_said(value)}")


def _said(value: float | None) -> str:
    if value is None:
        return "no such tensor, or not compared"
    return "unchanged" if value == 0 else significant(value)


def _in_words(view: HeatmapView) -> str:
    """What the picture shows, for those who do not see it."""
    known = [
        (value, layer, module)
        for layer, row in zip(view.layers, view.values, strict=True)
        for module, value in zip(view.modules, row, strict=True)
        if value is not None
    ]
    changed = [entry for entry in known if entry[0] > 0]
    if not changed:
        return f"None of the {len(known)} tensors shown changed."
    value, layer, module = max(changed)
    touched = _listed(sorted({entry[2] for entry in changed}))
    return (
        f"{len(changed)} of the {len(known)} tensors shown changed ({touched}); "
        f"the largest relative change is {significant(value)}, in layer {layer}, {module}."
    )


def _listed(names: Iterable[str], most: int = 4) -> str:
    names = list(names)
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
