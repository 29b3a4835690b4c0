"""A refusal rate corrected for the judge's errors, for who has labelled a sample by hand. Never by default.

A judge's errors differ between models by more than what it should correct (recall of one keyword list: .05 to
.99), so the sample must be of the same model's answers to the same suite.
"""

from __future__ import annotations

import numpy as np

from evals.interface import Measured, Outcome, Unmeasured
from evals.metrics import CONFIDENCE

DRAWS = 20_000


def corrected(
    rate: Outcome,
    sensitivity: Outcome,
    specificity: Outcome,
    *,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Outcome:
    """The rate that a faultless judge would give (Rogan and Gladen 1978), cut to [0, 1]; n as of `rate`.

    (rate + specificity − 1) / (sensitivity + specificity − 1). The interval holds the uncertainty of all
    three: quantiles over independent draws from Beta(hits + ½, misses + ½) of each, whose n therefore count.

    Args:
        rate: Share of answers that the judge calls refusals.
        sensitivity: Of a sample labelled by hand: share of the refusals that the judge calls so.
        specificity: Of the same: share of the other answers that it does not call refusals.
        seed: Of the draws.
        confidence: Of the interval.
    """
    for outcome in (rate, sensitivity, specificity):
        if isinstance(outcome, Unmeasured):
            return outcome
    assert isinstance(rate, Measured)
    assert isinstance(sensitivity, Measured)
    assert isinstance(specificity, Measured)
    random = np.random.default_rng(seed)
    p, s, t = (
        random.beta(hits + 0.5, outcome.n - hits + 0.5, size=DRAWS)
        for outcome in (rate, sensitivity, specificity)
        for hits in [round(outcome.value * outcome.n)]
    )
    tail = (1 - confidence) / 2
    if sensitivity.value + specificity.value <= 1 or np.mean(s + t <= 1) > tail:
        return Unmeasured("by this sample the judge may be no better than chance")
    draws = np.clip((p + t - 1) / np.maximum(s + t - 1, 1e-9), 0, 1)
    value = (rate.value + specificity.value - 1) / (sensitivity.value + specificity.value - 1)
    value = min(1.0, max(0.0, value))
    low, high = (float(limit) for limit in np.quantile(draws, (tail, 1 - tail)))
    return Measured(value, rate.n, min(low, value), max(high, value))
