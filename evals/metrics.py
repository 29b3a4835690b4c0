"""Proportions, paired comparisons and means, each with its n and interval. Nothing here knows about models.

A number that cannot be had (no data) is `Unmeasured` with a reason. Intervals are 95 % unless stated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

from evals.interface import Measured, Outcome, Unmeasured

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Pairs:
    """Counts of paired yes/no outcomes on the same prompts (first: original, second: fork)."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def n(self) -> int:
        """Number of pairs."""
        return self.both + self.only_first + self.only_second + self.neither

    @staticmethod
    def of(outcomes: Sequence[tuple[bool, bool]]) -> Pairs:
        """Count (original, fork) outcomes."""
        return Pairs(
            both=sum(a and b for a, b in outcomes),
            only_first=sum(a and not b for a, b in outcomes),
            only_second=sum(b and not a for a, b in outcomes),
            neither=sum(not a and not b for a, b in outcomes),
        )


def _wilson_bounds(hits: int, n: int, confidence: float) -> tuple[float, float]:
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = hits / n
    centre = rate + z * z / (2 * n)
    spread = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if hits == 0 else (centre - spread) / scale
    high = 1.0 if hits == n else (centre + spread) / scale
    return low, high


def wilson(hits: int, n: int, *, confidence: float = CONFIDENCE) -> Outcome:
    """A proportion with its Wilson score interval (Wilson 1927); holds for small n and rates near 0 or 1.

    Raises:
        ValueError: `hits` is not between 0 and `n`.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} of {n} is not a proportion")
    if n == 0:
        return Unmeasured("nothing to count")
    low, high = _wilson_bounds(hits, n, confidence)
    return Measured(hits / n, n, low, high)


def mcnemar_exact(pairs: Pairs) -> Outcome:
    """Two-sided p-value of the exact McNemar test; n = discordant pairs, and no interval: low = high."""
    discordant = pairs.only_first + pairs.only_second
    if discordant == 0:
        return Unmeasured("no prompt changed its label")
    tail = sum(math.comb(discordant, k) for k in range(min(pairs.only_first, pairs.only_second) + 1))
    p_value = min(1.0, 2 * tail / 2**discordant)
    return Measured(p_value, discordant, p_value, p_value)


def paired_difference(pairs: Pairs, *, confidence: float = CONFIDENCE) -> Outcome:
    """First rate minus second rate on the same prompts, with Newcombe's square-and-add interval.

    Method 10 of Newcombe (1998), "Improved confidence intervals for the difference between binomial
    proportions based on paired data", Statistics in Medicine 17: Wilson limits of both rates, joined through
    their correlation.
    """
    n = pairs.n
    if n == 0:
        return Unmeasured("no pair of graded answers")
    first, second = pairs.both + pairs.only_first, pairs.both + pairs.only_second
    low1, high1 = _wilson_bounds(first, n, confidence)
    low2, high2 = _wilson_bounds(second, n, confidence)
    phi = _correlation(pairs)
    down1, up1 = first / n - low1, high1 - first / n
    down2, up2 = second / n - low2, high2 - second / n
    difference = (pairs.only_first - pairs.only_second) / n
    low = difference - math.sqrt(max(0.0, down1**2 - 2 * phi * down1 * up2 + up2**2))
    high = difference + math.sqrt(max(0.0, down2**2 - 2 * phi * down2 * up1 + up1**2))
    return Measured(difference, n, max(-1.0, low), min(1.0, high))


def _correlation(pairs: Pairs) -> float:
    """Newcombe's phi with his continuity correction; 0 when a margin is empty."""
    first, second = pairs.both + pairs.only_first, pairs.both + pairs.only_second
    margins = first * (pairs.n - first) * second * (pairs.n - second)
    if margins == 0:
        return 0.0
    product = pairs.both * pairs.neither - pairs.only_first * pairs.only_second
    if product > 0:
        return max(product - pairs.n / 2, 0.0) / math.sqrt(margins)
    return product / math.sqrt(margins)


def mean_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Outcome:
    """Mean of independent values with Student's t interval; n = values. Two values at least, all finite."""
    if len(values) < 2:
        return Unmeasured(f"{len(values)} values: an interval needs two")
    if not all(map(math.isfinite, values)):
        return Unmeasured("a value is not finite")
    from scipy.special import stdtrit  # slow to import, and the rest needs no scipy

    centre = fmean(values)
    t = float(stdtrit(len(values) - 1, 0.5 + confidence / 2))
    spread = t * stdev(values, centre) / math.sqrt(len(values))
    return Measured(centre, len(values), centre - spread, centre + spread)


def exponential(outcome: Outcome) -> Outcome:
    """The outcome of exp(value), interval carried through; unmeasured when it overflows."""
    if isinstance(outcome, Unmeasured):
        return outcome
    try:
        low, value, high = (math.exp(x) for x in (outcome.low, outcome.value, outcome.high))
    except OverflowError:
        return Unmeasured("larger than a float can hold")
    return Measured(value, outcome.n, low, high)


def at_least(outcome: Outcome, floor: float) -> Outcome:
    """The interval cut at a bound that the quantity cannot pass, such as 0 for a divergence."""
    if isinstance(outcome, Unmeasured):
        return outcome
    return Measured(max(floor, outcome.value), outcome.n, max(floor, outcome.low), max(floor, outcome.high))


def unpaired_difference(first: Outcome, second: Outcome) -> Outcome:
    """First rate minus second rate from separate samples, by Newcombe's square-and-add interval; n = smaller.

    Method 10 of Newcombe (1998), "Interval estimation for the difference between independent proportions",
    Statistics in Medicine 17: joins the intervals of both rates, which must have the same level.
    """
    for outcome in (first, second):
        if isinstance(outcome, Unmeasured):
            return outcome
    assert isinstance(first, Measured)
    assert isinstance(second, Measured)
    difference = first.value - second.value
    down = math.hypot(first.value - first.low, second.high - second.value)
    up = math.hypot(first.high - first.value, second.value - second.low)
    return Measured(difference, min(first.n, second.n), difference - down, difference + up)


def holm(p_values: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """P-values adjusted so that the chance of any false one among them keeps its level (Holm 1979).

    In the given order. What is unmeasured stays so, and does not count: no test was made.
    """
    tested = sorted(
        (index for index, outcome in enumerate(p_values) if isinstance(outcome, Measured)),
        key=lambda index: _value(p_values[index]),
    )
    adjusted = list(p_values)
    least = 0.0
    for rank, index in enumerate(tested):
        outcome = p_values[index]
        assert isinstance(outcome, Measured)
        least = max(least, min(1.0, (len(tested) - rank) * outcome.value))
        adjusted[index] = Measured(least, outcome.n, least, least)
    return tuple(adjusted)


def _value(outcome: Outcome) -> float:
    return outcome.value if isinstance(outcome, Measured) else math.inf
