"""Spectra of a fork's most changed matrices, as small charts: a few strong directions, or many weak ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from reports.numbers import percent, significant
from reports.scan import SpectrumView

WIDTH, HEIGHT = 236, 118
LEFT, RIGHT, TOP, BOTTOM = 40, 8, 8, 20
LEAST = 1e-5
"""Bottom of the scale, unless rounding lies lower."""


@dataclass(frozen=True, slots=True)
class Bar:
    """The share that r directions leave over."""

    x: float
    y: float
    width: float
    height: float
    css: str
    title: str


@dataclass(frozen=True, slots=True)
class Line:
    """A power of ten."""

    y: float
    text: str


@dataclass(frozen=True, slots=True)
class SpectrumChart:
    """One matrix."""

    name: str
    note: str
    bars: tuple[Bar, ...]
    lines: tuple[Line, ...]
    floor: float | None
    """Height of what rounding leaves."""
    last: int
    """Largest r drawn."""
    rows: tuple[tuple[int, str], ...]
    """(r, share left over), for the table."""


def spectrum_chart(spectrum: SpectrumView) -> SpectrumChart:
    """Lay out one spectrum, on a logarithmic scale."""
    least = min(LEAST, (spectrum.floor or 1) / 3)
    rank = "rank not established" if spectrum.rank is None else f"rank {spectrum.rank}"

    def level(share: float) -> float:
        part = 1 - math.log10(max(share, least)) / math.log10(least)
        return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * part, 2)

    return SpectrumChart(
        name=spectrum.name.removeprefix("model.").removesuffix(".weight"),
        note=f"changed by {significant(spectrum.relative_norm)}, {rank}",
        bars=tuple(_bars(spectrum, level(least), [level(share) for share in spectrum.left])),
        lines=tuple(
            Line(level(share), text) for share, text in ((1.0, "100%"), (0.01, "1%"), (1e-4, "0.01%"))
        ),
        floor=None if spectrum.floor is None else level(spectrum.floor),
        last=len(spectrum.left) - 1,
        rows=tuple((r, _share(share)) for r, share in enumerate(spectrum.left)),
    )


def _bars(spectrum: SpectrumView, bottom: float, tops: list[float]) -> Iterator[Bar]:
    step = min(16.0, (WIDTH - LEFT - RIGHT) / max(1, len(tops)))
    for r, top in enumerate(tops):
        tall = max(round(bottom - top, 2), 0.75)
        title = f"{_share(spectrum.left[r])} of the change lies outside the {r} strongest directions"
        css = "rank" if r == spectrum.rank else "bar"
        yield Bar(round(LEFT + r * step, 2), round(bottom - tall, 2), round(step - 1, 2), tall, css, title)


def _share(share: float) -> str:
    return percent(share) if share >= 0.01 else f"{significant(100 * share)}%"
