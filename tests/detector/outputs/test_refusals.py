"""Refusal probes: exact at every refusal rate, and few enough to ask."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from detector.outputs.evalues import bar
from detector.outputs.interface import Output, RefusalBaseline
from detector.outputs.refusals import (
    GONE,
    SHARES_KEPT,
    SHARES_LESS,
    Probed,
    exact_p,
    log_factors,
    lower_bounds,
    poisson_binomial_tail,
    probed,
    wealth,
)

ALPHA = 0.01


def one(refused: bool, r: int, n: int, name: str = "q") -> Probed:
    return Probed(name, refused, RefusalBaseline(prompt_id=name, refused=r, n=n))


@pytest.mark.parametrize(("keep", "shares"), [(1.0, SHARES_LESS), (GONE, SHARES_KEPT)])
@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_no_bet_is_favourable(keep: float, shares: tuple[float, ...], n: int) -> None:
    """By enumeration of baseline and answer, for every rate of the release and all that the claim allows."""
    worst = 0.0
    for p in np.linspace(0, 1, 41):
        chances = binom.pmf(np.arange(n + 1), n, p)
        refused = np.array([np.exp(log_factors(one(True, r, n), keep, shares)) for r in range(n + 1)])
        complied = np.array([np.exp(log_factors(one(False, r, n), keep, shares)) for r in range(n + 1)])
        for rate in np.linspace(p, 1, 5) if keep == 1 else np.linspace(0, keep * p, 5):
            expected = chances @ (rate * refused + (1 - rate) * complied)
            worst = max(worst, float(expected.max()))
    assert worst <= 1 + 1e-12
    assert worst > 0.8  # and hardly wasteful


def stops(p0: float, p1: float, n: int, repeats: int = 1000, probes: int = 60) -> np.ndarray:
    """The probe at which each of many runs decides; `probes` + 1 where none does."""
    rng = np.random.default_rng(20)
    baselines = rng.binomial(n, p0, (repeats, probes))
    answers = (rng.random((repeats, probes)) < p1).astype(int)
    table = np.array(
        [[log_factors(one(bool(x), r, n), 1.0, SHARES_LESS) for r in range(n + 1)] for x in (0, 1)]
    )
    paths = table[answers, baselines].cumsum(axis=1)
    passed = np.logaddexp.reduce(paths, axis=2) - math.log(len(SHARES_LESS)) >= bar(ALPHA)
    return np.where(passed.any(axis=1), passed.argmax(axis=1) + 1, probes + 1)


def test_median_of_five_probes_or_fewer() -> None:
    """A fork that refuses 20 %, a release that refuses 90 %, ten answers of the release to each probe."""
    assert np.median(stops(0.9, 0.2, 10)) <= 5
    assert np.median(stops(0.9, 0.05, 10)) <= 4
    assert np.quantile(stops(0.9, 0.2, 10), 0.95) <= 13


@pytest.mark.parametrize(("p0", "n"), [(0.9, 10), (0.5, 20), (0.97, 3)])
def test_false_alarms(p0: float, n: int) -> None:
    """The release itself, 60 looks: at most a hundredth."""
    alarms = int((stops(p0, p0, n) <= 60).sum())
    assert binomtest(alarms, 1000, ALPHA, alternative="greater").pvalue > 0.001


def test_a_stream_is_what_its_probes_multiply_to() -> None:
    answers = [one(False, 9, 10, "a"), one(True, 10, 10, "b"), one(False, 10, 10, "c")]
    found = wealth(answers)
    expected = np.sum([log_factors(answer, 1.0, SHARES_LESS) for answer in answers], axis=0)
    assert found.less == pytest.approx(tuple(expected))
    assert found == wealth(answers[:1]) + wealth(answers[1:])
    assert (found.refused, found.n) == (1, 3)
    assert found.share == pytest.approx(1 / 2.9)
    kept = wealth([one(True, 10, 10, str(i)) for i in range(12)])
    assert kept.log_e_kept >= bar(ALPHA) > kept.log_e_less
    assert wealth([]).log_e_less == 0
    assert wealth([]).share == 1


def test_first_graded_answer_to_a_probe_with_a_baseline_counts() -> None:
    baselines = [
        RefusalBaseline(prompt_id="a", refused=9, n=10),
        RefusalBaseline(prompt_id="b", refused=0, n=0),
    ]
    outputs = [
        Output(prompt_id="a", text=None, refused=None),
        Output(prompt_id="a", text=None, refused=False),
        Output(prompt_id="a", text=None, refused=True),
        Output(prompt_id="b", text=None, refused=False),
        Output(prompt_id="c", text=None, refused=False),
    ]
    assert probed(outputs, baselines) == (Probed("a", False, baselines[0]),)


def test_exact_tail() -> None:
    """Binomial where all rates agree, and bounds as Clopper and Pearson have them."""
    assert poisson_binomial_tail(3, [0.3] * 10) == pytest.approx(binom.cdf(3, 10, 0.3))
    assert poisson_binomial_tail(1, [0.2, 0.9]) == pytest.approx(1 - 0.18)
    bound = lower_bounds([RefusalBaseline(prompt_id="a", refused=18, n=20)], 0.05)["a"]
    assert bound == pytest.approx(binomtest(18, 20).proportion_ci(0.9).low)
    assert lower_bounds([RefusalBaseline(prompt_id="a", refused=0, n=20)], 0.05) == {"a": 0.0}
    gone = [one(False, 20, 20, str(i)) for i in range(10)]
    there = [one(True, 20, 20, str(i)) for i in range(10)]
    assert exact_p(gone, alpha=ALPHA) < ALPHA
    assert exact_p(there, alpha=ALPHA) == 1
    with pytest.raises(ValueError, match="no answer"):
        exact_p([], alpha=ALPHA)
    with pytest.raises(ValueError, match="chance"):
        lower_bounds([], 1.0)
