"""A comparison as one SVG file: standalone, without scripts, light or dark as its reader is.

Geometry is made here, the template only writes it out; colours are CSS classes. Same document, same bytes.
"""

from __future__ import annotations

import math
import os
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reports.diff import DiffDocument
from reports.edit_words import detail_words
from reports.grid import Column, Grid, Spot, State, bounds, columns, grid, in_words
from reports.numbers import significant
from reports.render import environment
from reports.scan import SpectrumView
from reports.spectra import spectra
from reports.text import clean
from reports.words import PAIR_LINEAGE, edit_title

WIDTH = 960
MARGIN = 24
LABEL = 150
MOST_COLUMNS = 128
WIDEST = 26
ROW = 18
LINE = 19
TEXT = 124
"""Characters of a line of running text."""
PANELS = 3
PANEL_HEIGHT = 158
PLOT_HEIGHT = 84
LEAST = 1e-4
"""Bottom of the spectra's scale, unless rounding lies lower."""


@dataclass(frozen=True, slots=True)
class Label:
    """A piece of text."""

    x: float
    y: float
    css: str
    text: str


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; `mark` is written into it, `title` is its tooltip."""

    x: float
    y: float
    width: float
    height: float
    css: str
    title: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """A line."""

    x: float
    y: float
    to_x: float
    to_y: float
    css: str


Shape = Label | Box | Rule


def render_svg(document: DiffDocument) -> str:
    """The picture of a document. Deterministic; every text in it is escaped."""
    seen = grid(document)
    shapes: list[Shape] = []
    y = _heading(document, shapes)
    y = _heatmap(seen, shapes, y)
    y = _spectra(spectra(document, 2 * PANELS), shapes, y)
    y = _list("Not measured", [clean(gap, 300) for gap in document.not_measured], shapes, y)
    return (
        environment()
        .get_template("diff.svg")
        .render(
            width=WIDTH,
            height=math.ceil(y + MARGIN / 2),
            title=f"{_name(document.fork)} against {_name(document.base)}: where the weights differ",
            words=in_words(seen),
            labels=[shape for shape in shapes if isinstance(shape, Label)],
            boxes=[shape for shape in shapes if isinstance(shape, Box)],
            rules=[shape for shape in shapes if isinstance(shape, Rule)],
        )
    )


def write_svg(document: DiffDocument, path: Path) -> None:
    """Render to a file, which appears whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    text = render_svg(document)
    descriptor, part = tempfile.mkstemp(dir=path.absolute().parent, prefix=".svg-", suffix=".part")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        umask = os.umask(0)
        os.umask(umask)
        Path(part).chmod(0o666 & ~umask)
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _name(name: str, limit: int = 70) -> str:
    """The end of a long path says more than its beginning."""
    text = clean(name, 2000)
    return text if len(text) <= limit else f"…{text[1 - limit :]}"


def _heading(document: DiffDocument, shapes: list[Shape]) -> float:
    y = MARGIN + 14.0
    shapes.append(Label(MARGIN, y, "big", _name(document.fork)))
    shapes.append(Label(MARGIN, y + 21, "", f"against {_name(document.base, 100)}"))
    commits = [
        f"{side} at commit {commit[:12]}"
        for side, commit in (("fork", document.fork_commit), ("base", document.base_commit))
        if commit
    ]
    depth = "every value compared" if document.depth == "full" else "sampled rows only: no edit is proved"
    shapes.append(Label(MARGIN, y + 40, "quiet", "; ".join([f"depth {document.depth}, {depth}", *commits])))
    y += 64
    shapes.append(Label(MARGIN, y, "strong", f"{PAIR_LINEAGE[document.lineage.status]}."))
    for edit in document.edits:
        y += LINE + 3
        shapes.append(Label(MARGIN, y, "strong", f"{edit_title(edit.kind)}: {edit.certainty}"))
        for line in textwrap.wrap(clean(detail_words(edit), 500), TEXT):
            y += LINE
            shapes.append(Label(MARGIN + 12, y, "", line))
    return y + 20


