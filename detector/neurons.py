"""Neurons that are more like the one at their own position than like any other: counts and p-values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median_low

import numpy as np

from detector.floats import Floats

Pairs = Sequence[tuple[Floats, Floats]]
Gains = Sequence[tuple[Floats | None, Floats | None]]

READINGS = (None, 0.0, 1.0)
"""How the gain before the neurons may be folded into them: not at all, as it is, and one above what is
stored, as Gemma has it."""


@dataclass(frozen=True, slots=True)
class Matches:
    """Neurons whose best counterpart is the one at their own position."""

    matched: int
    compared: int
    log10_p: float
    correlation: float
    """Median correlation of a neuron with the one at its position."""


def match_neurons(pairs: Pairs, gains: Gains) -> tuple[Matches, Matches]:
    """The best match of the neurons, and of the angles between them, over all readings of the gain.

    Both p-values are multiplied by the number of readings that were tried (Bonferroni).

    Args:
        pairs: bands of the original and of the fork, (rows, width) each.
        gains: the vectors before them; None where unknown.
    """
    readings = READINGS if any(left is not None and right is not None for left, right in gains) else (None,)
    folded = [_folded(pairs, gains, reading) for reading in readings]
    direct = min((count_matches(reading) for reading in folded), key=lambda found: found.log10_p)
    angles = min(
        (count_matches([_profiles(*pair) for pair in reading]) for reading in folded),
        key=lambda found: found.log10_p,
    )
    factor = math.log10(len(readings))
    return (
        replace(direct, log10_p=min(0.0, direct.log10_p + factor)),
        replace(angles, log10_p=min(0.0, angles.log10_p + factor)),
    )


def count_matches(pairs: Pairs) -> Matches:
    """Pool the matched-neuron counts of several bands; of two heights the smaller counts."""
    matched, compared, smallest, correlations = 0, 0, 0, list[float]()
    for left, right in pairs:
        rows, width = min(len(left), len(right)), left.shape[1]
        if rows < 2 or width != right.shape[1]:
            continue
        alive = _centred(left[:rows]).any(1) & _centred(right[:rows]).any(1)  # zeros are like any other row
        ours, theirs, rows = left[:rows][alive], right[:rows][alive], int(alive.sum())
        if rows < 2:
            continue
        similarity = _centred(ours) @ _centred(theirs).T
        hits = int((similarity.argmax(1) == np.arange(rows)).sum())
        matched, compared = matched + hits, compared + rows
        smallest = min(smallest or rows, rows)
        correlations.extend(similarity.diagonal().tolist())
    if not compared:
        return Matches(0, 0, 0.0, 0.0)
    log10_p = log10_binomial_tail(matched, compared, 1 / smallest)
    return Matches(matched, compared, log10_p, median_low(correlations))


def log10_binomial_tail(successes: int, trials: int, chance: float) -> float:
    """log10 of P(X ≥ successes) for X binomial, floored at -300."""
    if successes <= 0:
        return 0.0
    logs = [
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(chance)
        + (trials - k) * math.log1p(-chance)
        for k in range(successes, trials + 1)
    ]
    top = max(logs)
    total = top + math.log(sum(math.exp(value - top) for value in logs))
    return max(-300.0, min(0.0, total / math.log(10)))


def with_gain(band: Floats, gain: Floats | None, reading: float | None) -> Floats:
    """A band with the gain before it folded in."""
    if reading is None or gain is None or len(gain) != band.shape[1]:
        return band
    return band * (gain + np.float32(reading))


def _folded(pairs: Pairs, gains: Gains, reading: float | None) -> list[tuple[Floats, Floats]]:
    return [
        (with_gain(left, before, reading), with_gain(right, after, reading))
        for (left, right), (before, after) in zip(pairs, gains, strict=True)
    ]


def _profiles(left: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Cosines of the even neurons with the odd ones, of both sides: what a rotation leaves as it was.

    Under independence the even neurons are exchangeable given the odd ones, so the null is that of the
    neurons.
    """
    rows = min(len(left), len(right)) // 2 * 2
    return _angles(left[:rows]), _angles(right[:rows])


def _angles(band: Floats) -> Floats:
    unit = unit_rows(band - band.mean(0, keepdims=True))
    angles: Floats = unit[0::2] @ unit[1::2].T
    return angles


def unit_rows(band: Floats) -> Floats:
    """Rows of length one."""
    lengths = np.sqrt(np.square(band).sum(1, keepdims=True))
    unit: Floats = band / np.maximum(lengths, 1e-30)
    return unit


def _centred(band: Floats) -> Floats:
    """Rows of unit length, what they share with each other taken out."""
    centred = band - band.mean(1, keepdims=True)
    return unit_rows(centred - centred.mean(0, keepdims=True))
