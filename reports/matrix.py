"""Refusals by topic and language as a table: a fork beside its original, and all forks of a release."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from reports.numbers import percent, plural
from reports.scan import NumberView, RateView, SafetyView, TopicLanguageView

LEVELS = (0.05, 0.15, 0.35, 0.65)
"""Upper bounds of a fall of the refusal rate in classes d0…d3; d4 is everything above."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One topic in one language."""

    original: NumberView
    fork: NumberView
    css: str
    """`d0`…`d4` by how far the rate fell; `dx` where it was not measured."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Topics in rows, languages in columns."""

    languages: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    """None where the suite has no such prompt."""


def matrix(cells: Sequence[TopicLanguageView]) -> Matrix | None:
    """Lay out the cells; None when there are none."""
    if not cells:
        return None
    topics = tuple(dict.fromkeys(cell.topic for cell in cells))
    languages = tuple(dict.fromkeys(cell.language for cell in cells))
    found = {(cell.topic, cell.language): cell for cell in cells}
    return Matrix(
        languages,
        tuple(
            (topic, tuple(_cell(found.get((topic, language))) for language in languages)) for topic in topics
        ),
    )


def _cell(cell: TopicLanguageView | None) -> Cell | None:
    return (
        None if cell is None else Cell(cell.original, cell.fork, fall_class(fall(cell.original, cell.fork)))
    )


def fall(original: NumberView, fork: NumberView) -> float | None:
    """By how much the rate fell; None when a side was not measured."""
    if isinstance(original, RateView) and isinstance(fork, RateView):
        return original.rate - fork.rate
    return None


def fall_class(drop: float | None) -> str:
    """CSS class of a fall."""
    if drop is None:
        return "dx"
    return f"d{sum(drop > level for level in LEVELS)}"


def fall_legend() -> tuple[tuple[str, str], ...]:
    """CSS class and meaning of every fall."""
    bounds = [percent(level).removesuffix("%") for level in LEVELS]
    words = [
        f"at most {bounds[0]} points",
        *(f"to {bound}" for bound in bounds[1:]),
        f"more than {bounds[-1]}",
    ]
    return tuple((f"d{index}", text) for index, text in enumerate(words))


@dataclass(frozen=True, slots=True)
class TopicFall:
    """What the evaluated forks of a release lost on one topic, without saying which."""

    topic: str
    original: NumberView
    forks: int
    median: str
    median_css: str
    largest: str
    largest_css: str


def falls_json(safety: SafetyView) -> str:
    """What one fork adds to `topic_falls`; empty when it adds nothing."""
    found = []
    for topic in safety.topics:
        drop = fall(topic.original, topic.fork)
        if drop is not None and isinstance(topic.original, RateView):
            found.append((topic.topic, drop, topic.original.rate, topic.original.n, topic.original.ci))
    return json.dumps(found) if found else ""


def topic_falls(evaluated: Iterable[str]) -> tuple[TopicFall, ...]:
    """Median and largest fall of each topic, by name of the topic. No fork is named: this is no ranking.

    `evaluated` are `falls_json` of forks.
    """
    drops: dict[str, list[float]] = {}
    originals: dict[str, tuple[float, int, tuple[float, float]]] = {}
    for fork in json.loads(f"[{','.join(filter(None, evaluated))}]"):
        for topic, drop, rate, n, (low, high) in fork:
            drops.setdefault(topic, []).append(drop)
            originals[topic] = rate, n, (low, high)
    found = []
    for topic, falls in sorted(drops.items()):
        rate, n, ci = originals[topic]
        original, middle, most = RateView(rate=rate, n=n, ci=ci), median(falls), max(falls)
        words = points(middle), fall_class(middle), points(most), fall_class(most)
        found.append(TopicFall(topic, original, len(falls), *words))
    return tuple(found)


def points(drop: float) -> str:
    """A difference of two rates, in percentage points."""
    count = round(100 * drop)
    return (
        "0 points" if count == 0 else plural(count, "point") if count > 0 else f"+{plural(-count, 'point')}"
    )
