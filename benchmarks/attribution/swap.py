"""Permutation tests of one served answer a prompt, for many aggregates at once.

The same tests as `detector.outputs` runs, for the one case that the table asks for: under the null hypothesis
the served answer to a prompt is any of the R + 1 answers to it, so a labelling picks one of them a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from detector.outputs.permutation import permutation_p
from detector.outputs.scores import _PRIOR, _RIDGE, _SURPRISE, _WEIGHTS

PERMUTATIONS = 999
Array = np.ndarray


@lru_cache(maxsize=16)
def picks(prompts: int, answers: int) -> Array:
    """(permutations + 1, prompts): which of the answers counts as served; row 0 is the observed one, 0."""
    found = np.random.default_rng([prompts, answers]).integers(answers, size=(PERMUTATIONS + 1, prompts))
    found[0] = 0
    return found


def total(values: Array) -> Array:
    """Sum over prompts, each standardised; large is different. (prompts, answers) to (permutations + 1,)."""
    spread = values.std(axis=1, keepdims=True)
    standard = (values - values.mean(axis=1, keepdims=True)) / np.where(spread > 1e-9, spread, 1)
    chosen = picks(*values.shape)
    return standard[np.arange(len(values)), chosen].sum(axis=1)


def mean_shift(values: Array) -> Array:
    """The same in both directions."""
    return np.abs(total(values))


def uniformity(values: Array) -> Array:
    """Cramer-von-Mises distance of the percentiles from uniform: RUT where the values are mean log-ranks."""
    answers = values.shape[1]
    noise = np.random.default_rng(0).random((2, *values.shape))
    ranks = np.lexsort((noise[0], values), axis=1).argsort(axis=1)
    percentiles = (ranks + noise[1]) / answers
    chosen = np.sort(percentiles[np.arange(len(values)), picks(*values.shape)], axis=1)
    n = len(values)
    return ((chosen - (np.arange(n) + 0.5) / n) ** 2).sum(axis=1)


def hamming(kernels: Array) -> Array:
    """MMD (up to a constant) with kernels (prompts, answers, answers) of one served answer and the rest."""
    return -kernels.sum(axis=2)[np.arange(len(kernels)), picks(*kernels.shape[:2])].sum(axis=1)


def p_value(*statistics: Array) -> float:
    """Of one statistic, or of the best of several."""
    return permutation_p(*statistics)


def stacked(served: Sequence[tuple[str, float]], reference: Mapping[str, Array]) -> Array:
    """(prompts, 1 + reference answers): the served value first. All have as many reference answers."""
    return np.array([np.concatenate([[value], reference[prompt]]) for prompt, value in served])


def score_p(rows: Array, free: Sequence[Array] = ()) -> float:
    """P-value of `detector.outputs.scores`, for one served answer a prompt; checked by `evaluate --check`.

    Args:
        rows: (prompts, answers, 21 features), the served answer first.
        free: (prompts, features) means of other temperature cells, whose directions are taken out.
    """
    prompts, answers, width = rows.shape
    centres = rows.mean(axis=1, keepdims=True)
    centred = rows - centres
    within, overall = (centred**2).mean(axis=1), (centred**2).mean(axis=(0, 1))
    spreads = np.sqrt((answers * within + _PRIOR * overall) / (answers + _PRIOR))
    spreads = np.where(overall > 1e-12, spreads, 1.0)
    standard = centred / spreads[:, None]
    flat = standard.reshape(-1, width)
    metric = np.linalg.inv((1 - _RIDGE) * flat.T @ flat / len(flat) + _RIDGE * np.eye(width))
    sums = standard[np.arange(prompts), picks(prompts, answers)].sum(axis=1)
    if not free:
        surprise = sums[:, _SURPRISE]
        lengths = np.einsum("bi,bi->b", sums @ metric, sums)
        return permutation_p(-surprise, surprise, lengths, weights=_WEIGHTS)
    directions = np.array([((mean - centres[:, 0]) / spreads).mean(axis=0) for mean in free])
    along = directions @ metric
    metric = metric - along.T @ np.linalg.pinv(along @ directions.T) @ along
    return permutation_p(np.einsum("bi,bi->b", sums @ metric, sums))
