"""Intervals and tests against published values and against their laws."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evals.interface import Measured, Outcome, Unmeasured
from evals.metrics import (
    Pairs,
    at_least,
    exponential,
    mcnemar_exact,
    mean_interval,
    paired_difference,
    wilson,
)

counts = st.integers(0, 40)
all_pairs = st.builds(Pairs, both=counts, only_first=counts, only_second=counts, neither=counts)


def measured(outcome: Outcome) -> Measured:
    assert isinstance(outcome, Measured)
    return outcome


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (3, 100, 0.010, 0.085),
        (0, 100, 0.0, 0.037),
        (0, 20, 0.0, 0.161),
        (50, 100, 0.404, 0.596),
        (97, 100, 0.915, 0.990),
    ],
)
def test_wilson_known_values(hits: int, n: int, low: float, high: float) -> None:
    """Wilson limits agree with published ones to three digits."""
    outcome = measured(wilson(hits, n))
    assert (round(outcome.low, 3), round(outcome.high, 3)) == (low, high)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy(case: tuple[int, int]) -> None:
    """Wilson limits agree with scipy's for every proportion, and contain it."""
    hits, n = case
    ours = measured(wilson(hits, n))
    theirs = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert ours.low == pytest.approx(theirs.low, abs=1e-12)
    assert ours.high == pytest.approx(theirs.high, abs=1e-12)
    assert 0 <= ours.low <= ours.value <= ours.high <= 1


def test_nothing_to_count_is_unmeasured() -> None:
    """No data gives a reason, never a zero."""
    nothing = Pairs(0, 0, 0, 0)
    for outcome in (wilson(0, 0), mcnemar_exact(nothing), paired_difference(nothing), mean_interval([])):
        assert isinstance(outcome, Unmeasured)
        assert outcome.reason


@pytest.mark.parametrize(("hits", "n"), [(-1, 3), (4, 3)])
def test_wilson_refuses_nonsense(hits: int, n: int) -> None:
    """A count outside 0..n is an error of the caller."""
    with pytest.raises(ValueError, match="not a proportion"):
        wilson(hits, n)


@pytest.mark.parametrize(("flips", "p_value"), [(6, 0.03125), (5, 0.0625), (1, 1.0)])
def test_mcnemar_one_way_flips(flips: int, p_value: float) -> None:
    """Six flips one way give p = .031, five give .063."""
    outcome = measured(mcnemar_exact(Pairs(10, flips, 0, 3)))
    assert (outcome.value, outcome.n) == (p_value, flips)


@given(all_pairs)
def test_mcnemar_is_the_binomial_test(pairs: Pairs) -> None:
    """The exact McNemar test is the sign test on discordant pairs, whichever model comes first."""
    outcome = mcnemar_exact(pairs)
    discordant = pairs.only_first + pairs.only_second
    if discordant == 0:
        assert isinstance(outcome, Unmeasured)
        return
    expected = stats.binomtest(pairs.only_first, discordant).pvalue
    assert measured(outcome).value == pytest.approx(expected)
    assert outcome == mcnemar_exact(Pairs(pairs.both, pairs.only_second, pairs.only_first, pairs.neither))


@pytest.mark.parametrize(
    ("pairs", "low", "high"),
    [
        (Pairs(36, 12, 2, 0), 0.057, 0.340),
        (Pairs(1, 1, 7, 12), -0.507, -0.026),
    ],
)
def test_paired_difference_known_values(pairs: Pairs, low: float, high: float) -> None:
    """Limits agree with published worked examples of Newcombe's method 10."""
    outcome = measured(paired_difference(pairs))
    assert (round(outcome.low, 3), round(outcome.high, 3)) == (low, high)


@given(all_pairs.filter(lambda pairs: pairs.n > 0))
def test_paired_difference_laws(pairs: Pairs) -> None:
    """The interval holds the difference, stays within [-1, 1], and mirrors when the models swap."""
    ours = measured(paired_difference(pairs))
    swapped = measured(
        paired_difference(Pairs(pairs.both, pairs.only_second, pairs.only_first, pairs.neither))
    )
    assert -1 <= ours.low <= ours.value <= ours.high <= 1
    assert ours.low == pytest.approx(-swapped.high, abs=1e-12)
    assert ours.high == pytest.approx(-swapped.low, abs=1e-12)


def test_paired_difference_covers() -> None:
    """The 95 % interval holds the true difference in 93 % or more of 2000 simulated experiments."""
    source, hits = random.Random(0), 0
    for _ in range(2000):
        outcomes = [(source.random() < 0.9, source.random() < 0.7) for _ in range(72)]
        interval = measured(paired_difference(Pairs.of(outcomes)))
        hits += interval.low <= 0.2 <= interval.high
    assert hits >= 0.93 * 2000


def test_pairs_of_counts_each_cell() -> None:
    """Each of the four outcomes lands in its own cell."""
    pairs = Pairs.of([(True, True), (True, False), (True, False), (False, True), (False, False)])
    assert pairs == Pairs(both=1, only_first=2, only_second=1, neither=1)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=50))
def test_mean_interval_agrees_with_scipy(values: list[float]) -> None:
    """The t interval agrees with scipy's one-sample interval."""
    ours = measured(mean_interval(values))
    assert ours.low <= ours.value <= ours.high
    if max(values) - min(values) > 1e-6:
        theirs = stats.ttest_1samp(values, 0.0).confidence_interval()
        assert ours.low == pytest.approx(theirs.low, abs=1e-6)
        assert ours.high == pytest.approx(theirs.high, abs=1e-6)


@pytest.mark.parametrize("values", [[1.0], [1.0, math.nan], [1.0, math.inf]])
def test_mean_needs_finite_values(values: list[float]) -> None:
    """One value has no interval, and a NaN never becomes a number."""
    assert isinstance(mean_interval(values), Unmeasured)


def test_exponential_and_floor_carry_the_interval() -> None:
    """exp and a floor act on value and limits alike; overflow is unmeasured; a reason passes through."""
    assert exponential(Measured(0.0, 5, 0.0, math.log(2))) == Measured(1.0, 5, 1.0, 2.0)
    assert isinstance(exponential(Measured(1.0, 2, 0.0, 1e6)), Unmeasured)
    assert at_least(Measured(0.1, 3, -0.2, 0.4), 0.0) == Measured(0.1, 3, 0.0, 0.4)
    assert exponential(Unmeasured("why")) == at_least(Unmeasured("why"), 0.0) == Unmeasured("why")