def _heatmap(seen: Grid, shapes: list[Shape], y: float) -> float:
    if not seen.all_spots():
        return y
    y += 20
    shown = columns(seen, MOST_COLUMNS)
    pooled = shown[0].last - shown[0].first + 1 if shown else 1
    each = "" if pooled == 1 else f"; a column is {pooled} layers"
    shapes.append(Label(MARGIN, y, "head", "Change by layer and module"))
    y += 18
    shapes.append(Label(MARGIN, y, "quiet", f"‖fork − original‖ / ‖original‖, the largest of a cell{each}"))
    y += 12
    left = MARGIN + LABEL
    room = WIDTH - MARGIN - left
    cell = min(WIDEST, room / max(len(shown), 1))
    for row, module in enumerate(seen.modules):
        top = y + row * ROW
        shapes.append(Label(left - 8, top + 13, "side", clean(module, 22)))
        for index, column in enumerate(shown):
            spot = column.spots[row]
            if spot is not None:
                shapes.append(_cell(spot, left + index * cell, top, cell, _place(column, module)))
    y += len(seen.modules) * ROW
    if shown:
        shapes.extend(_ticks(shown, left, y + 14, cell))
        y += 26
    y = _outside(seen, shapes, left, y)
    return _legend(seen, shapes, y + 22)


def _place(column: Column, module: str) -> str:
    layers = (
        f"layer {column.first}" if column.first == column.last else f"layers {column.first}–{column.last}"
    )
    return f"{layers}, {clean(module, 60)}"


def _cell(spot: Spot, x: float, y: float, width: float, place: str) -> Box:
    css = f"h{spot.level}" if spot.value is not None else _css(spot.state)
    mark = spot.state.mark if spot.value is None and spot.state and width >= 9 else ""
    gap = 1 if width >= 5 else 0.5
    return Box(
        round(x, 2), y, round(width - gap, 2), ROW - 1, css, f"{place}: {spot.words()}", _typographic(mark)
    )


def _css(state: State | None) -> str:
    return "none" if state is None else f"s-{state.name.lower()}"


def _typographic(mark: str) -> str:
    """States that have a pattern need no character."""
    return {"-": "−", "+": "+", "/": "/"}.get(mark, "")


def _ticks(shown: tuple[Column, ...], left: float, y: float, cell: float) -> Iterator[Label]:
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100) if step * cell >= 26)
    for index in range(0, len(shown), step):
        yield Label(round(left + (index + 0.5) * cell, 2), y, "tick", str(shown[index].first))


