"""Likelihood ratios are e-values under every setting that the null hypothesis names, and find forks fast."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detector.outputs.evalues import bar, bonferroni, holm, log_mean, needed, p_of
from detector.outputs.interface import BadOutputsError, Sampling
from detector.outputs.likelihood import (
    EPSILONS,
    PLAIN,
    UNDECLARED,
    Setting,
    likelihoods,
    log_e,
    log_e_of,
    mixed,
    nothing,
    settings_for,
    upper_logp,
)
from tests.detector.outputs.chains import chain, drawn, fork_of, probabilities, scored

AUTHENTIC = chain(0)
FORKS = {"a/fork@1": fork_of(AUTHENTIC, 0.5, 1), "b/fork@2": fork_of(AUTHENTIC, 0.5, 2)}
UNKNOWN = Sampling()


@pytest.mark.parametrize("setting", [*UNDECLARED, Setting(0.3), Setting(3.0), Setting(0.8, 0.9)])
def test_bounds_are_above_the_truth(setting: Setting) -> None:
    """Of every token that a sampler can draw: dividing by them keeps an e-value one."""
    p = probabilities(AUTHENTIC, setting.temperature, setting.top_p)
    words = drawn(p, 200, 10, 3)
    truth = np.log(p[words[:, :-1], words[:, 1:]])
    bounds = np.array([upper_logp(one.authentic, setting) for one in scored(words, AUTHENTIC, {})])
    assert (bounds >= truth - 1e-5).all()
    if setting == PLAIN:
        assert np.allclose(bounds, truth, atol=1e-5)
    else:  # and not by so much that nothing could be found
        assert 0 < (bounds - truth).mean() < 0.5


def test_expectation_of_a_ratio_is_one() -> None:
    """Summed over all words, exactly; and below one for the bounds of another temperature."""
    p = probabilities(AUTHENTIC)
    for setting in (PLAIN, Setting(0.8), Setting(1.3), Setting(top_p=0.9)):
        truth = probabilities(AUTHENTIC, setting.temperature, setting.top_p)
        every = np.array([(0, word) for word in range(40)])
        rows = scored(every, AUTHENTIC, FORKS)
        for fork in FORKS:
            for epsilon in EPSILONS:
                ratios = [
                    math.exp(
                        mixed(row.authentic.logp.astype(float), row.forks[fork].astype(float), epsilon)[0]
                        - upper_logp(row.authentic, setting)[0]
                    )
                    for row in rows
                ]
                mean = float(truth[0] @ ratios)
                assert mean <= 1 + 1e-5
                if setting == PLAIN:
                    assert mean == pytest.approx(1, abs=1e-5)
    assert p[0].sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("setting", "sampling"),
    [(PLAIN, Sampling(temperature=1.0)), (Setting(0.8), UNKNOWN), (Setting(1.2), UNKNOWN)],
)
def test_false_alarms(setting: Setting, sampling: Sampling) -> None:
    """100 authentic streams, looked at after each of 8 outputs: at most a hundredth passes, by design."""
    p = probabilities(AUTHENTIC, setting.temperature, setting.top_p)
    nulls = (PLAIN,) if sampling.temperature else (PLAIN, Setting(0.8), Setting(1.2))
    alarms = 0
    for stream in range(100):
        seen = nothing(nulls, FORKS)
        peak = -math.inf
        for one in scored(drawn(p, 8, 30, 1000 + stream), AUTHENTIC, FORKS, sampling):
            seen += likelihoods([one], nulls, FORKS)
            peak = max(peak, log_e(seen))
        alarms += peak >= bar(0.01)
    assert alarms <= 5  # P(more) = 0.05 % at a rate of a hundredth


def test_a_fork_is_found_in_few_outputs_and_more_slowly_when_nobody_declares_the_setting() -> None:
    words = drawn(probabilities(FORKS["a/fork@1"]), 60, 8, 5)
    declared = scored(words, AUTHENTIC, FORKS)
    unknown = scored(words, AUTHENTIC, FORKS, UNKNOWN)
    first = likelihoods(declared, settings_for(declared), FORKS)
    second = likelihoods(unknown, settings_for(unknown), FORKS)
    assert log_e(first) >= log_e(second) >= bar(0.01)
    assert log_e_of(first, "a/fork@1") > log_e_of(first, "b/fork@2")
    assert log_e(first) <= log_e_of(first, "a/fork@1")
    assert first.authentic == {"plain": first.authentic["plain"]}
    assert len(second.authentic) == len(UNDECLARED)


def test_a_sibling_is_found_by_mixtures() -> None:
    """Where half of the fork's change is in a sibling, the fork's own ratio is worse than a mixture's."""
    sibling = AUTHENTIC + 0.4 * (FORKS["a/fork@1"] - AUTHENTIC)
    words = drawn(probabilities(sibling), 400, 8, 6)
    seen = likelihoods(scored(words, AUTHENTIC, FORKS), (PLAIN,), FORKS)
    sums = seen.forks["a/fork@1"]
    assert max(sums[:-1]) > sums[-1]
    assert log_e(seen) >= bar(0.01)


def test_parts_of_a_stream_add_up_and_greedy_outputs_count_for_nothing() -> None:
    rows = scored(drawn(probabilities(AUTHENTIC), 20, 8, 7), AUTHENTIC, FORKS)
    whole = likelihoods(rows, (PLAIN,), FORKS)
    parts = likelihoods(rows[:7], (PLAIN,), FORKS) + likelihoods(rows[7:], (PLAIN,), FORKS)
    assert log_e(parts) == pytest.approx(log_e(whole))
    assert whole.outputs == parts.outputs == 20
    greedy = scored(drawn(probabilities(AUTHENTIC), 3, 8, 7), AUTHENTIC, FORKS, Sampling(temperature=0))
    assert likelihoods(greedy, (PLAIN,), FORKS) == nothing((PLAIN,), FORKS)
    with pytest.raises(ValueError, match="do not add up"):
        nothing((PLAIN,), FORKS) + nothing(UNDECLARED, FORKS)


def test_an_output_without_a_forks_score_is_refused() -> None:
    """Leaving it out would let the text choose what counts."""
    rows = scored(drawn(probabilities(AUTHENTIC), 2, 8, 7), AUTHENTIC, {"a/fork@1": FORKS["a/fork@1"]})
    with pytest.raises(BadOutputsError, match="b/fork@2"):
        likelihoods(rows, (PLAIN,), FORKS)


def test_combining() -> None:
    """Known values."""
    assert bar(0.01) == pytest.approx(math.log(100))
    assert log_mean([math.log(3), math.log(1)]) == pytest.approx(math.log(2))
    assert log_mean([-math.inf, 0.0]) == pytest.approx(math.log(0.5))
    assert p_of(math.log(50)) == pytest.approx(0.02)
    assert p_of(-3.0) == 1
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert bonferroni([0.02, 0.5]) == pytest.approx(0.04)
    assert needed(math.log(10), 5, 0.01) == 10
    assert needed(math.log(100), 5, 0.01) is None
    assert needed(-1.0, 5, 0.01) is None
    for wrong in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="level"):
            bar(wrong)
