"""The classifier's score head as the statistic of an exact test against the release's own answers.

A head that was trained on known forks ranks outputs of forks that nobody has seen better than any single
score does, and a permutation test needs no threshold: whatever the head learned, exchanging labels within
prompts keeps the level, as long as it did not learn from the answers that it is compared with. Those are the
outputs of the pack that training held back (`table.held_back`).

Against each nuisance cell the statistic is that of a head of its setting, which learned to tell forks from
the release in that setting. A head that has to pass over every nuisance at once sees little of a change that
resembles one of them.

One-sided: a higher mean log-odds of *modified* than the release's own. Measured beside its rivals, with the
fork or its whole family left out of training: docs/methodology/outputs-results.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from detector.outputs.classifier import Classifier
from detector.outputs.interface import ALPHA, ScoredOutput, TestResult
from detector.outputs.permutation import (
    PERMUTATIONS,
    cannot,
    from_p,
    labelings,
    mean_difference_weights,
    permutation_p,
    pool,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

TEST = "score-head-permutation"

LogOdds = Mapping[str, Sequence[float]]
"""Prompt id to the log-odds of each answer for *modified*."""


def head_cells(classifier: Classifier, held: Mapping[str, Sequence[ScoredOutput]]) -> dict[str, LogOdds]:
    """Log-odds of the release's own answers that the head did not learn from, by nuisance cell.

    Args:
        classifier: with a head on scores.
        held: `held_back` of the pack that it was trained on, with its seed.
    """
    return {cell: head_by_prompt(classifier, outputs, cell) for cell, outputs in held.items()}


def head_by_prompt(classifier: Classifier, outputs: Sequence[ScoredOutput], cell: str = "seed") -> LogOdds:
    """Log-odds by prompt, against the setting of a cell; answers without a token are left out."""
    scored = [one for one in outputs if len(one.authentic.logp)]
    found: dict[str, list[float]] = {}
    if scored:
        for one, value in zip(scored, classifier.log_odds_in(cell, scored).tolist(), strict=True):
            found.setdefault(one.output.prompt_id, []).append(value)
    return {prompt: tuple(values) for prompt, values in found.items()}


def head_test(
    reference: LogOdds,
    served: LogOdds,
    *,
    alpha: float = ALPHA,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> TestResult:
    """Test that served answers are as unlike a modified model's as the reference's to the same prompts.

    Args:
        reference: log-odds of authentic answers that taught the head nothing.
        served: of the model under test.
        alpha: level.
        permutations: random relabelings.
        seed: of the relabelings.
    """
    pooled = pool(reference, served)
    blocked = cannot(TEST, pooled.sizes, permutations, alpha)
    if blocked is not None:
        return blocked
    labels = labelings(pooled.sizes, permutations, seed)
    values = np.asarray(pooled.values, np.float64)
    p = permutation_p(-(mean_difference_weights(labels, pooled.sizes) @ values))
    on = f"{len(pooled.prompts)} prompts with {pooled.served} answers, by a classifier's log-odds"
    return from_p(TEST, p, pooled.served, alpha, on)
