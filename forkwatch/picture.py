"""A comparison on a terminal: what was done, where, how much, and what was not looked at.

Colour is an addition: every cell has a character of its own, and without colour (NO_COLOR, a pipe, a terminal
that has none) a ramp of them carries the same scale. Everything here may hold hostile names.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.style import Style
from rich.text import Text

from forkwatch.text import plain
from reports.diff import DiffDocument, SampledTensorView
from reports.edit_words import detail_words
from reports.grid import Column, Grid, Spot, bounds, columns, grid
from reports.numbers import duration, significant, size
from reports.render import shown as value_words
from reports.scan import EvidenceView, SpectrumView
from reports.spectra import spectra
from reports.words import CERTAINTIES, PAIR_LINEAGE, edit_title

RAMP = "·▁▂▃▄▅▆▇█"
DIGITS = "123456789"
SHADES = (
    "#1c2f57", "#21407c", "#22599f", "#1d7fb8", "#2ea3c4", "#5fc2c0", "#a0dab8", "#dcf0b2", "#ffffd2",
)  # fmt: skip
"""From dark to light, as the site's in dark mode: lightness alone orders them, for any colour vision."""
_DARK = 4
"""Shades up to this one carry light characters."""
_LABEL = 22
_MOST_BLOCKS = 3
_WRAPPER = Console(file=io.StringIO())
"""Rich wraps text with a console's options; this one prints nothing."""
_BAR = 60
_LARGEST = 8


@dataclass(frozen=True, slots=True)
class _Brush:
    """How a console shows cells."""

    marks: str
    coloured: bool

    @classmethod
    def of(cls, console: Console) -> _Brush:
        """Digits where a cell is coloured too, or where there is nothing but ASCII; else a ramp."""
        coloured = console.color_system is not None and not console.no_color
        unicode = console.encoding.lower().startswith("utf")
        return cls(DIGITS if coloured or not unicode else RAMP, coloured)

    def level(self, level: int) -> tuple[str, Style]:
        """Character and style of a shade."""
        if not self.coloured:
            return self.marks[level - 1], Style.null()
        ink = "#ffffff" if level <= _DARK else "#101010"
        return self.marks[level - 1], Style(color=ink, bgcolor=SHADES[level - 1])

    def cell(self, spot: Spot | None) -> tuple[str, Style]:
        """Character and style of a cell."""
        if spot is None:
            return " ", Style.null()
        if spot.value is not None:
            return self.level(spot.level)
        return spot.state.mark if spot.state else " ", Style(dim=True) if self.coloured else Style.null()


def draw(document: DiffDocument, console: Console) -> None:
    """Print the whole picture."""
    brush = _Brush.of(console)
    width = max(console.width, 40)
    for line in (
        *_heading(document),
        *_edits(document),
        *_heatmap(document, brush, width),
        *_spectra(document, width),
        *_largest(document),
        *_gaps(document),
        *_cost(document),
    ):
        for part in _hanging(line, width):
            console.print(part, overflow="ignore", no_wrap=True, crop=False, highlight=False)


def _hanging(line: Text, width: int) -> Iterator[Text]:
    """The line in parts that fit; those that follow are indented below the text of the first."""
    if line.cell_len <= width:
        yield line
        return
    indent = len(line.plain) - len(line.plain.lstrip(" ")) + 2
    first, *rest = line.wrap(_WRAPPER, width - indent)
    for lead, part in ((0, first), *((indent, part) for part in rest)):
        part.rstrip()
        yield Text(" " * lead).append_text(part)


def _heading(document: DiffDocument) -> Iterator[Text]:
    lineage = document.lineage
    yield Text(
        f"{_side(document.fork, document.fork_commit)} against {_side(document.base, document.base_commit)}",
        "bold",
    )
    yield Text(f"lineage: {lineage.status}").append(f"  {PAIR_LINEAGE[lineage.status]}", "dim")
    for item in lineage.evidence:
        yield _hung(2, _fact(item))


def _fact(item: EvidenceView) -> str:
    note = f"  ({plain(item.note, 200)})" if item.note else ""
    return f"{plain(item.name, 60)} {plain(value_words(item.value), 100)}{note}"


def _side(name: str, commit: str | None) -> str:
    return plain(name, 200) if commit is None else f"{plain(name, 200)} ({plain(commit[:12])})"


def _hung(indent: int, text: str, style: str = "") -> Text:
    return Text(" " * indent + text, style)


