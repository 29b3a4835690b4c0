"""Known forks as witnesses of unknown ones: likelihood ratios beside the head's log-odds, in one exact test.

A fork that nobody has seen is often changed in a direction in which some known fork was. Then the known one
explains its answers better than the release does, token by token in their context, which no statistic under
the release alone can see. So where the served answers and the release's own are scored under the same known
forks, each fork, and each mixture of it with the release (`likelihood.EPSILONS`), gives one more statistic:
its log-ratio and the head's log-odds, both standardised within prompts, added up. The largest of them, each
in units of its own spread over the labelings, is compared with its distribution over the same labelings. What
forks are known changes the power alone; the level is exact whatever they are.

An e-value of the same ratios (`attribution`) needs no answers of the release, holds in a stream and can
decide on one output, but has to pay for what an ordinary answer of the release costs the bet.

Costs a pass over the outputs for each known fork, and one over the release's samples once (`classifier train
--ratios`). Measured beside its rivals, the fork or its whole family left out, and forks of the same training
data too: docs/methodology/outputs-results.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from detector.outputs.classifier import Classifier
from detector.outputs.interface import ALPHA, ScoredOutput, TestResult
from detector.outputs.likelihood import EPSILONS, mixed
from detector.outputs.permutation import (
    PERMUTATIONS,
    Pooled,
    blocks,
    cannot,
    from_p,
    labelings,
    mean_difference_weights,
    permutation_p,
    pool,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]

TEST = "known-forks-permutation"

Witnessed = Mapping[str, Sequence["Doubles"]]
"""Prompt id to a row for each answer: the head's log-odds, then the log-ratio of every bet."""


def common_forks(outputs: Iterable[ScoredOutput]) -> tuple[str, ...]:
    """Forks under which every one of these outputs is scored, by id."""
    common: set[str] | None = None
    for one in outputs:
        if len(one.authentic.logp):
            common = set(one.forks) if common is None else common & set(one.forks)
    return tuple(sorted(common or ()))


def witnessed_by_prompt(
    classifier: Classifier, outputs: Sequence[ScoredOutput], forks: Sequence[str], cell: str = "seed"
) -> Witnessed:
    """Rows by prompt, the head being that of a cell's setting; answers without a token are left out."""
    scored = [one for one in outputs if len(one.authentic.logp)]
    found: dict[str, list[Doubles]] = {}
    if scored:
        for one, odds in zip(scored, classifier.log_odds_in(cell, scored), strict=True):
            row = np.concatenate([[odds], log_ratios(one, forks)])
            found.setdefault(one.output.prompt_id, []).append(row)
    return found


def log_ratios(one: ScoredOutput, forks: Sequence[str]) -> Doubles:
    """Log-likelihood of an answer under mixtures with each fork, less that under the release, nats."""
    logp = np.minimum(one.authentic.logp.astype(np.float64), 0.0)
    under = np.array([one.forks[fork] for fork in forks], np.float64).reshape(len(forks), len(logp))
    logq = np.minimum(under, 0.0)
    return np.concatenate([(mixed(logp, logq, epsilon) - logp).sum(axis=1) for epsilon in EPSILONS])


def ratio_test(
    reference: Witnessed,
    served: Witnessed,
    *,
    alpha: float = ALPHA,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> TestResult:
    """Test that served answers are the release's by the head and known forks together.

    Args:
        reference: rows of authentic answers that taught the head nothing (`witnessed_by_prompt`).
        served: of the model under test, of the same forks.
        alpha: level.
        permutations: random relabelings.
        seed: of the relabelings.
    """
    pooled = pool(reference, served)
    blocked = cannot(TEST, pooled.sizes, permutations, alpha)
    if blocked is not None:
        return blocked
    values = _standardised(pooled)
    weights = mean_difference_weights(labelings(pooled.sizes, permutations, seed), pooled.sizes)
    shifts = -(weights @ values)
    both = shifts[:, :1] + shifts[:, 1:]
    spread = both.std(axis=0)
    p = permutation_p((both / np.where(spread > 0, spread, 1.0)).max(axis=1))
    on = f"{len(pooled.prompts)} prompts with {pooled.served} answers, by log-odds and known forks' ratios"
    return from_p(TEST, p, pooled.served, alpha, on)


def _standardised(pooled: Pooled[Doubles]) -> Doubles:
    """(answers, columns), of mean 0 and spread 1 in the answers to each prompt, of both sides together."""
    values = np.array(pooled.values, np.float64)
    for block in blocks(pooled.sizes):
        centred = values[block] - values[block].mean(axis=0)
        spread = centred.std(axis=0)
        values[block] = centred / np.where(spread > 0, spread, 1.0)
    return values
