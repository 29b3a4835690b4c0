"""Intervals where answers hang together: paraphrases, translations and repeated draws of one prompt.

The bootstrap draws whole prompts, each with all that repeats it (clusters; Davison and Hinkley 1997, section
3.8), and takes bias-corrected and accelerated limits (BCa; Efron 1987), the acceleration from leaving out one
cluster at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from evals.interface import Measured, Outcome, Unmeasured
from evals.metrics import CONFIDENCE, wilson

DRAWS = 4000
"""A limit then wanders by a hundredth of the interval's width between seeds."""

MIN_CLUSTERS = 10
"""With fewer the interval is far too narrow: measured in docs/methodology/screening.md."""

_NORMAL = NormalDist()


def clustered_mean(
    values: Sequence[float],
    clusters: Sequence[str],
    *,
    least: float = 0.0,
    seed: int = 0,
    draws: int = DRAWS,
) -> Outcome:
    """Mean of values that come in clusters; n = values. The same seed gives the same interval.

    Args:
        values: One an answer, or a pair of answers: 0 and 1 for a rate, differences of them for a drop.
        clusters: To which prompt each belongs.
        least: What a value can be at least: 0 for a rate, -1 for a drop. The most is 1.
        seed: Of the draws.
        draws: Samples of clusters.

    Raises:
        ValueError: values and clusters differ in number.
    """
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} values in {len(clusters)} clusters")
    _, which = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    sums, sizes = np.bincount(which, weights=values), np.bincount(which).astype(float)
    if len(sums) < MIN_CLUSTERS:
        return Unmeasured(f"{len(sums)} prompts: an interval needs {MIN_CLUSTERS}")
    mean = float(sums.sum() / sizes.sum())
    if min(values) == max(values):
        around = _around(len(sums))
        return Measured(mean, len(values), max(least, mean - around), min(1.0, mean + around))
    chosen = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))
    means = np.sort(sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1))
    left_out = (sums.sum() - sums) / (sizes.sum() - sizes)
    low, high = _bca(means, mean, left_out)
    return Measured(mean, len(values), min(low, mean), max(high, mean))


def _bca(
    means: npt.NDArray[np.float64], mean: float, left_out: npt.NDArray[np.float64]
) -> tuple[float, float]:
    """Both 95 % limits, read off the sorted bootstrap means."""
    below = (np.sum(means < mean) + np.sum(means == mean) / 2) / len(means)
    bias = _NORMAL.inv_cdf(float(np.clip(below, 1e-6, 1 - 1e-6)))
    pull = left_out.mean() - left_out
    scale = 6 * float(np.sum(pull**2)) ** 1.5
    acceleration = float(np.sum(pull**3)) / scale if scale > 0 else 0.0
    limits = []
    for tail in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2):
        z = bias + _NORMAL.inv_cdf(tail)
        share = _NORMAL.cdf(bias + z / (1 - acceleration * z))
        limits.append(float(np.quantile(means, share)))
    return limits[0], limits[1]


def _around(clusters: int) -> float:
    """Where all values are equal no draw differs, but others might: Wilson's limit, each prompt once."""
    bound = wilson(0, clusters)
    assert isinstance(bound, Measured)
    return bound.high