def _edits(document: DiffDocument) -> Iterator[Text]:
    for edit in document.edits:
        yield Text("")
        title, meaning = f"edit: {plain(edit.kind, 60)} ({edit.certainty})", plain(edit_title(edit.kind), 60)
        yield Text(title, "bold").append(f"  {meaning}. {CERTAINTIES[edit.certainty][1]}", "not bold dim")
        if words := detail_words(edit):
            yield _hung(2, plain(words, 600))
        for item in edit.evidence:
            yield _hung(4, _fact(item), "dim")


def _heatmap(document: DiffDocument, brush: _Brush, width: int) -> Iterator[Text]:
    seen = grid(document)
    if not any(spot.value is not None for spot in seen.all_spots()):
        yield from _nothing_drawn(seen)
        return
    label = min(_LABEL, max(map(len, (*seen.modules, *(name for name, _ in seen.outside))), default=0))
    room = width - label - 2
    shown = columns(seen, _MOST_BLOCKS * room)
    pooled = shown[0].last - shown[0].first + 1 if shown else 1
    yield Text("")
    each = "" if pooled == 1 else f"; a column is {pooled} layers"
    yield Text("change by layer and module", "bold").append(
        f"  ‖fork − original‖ / ‖original‖, largest of a cell{each}", "not bold dim"
    )
    for block in _blocks(shown, room):
        yield from _block(seen, block, label, room, brush)
    if seen.outside:
        yield Text("")
    for name, spot in seen.outside:
        line = Text(f"{plain(name, _LABEL):>{label}}  ").append(*brush.cell(spot))
        yield line.append(f"  {spot.words()}", "dim")
    if seen.rest:
        yield _hung(label + 2, f"{seen.rest:,} further modules are not shown; `--json` has them", "dim")
    yield from _legend(seen, label, brush, width)


def _nothing_drawn(seen: Grid) -> Iterator[Text]:
    spots = seen.all_spots()
    if spots:
        yield Text("")
        counts = (
            (state, sum(spot.tensors for spot in spots if spot.state is state)) for state in seen.states()
        )
        words = ", ".join(f"{count:,} {state.words}" for state, count in counts)
        yield Text(f"tensors: {words}")


