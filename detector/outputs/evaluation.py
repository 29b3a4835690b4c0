"""How well a release's classifier does on what it has not seen, and how often it is wrong about the release.

Splits, each with thresholds from authentic outputs that nothing was learned from:

- `prompts`: every fork was seen, answering other prompts;
- `leave-one-fork-out`: the fork was not seen, others of its family may have been;
- `leave-one-family-out`: nothing of its edit family was seen;
- `time`: trained on the forks of the earlier half, tested on the later ones.

Rates are of disjoint units of n outputs at the level alpha, with Clopper-Pearson intervals of 95 %. Where
there are too few calibration units for a threshold, a rate is unmeasured, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from detector.outputs.classifier import Mode
from detector.outputs.conformal import SIZES, Calibration, sums, units_needed
from detector.outputs.interface import ALPHA
from detector.outputs.table import Parts, Table, held_table
from detector.outputs.training import fit_scores, fit_text, folds_by_prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]
    Scores = NDArray[np.float32]

_PROMPT_FOLDS = 4
_HELD = {Mode.SCORE: 299 * 40, Mode.TEXT: 299 * 10}
"""Calibration outputs of a cell in an evaluation. Texts of more would take gigabytes, and minutes a fork;
rates of texts are stated up to 10 outputs."""


class Split(StrEnum):
    """What the tested outputs have not been learned from."""

    PROMPTS = "prompts"
    FORK = "leave-one-fork-out"
    FAMILY = "leave-one-family-out"
    TIME = "time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Share of units with p at or below alpha: a power, or of a nuisance cell a false-alarm rate."""

    n: int
    """Outputs a unit."""
    hits: int
    units: int
    low: float
    high: float
    """Clopper-Pearson, 95 %."""
    unmeasured: str = ""
    """Why there is none; then there were no units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkRow:
    """What one fork gets in one split."""

    split: Split
    mode: Mode
    fork: str
    family: str
    outputs: int
    auroc: float
    """Of one output against one of the release in its plain setting."""
    rates: tuple[Rate, ...]
    """By `SIZES`."""
    n: int
    """Outputs of the fork in the next; 0: too few calibration outputs for a threshold."""
    p_value: float | None
    """Of the fork's first n outputs, as many as can be judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRow:
    """False alarms of one nuisance cell, on the half of its units that gave no threshold."""

    mode: Mode
    cell: str
    rates: tuple[Rate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All of it."""

    alpha: float
    forks: tuple[ForkRow, ...]
    cells: tuple[CellRow, ...]


def evaluate(
    parts: Parts,
    calibrations: Mapping[Mode, Calibration],
    *,
    dates: Mapping[str, str] | None = None,
    alpha: float = ALPHA,
    splits: Iterable[Split] = tuple(Split),
) -> Evaluation:
    """Refit the heads of a classifier without what is tested, for each mode it has.

    Args:
        parts: what the classifier was trained from.
        calibrations: the classifier's own, for false alarms.
        dates: when a fork was first seen, ISO 8601; forks without one are not in the time split.
        alpha: level.
        splits: which to do.
    """
    forks: list[ForkRow] = []
    for mode in calibrations:
        held = held_table(parts, _HELD[mode], texts=mode is Mode.TEXT)
        for wanted in splits:
            for folds in _groups(wanted, parts.training, held, dates or {}):
                scores = _pooled([_scores(mode, parts.training, held, fold) for fold in folds])
                forks += _rows(wanted, mode, parts.training, scores, alpha)
    cells = tuple(
        CellRow(mode=mode, cell=cell, rates=_false_alarms(calibration, cell, alpha))
        for mode, calibration in calibrations.items()
        for cell in calibration.cells
    )
    return Evaluation(alpha=alpha, forks=tuple(forks), cells=cells)


# --- folds ---


@dataclass(frozen=True, slots=True, eq=False)
class _Fold:
    """Rows of the training table to learn from and to test, and rows of the held-out one to calibrate on."""

    taught: Rows
    tested: Rows
    held: Rows


def _groups(split: Split, table: Table, held: Table, dates: Mapping[str, str]) -> Iterator[list[_Fold]]:
    """Folds whose scores are pooled: those over prompts together, each other one by itself."""
    everything = np.arange(len(held.looks))
    if split is Split.PROMPTS:
        yield [
            _Fold(
                taught, _modified(table, tested), np.flatnonzero(np.isin(held.prompt, table.prompt[tested]))
            )
            for taught, tested in folds_by_prompt(table, _PROMPT_FOLDS)
        ]
        return
    dated = np.isin(table.model, list(dates)) | (split is not Split.TIME)
    for out in _left_out(split, table, dates):
        taught = np.flatnonzero(table.benign | (dated & ~out))
        if not table.benign[taught].all():
            yield [_Fold(taught, np.flatnonzero(~table.benign & out), everything)]


def _left_out(split: Split, table: Table, dates: Mapping[str, str]) -> Iterator[NDArray[np.bool_]]:
    """For each fold, (rows,) whether it is tested, among rows of modified forks."""
    if split is Split.TIME:
        seen = sorted(set(table.model[~table.benign].tolist()) & dates.keys(), key=lambda fork: dates[fork])
        if len(seen) > 1:
            yield np.isin(table.model, seen[(len(seen) + 1) // 2 :])
        return
    group = table.model if split is Split.FORK else table.family
    for name in np.unique(group[~table.benign]):
        yield group == name


def _modified(table: Table, rows: Rows) -> Rows:
    return rows[~table.benign[rows]]


# --- scores ---


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    tested: Rows
    own: Scores
    """(tested,)"""
    cells: Mapping[str, Scores]


def _scores(mode: Mode, table: Table, held: Table, fold: _Fold) -> _Scored:
    """Log-odds by a head that learned from the fold's rows alone."""
    taught, tested, asked = table.take(fold.taught), table.take(fold.tested), held.take(fold.held)
    if mode is Mode.SCORE:
        fitted = fit_scores(taught)
        assert fitted is not None
        standard, head = fitted
        own, theirs = (
            head.dense(standard.apply(each.scores, each.prompt.tolist()))
            for each in (tested, asked)
            if each.scores is not None
        )
    else:
        space, head = fit_text(taught)
        own, theirs = (head.text(space.weigh(each.counts, each.looks)) for each in (tested, asked))
    cells = {
        str(cell): theirs[asked.cell == cell, 0].astype(np.float32)
        for cell in dict.fromkeys(asked.cell.tolist())
    }
    return _Scored(fold.tested, own[:, 0].astype(np.float32), cells)


def _pooled(scored: list[_Scored]) -> _Scored:
    cells = dict.fromkeys(cell for one in scored for cell in one.cells)
    nothing = np.empty(0, np.float32)
    return _Scored(
        np.concatenate([np.empty(0, np.int64), *(one.tested for one in scored)]),
        np.concatenate([nothing, *(one.own for one in scored)]),
        {cell: np.concatenate([one.cells.get(cell, nothing) for one in scored]) for cell in cells},
    )


# --- rates ---


def _rows(split: Split, mode: Mode, table: Table, scored: _Scored, alpha: float) -> Iterator[ForkRow]:
    calibration = Calibration(scored.cells)
    plain = scored.cells.get("seed", next(iter(scored.cells.values()), np.empty(0, np.float32)))
    models = table.model[scored.tested]
    for fork in np.unique(models):
        own = scored.own[models == fork]
        n = calibration.largest(len(own), alpha)
        yield ForkRow(
            split=split,
            mode=mode,
            fork=str(fork),
            family=str(table.family[table.model == fork][0]),
            outputs=len(own),
            auroc=auroc(own, plain),
            rates=tuple(_power(calibration, own, size, alpha) for size in SIZES),
            n=n,
            p_value=calibration.p_value(float(sums(own, n)[0]), n) if n else None,
        )


def _power(calibration: Calibration, own: Scores, n: int, alpha: float) -> Rate:
    units, cell = calibration.units(n)
    if units < units_needed(alpha):
        return _unmeasured(n, f"{units} calibration units of {units_needed(alpha)} in the cell {cell}")
    totals = sums(own, n)
    if not len(totals):
        return _unmeasured(n, f"the fork has {len(own)} outputs")
    return rate(n, int((calibration.p_values(totals, n) <= alpha).sum()), len(totals))


def _false_alarms(calibration: Calibration, cell: str, alpha: float) -> tuple[Rate, ...]:
    """The even outputs of every cell calibrate, the odd ones of this one are tested."""
    half = Calibration({name: scores[::2] for name, scores in calibration.cells.items()})
    return tuple(_power(half, calibration.cells[cell][1::2], n, alpha) for n in SIZES)


def rate(n: int, hits: int, units: int) -> Rate:
    """With its interval."""
    low, high = clopper_pearson(hits, units)
    return Rate(n=n, hits=hits, units=units, low=low, high=high)


def _unmeasured(n: int, reason: str) -> Rate:
    return Rate(n=n, hits=0, units=0, low=0.0, high=1.0, unmeasured=reason)


def clopper_pearson(hits: int, units: int) -> tuple[float, float]:
    """The exact 95 % interval of a proportion (Clopper & Pearson 1934)."""
    from scipy.stats import beta

    low = 0.0 if not hits else float(beta.ppf(0.025, hits, units - hits + 1))
    high = 1.0 if hits == units else float(beta.ppf(0.975, hits + 1, units - hits))
    return low, high


def auroc(positive: Scores, negative: Scores) -> float:
    """Chance that a positive scores above a negative, ties half; 0.5 where a side is empty."""
    if not len(positive) or not len(negative):
        return 0.5
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left") + np.searchsorted(ordered, positive, side="right")
    return float(below.mean() / (2 * len(negative)))