def _outside(seen: Grid, shapes: list[Shape], left: float, y: float) -> float:
    """Embeddings, head and the like, in three columns below the layers."""
    wide = (WIDTH - MARGIN - left) / 3
    for index, (name, spot) in enumerate(seen.outside):
        x, top = left + (index % 3) * wide, y + 8 + (index // 3) * ROW
        shapes.append(_cell(spot, x, top, WIDEST, clean(name, 60)))
        said = "" if spot.value is None else f" {significant(spot.value)}"
        shapes.append(Label(round(x + WIDEST + 6, 2), top + 13, "", f"{clean(name, 22)}{said}"))
    y += 8 + -(-len(seen.outside) // 3) * ROW if seen.outside else 0
    if seen.rest:
        y += LINE
        shapes.append(Label(left, y, "quiet", f"{seen.rest:,} further modules are not shown."))
    return y


def _legend(seen: Grid, shapes: list[Shape], y: float) -> float:
    x = float(MARGIN + LABEL)
    for level, words in enumerate(bounds(), 1):
        shapes.append(Box(x, y - 12, 16, 14, f"h{level}", f"a relative change {words}"))
        shapes.append(Label(x + 20, y, "quiet", words))
        x += 28 + 7.2 * len(words)
    x = float(MARGIN + LABEL)
    y += 22
    for state in seen.states():
        shapes.append(Box(x, y - 12, 16, 14, _css(state), state.words, _typographic(state.mark)))
        shapes.append(Label(x + 22, y, "quiet", state.words))
        x += 40 + 6.6 * len(state.words)
    return y + (10 if seen.states() else -12)


def _spectra(found: tuple[SpectrumView, ...], shapes: list[Shape], y: float) -> float:
    if not found:
        return y
    y += 34
    shapes.append(Label(MARGIN, y, "head", "Most changed matrices"))
    words = "share of the change that its r strongest directions leave over; the dashed line is rounding"
    y += 18
    shapes.append(Label(MARGIN, y, "quiet", words))
    y += 8
    wide = (WIDTH - 2 * MARGIN) / PANELS
    for index, spectrum in enumerate(found):
        _panel(spectrum, shapes, MARGIN + (index % PANELS) * wide, y + (index // PANELS) * PANEL_HEIGHT, wide)
    return y + -(-len(found) // PANELS) * PANEL_HEIGHT


def _panel(spectrum: SpectrumView, shapes: list[Shape], x: float, y: float, wide: float) -> None:
    """One matrix: a bar for each r, on a logarithmic scale."""
    rank = "rank not established" if spectrum.rank is None else f"rank {spectrum.rank}"
    name = _name(spectrum.name.removeprefix("model.").removesuffix(".weight"), 38)
    shapes.append(Label(x, y + 16, "strong", name))
    shapes.append(Label(x, y + 32, "quiet", f"changed by {significant(spectrum.relative_norm)}, {rank}"))
    left, bottom, right = x + 42, y + 46 + PLOT_HEIGHT, x + wide - 24
    least = min(LEAST, (spectrum.floor or 1) / 3)

    def level(share: float) -> float:
        return round(bottom - PLOT_HEIGHT * (1 - math.log10(max(share, least)) / math.log10(least)), 2)

    for share, words in ((1.0, "100%"), (0.01, "1%"), (1e-4, "0.01%")):
        shapes.append(Rule(left, level(share), right, level(share), "grid"))
        shapes.append(Label(left - 5, level(share) + 4, "small", words))
    shapes.extend(_bars(spectrum, left, bottom, right, level))
    if spectrum.floor is not None:
        shapes.append(Rule(left, level(spectrum.floor), right, level(spectrum.floor), "floor"))
        shapes.append(Label(right, level(spectrum.floor) - 4, "small", "rounding"))


def _bars(
    spectrum: SpectrumView, left: float, bottom: float, right: float, level: Callable[[float], float]
) -> Iterator[Shape]:
    bar = min(16.0, (right - left) / len(spectrum.left))
    for r, share in enumerate(spectrum.left):
        tall = round(max(bottom - level(share), 0.75), 2)
        title = f"{significant(share)} of the change lies outside the {r} strongest directions"
        css = "rank" if r == spectrum.rank else "bar"
        yield Box(round(left + r * bar, 2), round(bottom - tall, 2), round(bar - 1, 2), tall, css, title)
    last = len(spectrum.left) - 1
    named = {0: "r = 0", last: str(last)}
    if spectrum.rank is not None and spectrum.rank * bar > 24 and (last - spectrum.rank) * bar > 18:
        named[spectrum.rank] = str(spectrum.rank)
    for r, words in named.items():
        yield Label(round(left + (r + 0.5) * bar, 2), bottom + 13, "tick", words)


def _list(title: str, items: list[str], shapes: list[Shape], y: float) -> float:
    y += 34
    shapes.append(Label(MARGIN, y, "head", title))
    for item in items:
        for index, line in enumerate(textwrap.wrap(item, TEXT)):
            y += LINE
            shapes.append(Label(MARGIN + 12, y, "", line))
            if not index:
                shapes.append(Label(MARGIN, y, "", "•"))
    return y