def _blocks(shown: tuple[Column, ...], room: int) -> Iterator[tuple[Column, ...]]:
    """Lines of columns, of nearly equal length."""
    lines = max(1, -(-len(shown) // max(room, 1)))
    step = max(1, -(-len(shown) // lines))
    for start in range(0, len(shown), step):
        yield shown[start : start + step]


def _block(seen: Grid, block: tuple[Column, ...], label: int, room: int, brush: _Brush) -> Iterator[Text]:
    cell = 2 if 2 * len(block) <= room else 1
    yield Text(" " * (label + 2) + _ruler(block, cell), "dim")
    for row, module in enumerate(seen.modules):
        line = Text(f"{plain(module, _LABEL):>{label}}  ")
        for column in block:
            mark, style = brush.cell(column.spots[row])
            line.append(mark * cell if mark in RAMP else mark.ljust(cell), style)
        yield line


def _ruler(block: tuple[Column, ...], cell: int) -> str:
    """Numbers of layers, as many as have room."""
    wide = len(str(block[-1].last)) + 1
    line = ""
    for index, column in enumerate(block):
        if index * cell >= len(line) and (index == 0 or index * cell - len(line.rstrip()) >= 1):
            number = str(column.first)
            every = max(1, -(-wide // cell))
            if index % (5 * every if len(block) > 12 * every else every) == 0:
                line = line.ljust(index * cell) + number
    return line


def _legend(seen: Grid, label: int, brush: _Brush, width: int) -> Iterator[Text]:
    yield Text("")
    entries = [
        Text().append(*brush.level(level)).append(f" {words}", "dim")
        for level, words in enumerate(bounds(), 1)
    ]
    entries += [Text(state.mark).append(f" {state.words}", "dim") for state in seen.states()]
    line = Text(" " * (label + 2))
    for entry in entries:
        if line.cell_len + entry.cell_len > width:
            line.rstrip()
            yield line
            line = Text(" " * (label + 2))
        line.append_text(entry).append("  ")
    line.rstrip()
    yield line


def _spectra(document: DiffDocument, width: int) -> Iterator[Text]:
    found = spectra(document, _LARGEST)
    if not found:
        return
    yield Text("")
    yield Text("most changed matrices", "bold")
    yield _hung(
        2, "share of the change in its strongest directions: █ the first, ▓ up to the rank, ▒ to the", "dim"
    )
    yield _hung(2, "last computed, ░ the rest; │ is where rounding begins", "dim")
    names = [_tail(spectrum.name.removeprefix("model.").removesuffix(".weight"), 36) for spectrum in found]
    wide = max(map(len, names))
    for name, spectrum in zip(names, found, strict=True):
        rank = "rank not established" if spectrum.rank is None else f"rank {spectrum.rank}"
        line = Text(f"  {name:<{wide}} {significant(spectrum.relative_norm):>8} {rank:<9}  ")
        yield line.append(_directions(spectrum), "dim")
        yield Text("    ").append_text(_bar(spectrum, min(width - 6, _BAR)))


def _tail(name: str, limit: int) -> str:
    """The end of a name tells one tensor from another."""
    shown = plain(name, 600)
    return shown if len(shown) <= limit else f"…{shown[1 - limit :]}"


def _ends(spectrum: SpectrumView) -> tuple[int, float, float, float]:
    """How many directions count, and the shares in the first, in those, and in all that were computed."""
    last = len(spectrum.left) - 1
    rank = min(spectrum.rank or last, last)
    return rank, 1 - spectrum.left[1], 1 - spectrum.left[rank], 1 - spectrum.left[last]


def _bar(spectrum: SpectrumView, width: int) -> Text:
    """█ the strongest direction, ▓ the next up to the rank, ▒ others that were computed, ░ the rest."""
    bar, at = "", 0
    for end, mark in zip((*_ends(spectrum)[1:], 1.0), "█▓▒░", strict=True):
        to = max(at, round(width * end))
        bar, at = bar + mark * (to - at), to
    if spectrum.floor is not None:
        place = min(width - 1, round(width * (1 - spectrum.floor)))
        bar = f"{bar[:place]}│{bar[place + 1 :]}"
    return Text(bar)


def _directions(spectrum: SpectrumView) -> str:
    rank, first, counted, _ = _ends(spectrum)
    said = f"{_share(first)} in 1"
    if rank > 1:
        said += f", {_share(counted)} in {rank}"
    return said if spectrum.floor is None else f"{said}; rounding {_share(spectrum.floor)}"


def _share(value: float) -> str:
    if value < 0.999:
        return f"{value:.1%}" if value >= 0.001 else "<0.1%"
    return f"{value:.2%}" if value < 0.9999 else ">99.99%"


def _largest(document: DiffDocument) -> Iterator[Text]:
    """At depth sketch, where there are no spectra."""
    sampled = [
        tensor for tensor in document.tensors if isinstance(tensor, SampledTensorView) and tensor.changed
    ]
    if sampled:
        yield Text("")
        yield Text("most changed tensors", "bold").append("  on their sampled rows", "not bold dim")
    largest = sorted(sampled, key=lambda tensor: (-tensor.relative_norm, tensor.name))[:_LARGEST]
    names = [_tail(tensor.name.removeprefix("model.").removesuffix(".weight"), 40) for tensor in largest]
    wide = max(map(len, names), default=0)
    for name, tensor in zip(names, largest, strict=True):
        rank = "" if tensor.rank is None else f", rank {tensor.rank} in them"
        yield _hung(2, f"{name:<{wide}} {significant(tensor.relative_norm):>9}  {tensor.rows} rows{rank}")
    for region in document.regions[:_LARGEST]:
        span = f"rows {region.first_row} to {region.first_row + region.rows - 1}"
        yield _hung(
            2, f"worth reading next: {plain(region.name, 60)} {span}: {plain(region.why, 200)}", "dim"
        )


def _gaps(document: DiffDocument) -> Iterator[Text]:
    yield Text("")
    yield Text("not measured", "bold")
    for gap in document.not_measured:
        yield _hung(2, f"- {plain(gap, 400)}")


def _cost(document: DiffDocument) -> Iterator[Text]:
    cost = document.cost
    changed = sum(
        tensor.changed if isinstance(tensor, SampledTensorView) else tensor.status == "changed"
        for tensor in document.tensors
    )
    yield Text("")
    read = f"{size(cost.bytes_read)} read"
    if cost.requests:
        read += f", {size(cost.bytes_downloaded)} fetched from the Hub in {cost.requests:,} requests"
    yield Text(
        f"{document.depth}: {changed:,} of {len(document.tensors):,} tensors changed; {read}; "
        f"{duration(cost.seconds)}",
        "dim",
    )
