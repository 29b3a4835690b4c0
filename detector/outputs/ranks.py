"""Rank-based uniformity test: where does a served answer's log-rank stand among the reference's?

Zhu et al. 2025 (arXiv 2506.06975, "RUT"). An answer's score is the mean over its tokens of log(1 + rank)
under the authentic model. Its percentile among the reference answers to the same prompt, ties at random, is
uniform under the null hypothesis; the Cramér-von-Mises statistic says how far the percentiles are from it.

The paper asks each prompt once and takes p from the statistic's own law. Here p comes from exchanging labels
within prompts: for one answer a prompt that is the same law, and it stays exact for several answers a prompt,
whose percentiles depend on one another, and for few reference answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from detector.outputs.interface import ALPHA, ScoredOutput, TestResult, TokenScores
from detector.outputs.permutation import (
    PERMUTATIONS,
    Sizes,
    blocks,
    cannot,
    from_p,
    labelings,
    permutation_p,
    pool,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Value = TypeVar("Value")


def by_prompt(
    scored: Iterable[ScoredOutput], statistic: Callable[[TokenScores], Value]
) -> dict[str, tuple[Value, ...]]:
    """Prompt id to the statistic of each of its answers; answers without a token are left out."""
    found: dict[str, list[Value]] = {}
    for one in scored:
        if len(one.authentic.logp):
            found.setdefault(one.output.prompt_id, []).append(statistic(one.authentic))
    return {prompt: tuple(values) for prompt, values in found.items()}


def log_rank(scores: TokenScores) -> float:
    """Mean of log(1 + rank) over tokens, nats; 0: every token was the most likely one."""
    return float(np.log1p(scores.rank.astype(np.float64)).mean())


def rank_uniformity(
    reference: Mapping[str, tuple[float, ...]],
    served: Mapping[str, tuple[float, ...]],
    *,
    alpha: float = ALPHA,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> TestResult:
    """Test that served answers score as the authentic model's own answers to the same prompts do.

    Args:
        reference: prompt id to scores (`by_prompt(…, log_rank)`) of the authentic model's answers.
        served: the same of the model under test, scored under the authentic model too.
        alpha: level.
        permutations: random relabelings.
        seed: of the relabelings and of the order of ties.
    """
    pooled = pool(reference, served)
    blocked = cannot("rank-uniformity", pooled.sizes, permutations, alpha)
    if blocked is not None:
        return blocked
    statistics = cramer_von_mises(np.array(pooled.values), pooled.sizes, permutations, seed)
    on = f"{len(pooled.sizes)} prompts with {pooled.served} answers"
    return from_p("rank-uniformity", permutation_p(statistics), pooled.served, alpha, on)


def cramer_von_mises(scores: Floats, sizes: Sizes, permutations: int, seed: int) -> Floats:
    """Distance of the served answers' percentiles from uniform, for each labelling, (permutations + 1,).

    A percentile is (reference answers below + u) / (reference answers + 1) with u uniform in [0, 1), which is
    exactly uniform for any number of reference answers.
    """
    labels = labelings(sizes, permutations, seed)
    rng = np.random.default_rng([seed, 1])
    ties, within = rng.random(len(scores)), rng.random(len(scores))
    percentiles = np.empty(labels.shape)
    for block, (a, _) in zip(blocks(sizes), sizes, strict=True):
        order = np.lexsort((ties[block], scores[block])) + block.start
        below = np.cumsum(~labels[:, order], axis=1)
        percentiles[:, order] = (below + within[order]) / (a + 1)
    n = sum(theirs for _, theirs in sizes)
    ordered = np.sort(percentiles[labels].reshape(len(labels), n), axis=1)
    distance: Floats = ((ordered - (np.arange(n) + 0.5) / n) ** 2).sum(axis=1) + 1 / (12 * n)
    return distance
