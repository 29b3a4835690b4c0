"""Score tests: do served answers score under the authentic weights as the authentic model's own answers do?

Three statistics, each of the served answers against the pack's authentic answers to the same prompts:
the Cramér-von-Mises distance of log-rank percentiles (`ranks`), the squared sum of residual z, and the
Mahalanobis length of the difference of all 21 score features, PIT histogram included. Labels are exchanged
within prompts and the smallest rank of the three counts, so p is exact.

A sampler at another temperature shifts all of them. `cell_tests` with `nuisance_p` therefore asks a weaker
question: *authentic in one of the pack's cells*. For temperatures between those of the pack, shifts of the
mean features along the ones that the pack's temperature cells show are taken out first: cells at 0.8, 1 and
1.2 cover 0.9, to the accuracy of a plane; not 0.6.
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
from detector.outputs.ranks import cramer_von_mises

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Scored = Mapping[str, Sequence["Floats"]]
"""Prompt id to the 21 score features of each answer."""

TEST = "score-permutation"
_RIDGE = 0.1
"""Weight of the identity in the correlation matrix: histogram bins sum to 1, and small samples mislead."""
_LOG_RANK = SCORE_FEATURES.index("mean-log-rank")
_RESIDUAL = SCORE_FEATURES.index("residual-z")


def features_by_prompt(scored: Iterable[ScoredOutput]) -> dict[str, tuple[Floats, ...]]:
    """Prompt id to the score features of its answers; answers without a token are left out."""
    found: dict[str, list[Floats]] = {}
    for one in scored:
        if len(one.authentic.logp):
            found.setdefault(one.output.prompt_id, []).append(score_features(one.authentic))
    return {prompt: tuple(rows) for prompt, rows in found.items()}


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
    rows = np.array(pooled.values)
    sums, covariance = _sums(pooled, permutations, seed)
    p = permutation_p(
        cramer_von_mises(rows[:, _LOG_RANK], pooled.sizes, permutations, seed),
        _lengths(sums, np.linalg.inv(covariance)),
        sums[:, _RESIDUAL] ** 2,
    )
    return from_p(TEST, p, pooled.served, alpha, _on(pooled))


def cell_tests(
    cells: Mapping[str, Scored],
    served: Scored,
    *,
    alpha: float = ALPHA,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> dict[str, TestResult]:
    """Test served answers against each of the pack's cells, whatever the temperature; see `nuisance_p`.

    Args:
        cells: cell (`seed`, `bf16`, `temperature-0.8` …) to features of authentic answers (`feature_cells`).
        served: features of the model under test.
        alpha: level.
        permutations: random relabelings.
        seed: of the relabelings.
    """
    found = {}
    for name, cell in cells.items():
        pooled = pool(cell, served)
        blocked = cannot(TEST, pooled.sizes, permutations, alpha)
        if blocked is not None:
            found[name] = blocked
            continue
        free = [
            other for label, other in cells.items() if label != name and temperature_of(label) is not None
        ]
        p = _free_p(pooled, free, permutations, seed)
        found[name] = from_p(TEST, p, pooled.served, alpha, f"{_on(pooled)} against cell {name}")
    return found


def feature_cells(samples: Iterable[Sample]) -> dict[str, dict[str, tuple[Floats, ...]]]:
    """Cell to features of the release's answers in it, from the samples of a pack; forks are left out."""
    return {
        one.cell: features_by_prompt(one.scored) for one in samples if one.model == "authentic" and one.scored
    }


def _on(pooled: Pooled[Floats]) -> str:
    return f"{len(pooled.sizes)} prompts with {pooled.served} answers"


def _sums(pooled: Pooled[Floats], permutations: int, seed: int) -> tuple[Floats, Floats]:
    """Sums of the served answers' standardised features for each labelling; shrunken correlation.

    Features are centred on the mean of all answers to the prompt, whichever side they came from, and scaled
    by their spread around it: no label is used, so the permutation stays exact.
    """
    centred, _, scale = _standard(pooled)
    centred /= scale
    correlation = centred.T @ centred / len(centred)
    covariance = (1 - _RIDGE) * correlation + _RIDGE * np.eye(len(correlation))
    return labelings(pooled.sizes, permutations, seed).astype(np.float64) @ centred, covariance


def _standard(pooled: Pooled[Floats]) -> tuple[Floats, Floats, Floats]:
    """Centred features (answers, 21), their centres (prompts, 21), and spreads (21,)."""
    rows = np.array(pooled.values)
    centres = np.array([rows[block].mean(axis=0) for block in blocks(pooled.sizes)])
    centred = rows - np.repeat(centres, [a + b for a, b in pooled.sizes], axis=0)
    spread = np.sqrt((centred**2).mean(axis=0))
    return centred, centres, np.where(spread > 1e-6, spread, 1.0)


def _lengths(sums: Floats, metric: NDArray[np.floating[Any]]) -> Floats:
    lengths: Floats = np.einsum("bi,bi->b", sums @ metric, sums)
    return lengths


def _free_p(pooled: Pooled[Floats], free: Sequence[Scored], permutations: int, seed: int) -> float:
    """P-value of the Mahalanobis length that remains without shifts towards the means of `free`."""
    sums, covariance = _sums(pooled, permutations, seed)
    metric = np.linalg.inv(covariance)
    _, centres, scale = _standard(pooled)
    middle = dict(zip(pooled.prompts, centres, strict=True))
    directions = []
    for cell in free:
        shifts = [np.mean(cell[p], axis=0) - middle[p] for p in pooled.prompts if cell.get(p)]
        if shifts:
            directions.append(np.mean(shifts, axis=0) / scale)
    if directions:
        along = np.array(directions) @ metric
        metric = metric - along.T @ np.linalg.pinv(along @ np.array(directions).T) @ along
    return permutation_p(_lengths(sums, metric))
