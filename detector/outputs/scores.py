"""Score tests: do served answers score under the authentic weights as the authentic model's own answers do?

The statistic is *surprise*, the mean over tokens of log-probability plus entropy, of expectation 0 for the
authentic model at temperature 1: a modified model says what the authentic one finds less likely than its
own words. Each answer is standardised by the spread of its prompt, and answers are added up. The lower side
gets most of the level; the rest goes to the upper side and to the Mahalanobis length of the difference in
all 21 score features, PIT histogram included. Labels are exchanged within prompts, so p is exact. `ranks`
is the published rival.

A sampler at another temperature shifts surprise, too: it *is* the temperature direction. `cell_tests` with
`nuisance_p` therefore asks a weaker question: *authentic in one of the pack's cells*. For temperatures
between those of the pack, shifts of the mean features along the ones that the pack's temperature cells show
are taken out first: cells at 0.8, 1 and 1.2 cover 0.9, to the accuracy of a plane; not 0.6. Where the
temperature is known, leave the other temperatures' cells out and say so: that regains the power.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from detector.outputs.features import SCORE_FEATURES, score_features
from detector.outputs.interface import ALPHA, Sample, ScoredOutput, TestResult
from detector.outputs.nuisance import temperature_of
from detector.outputs.permutation import (
    PERMUTATIONS,
    Pooled,
    blocks,
    cannot,
    from_p,
    labelings,
    permutation_p,
    pool,
)
from detector.outputs.ranks import by_prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Scored = Mapping[str, Sequence["Floats"]]
"""Prompt id to the 21 score features of each answer."""

TEST = "score-permutation"
_RIDGE = 0.1
"""Weight of the identity in the correlation matrix: histogram bins sum to 1, and small samples mislead."""
_SURPRISE = SCORE_FEATURES.index("mean-surprise")
_WEIGHTS = (0.8, 0.1, 0.1)
"""Shares of the level: lower surprise, higher surprise, all features."""
_PRIOR = 8
"""Answers that the spread over all prompts counts for in the spread of one."""


def features_by_prompt(scored: Iterable[ScoredOutput]) -> dict[str, tuple[Floats, ...]]:
    """Prompt id to the score features of its answers; answers without a token are left out."""
    return by_prompt(scored, score_features)


def score_test(
    reference: Scored,
    served: Scored,
    *,
    alpha: float = ALPHA,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> TestResult:
    """Test that served answers score as the reference's answers to the same prompts.

    Args:
        reference: features of authentic answers under the setting that is claimed (`features_by_prompt`).
        served: the same of the model under test.
        alpha: level.
        permutations: random relabelings.
        seed: of the relabelings.
    """
    pooled = pool(reference, served)
    blocked = cannot(TEST, pooled.sizes, permutations, alpha)
    if blocked is not None:
        return blocked
    return from_p(TEST, _score_p(pooled, permutations, seed), pooled.served, alpha, _on(pooled))


def cell_tests(
    cells: Mapping[str, Scored],
    served: Scored,
    *,
    alpha: float = ALPHA,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> dict[str, TestResult]:
    """Test served answers against each of the pack's cells; see `nuisance_p`.

    Args:
        cells: cell (`seed`, `bf16`, `temperature-0.8` …) to features of authentic answers (`feature_cells`).
            Without a cell of another temperature, the temperature counts as known and nothing is taken out.
        served: features of the model under test.
        alpha: level.
        permutations: random relabelings.
        seed: of the relabelings.
    """
    by_temperature = {name: temperature_of(name) for name in cells}
    profiled = set(by_temperature.values()) - {None, 1.0}
    found = {}
    for name, cell in cells.items():
        pooled = pool(cell, served)
        blocked = cannot(TEST, pooled.sizes, permutations, alpha)
        if blocked is not None:
            found[name] = blocked
            continue
        if profiled:
            free = [cells[other] for other, known in by_temperature.items() if known and other != name]
            p = _free_p(pooled, free, permutations, seed)
        else:
            p = _score_p(pooled, permutations, seed)
        found[name] = from_p(TEST, p, pooled.served, alpha, f"{_on(pooled)} against cell {name}")
    return found


def feature_cells(samples: Iterable[Sample]) -> dict[str, dict[str, tuple[Floats, ...]]]:
    """Cell to features of the release's answers in it, from the samples of a pack; forks are left out."""
    return {
        one.cell: features_by_prompt(one.scored) for one in samples if one.model == "authentic" and one.scored
    }


def _on(pooled: Pooled[Floats]) -> str:
    return f"{len(pooled.sizes)} prompts with {pooled.served} answers"


def _score_p(pooled: Pooled[Floats], permutations: int, seed: int) -> float:
    answers, _, _ = _standard(pooled)
    sums = _sums(answers, pooled, permutations, seed)
    surprise = sums[:, _SURPRISE]
    return permutation_p(-surprise, surprise, _lengths(sums, _metric(answers)), weights=_WEIGHTS)


def _free_p(pooled: Pooled[Floats], free: Sequence[Scored], permutations: int, seed: int) -> float:
    """P-value of the Mahalanobis length that remains without shifts towards the means of `free`."""
    answers, centres, scales = _standard(pooled)
    metric = _metric(answers)
    directions = []
    for cell in free:
        shifts = [
            (np.mean(cell[prompt], axis=0) - centre) / scale
            for prompt, centre, scale in zip(pooled.prompts, centres, scales, strict=True)
            if cell.get(prompt)
        ]
        if shifts:
            directions.append(np.mean(shifts, axis=0))
    if directions:
        along = np.array(directions) @ metric
        metric = metric - along.T @ np.linalg.pinv(along @ np.array(directions).T) @ along
    return permutation_p(_lengths(_sums(answers, pooled, permutations, seed), metric))


def _standard(pooled: Pooled[Floats]) -> tuple[Floats, Floats, Floats]:
    """Standardised features (answers, 21); centres and spreads of each prompt, (prompts, 21).

    Over all answers to a prompt, whichever side they came from: no label is used, so the permutation stays
    exact. The spread at a prompt is drawn towards the spread over all.
    """
    rows = np.array(pooled.values)
    counts = np.array([a + b for a, b in pooled.sizes])
    centres = np.array([rows[block].mean(axis=0) for block in blocks(pooled.sizes)])
    centred = rows - np.repeat(centres, counts, axis=0)
    within = np.array([(centred[block] ** 2).mean(axis=0) for block in blocks(pooled.sizes)])
    overall = (centred**2).mean(axis=0)
    spreads = np.sqrt((counts[:, None] * within + _PRIOR * overall) / (counts[:, None] + _PRIOR))
    spreads = np.where(overall > 1e-12, spreads, 1.0)
    return centred / np.repeat(spreads, counts, axis=0), centres, spreads


def _sums(answers: Floats, pooled: Pooled[Floats], permutations: int, seed: int) -> Floats:
    """Sums of the served answers' features for each labelling, (permutations + 1, 21)."""
    return labelings(pooled.sizes, permutations, seed).astype(np.float64) @ answers


def _metric(answers: Floats) -> NDArray[np.floating[Any]]:
    """Inverse of the shrunken covariance of features, (21, 21)."""
    covariance = answers.T @ answers / len(answers)
    return np.linalg.inv((1 - _RIDGE) * covariance + _RIDGE * np.eye(len(covariance)))


def _lengths(sums: Floats, metric: NDArray[np.floating[Any]]) -> Floats:
    lengths: Floats = np.einsum("bi,bi->b", sums @ metric, sums)
    return lengths
