"""How well a score tells two kinds apart: the area under the ROC curve, with its interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

from evals.interface import Measured, Outcome, Unmeasured
from evals.metrics import CONFIDENCE


def auroc(positive: Sequence[float], negative: Sequence[float]) -> Outcome:
    """Probability that a positive scores higher than a negative, ties half; n = both together.

    The interval is method 5 of Newcombe (2006), "Confidence intervals for an effect size measure based on the
    Mann-Whitney statistic, part 2", Statistics in Medicine 25: a score interval, which holds near 1 too.
    """
    m, n = len(positive), len(negative)
    if not m or not n:
        return Unmeasured(f"{m} positives and {n} negatives: nothing to tell apart")
    if not all(map(math.isfinite, (*positive, *negative))):
        return Unmeasured("a score is not finite")
    wins = sum((p > q) + (p == q) / 2 for p in positive for q in negative)
    area = wins / (m * n)
    z, mean_n = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2), (m + n) / 2

    def surplus(theta: float) -> float:
        """Distance from the area beyond what the variance at theta allows."""
        spread = 2 * mean_n - 1 - (3 * mean_n - 3) / ((2 - theta) * (1 + theta))
        return abs(theta - area) - z * math.sqrt(max(0.0, theta * (1 - theta) * spread / (m * n)))

    low = 0.0 if area == 0 else _crossing(surplus, area, 0.0)
    high = 1.0 if area == 1 else _crossing(surplus, area, 1.0)
    return Measured(area, m + n, low, high)


def _crossing(surplus: Callable[[float], float], inside: float, outside: float) -> float:
    """Where the surplus turns positive between a point inside the interval and one outside, by halving."""
    for _ in range(60):
        middle = (inside + outside) / 2
        if surplus(middle) > 0:
            outside = middle
        else:
            inside = middle
    return inside
