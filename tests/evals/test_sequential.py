"""Tests and intervals that hold however often one looks, against exact enumeration and known formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from evals.interface import Label, Measured, Prompt, PromptKind, PromptSuite, StopRule, Tier, Unmeasured
from evals.sequential import (
    Finding,
    Tally,
    against_at_least,
    against_at_most,
    asking_order,
    confidence_sequence,
    find,
    tally_of,
)

RULE = StopRule()
rates = st.floats(0.02, 0.98)
counts = st.integers(0, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def crossing(bar: float, null: float, truth: float, horizon: int) -> float:
    """Exact probability that the e-value against "at least `null`" passes the bar within `horizon` draws."""
    alive, crossed = {0: 1.0}, 0.0
    for n in range(1, horizon + 1):
        after: dict[int, float] = {}
        for hits, chance in alive.items():
            for more, weight in ((1, truth), (0, 1 - truth)):
                after[hits + more] = after.get(hits + more, 0.0) + chance * weight
        passed = [hits for hits in after if against_at_least(hits, n, null) >= bar]
        crossed += sum(after.pop(hits) for hits in passed)
        alive = after
    return crossed


@pytest.mark.parametrize(("hits", "n", "rate"), [(0, 10, 0.45), (3, 20, 0.5), (17, 20, 0.8), (40, 40, 0.3)])
def test_the_evidence_is_the_mixture_of_likelihood_ratios(hits: int, n: int, rate: float) -> None:
    """The closed form is the integral it stands for."""
    prior = stats.beta(0.5, 0.5)

    def ratio(q: float) -> float:
        return float(stats.binom.pmf(hits, n, q) / stats.binom.pmf(hits, n, rate) * prior.pdf(q))

    mixture, _ = integrate.quad(ratio, 0, rate, points=[1e-6, 1e-3])
    expected = math.log(mixture / prior.cdf(rate))
    assert against_at_least(hits, n, rate) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("truth", [0.45, 0.6, 0.95])
def test_a_true_claim_is_rejected_with_probability_alpha_at_most(truth: float) -> None:
    """Looking after each of 80 draws, "45 % or more" is rejected at .05 in less than that, if it is true."""
    assert crossing(math.log(20), 0.45, truth, 80) <= 0.05


def test_a_false_claim_is_rejected_soon() -> None:
    """With nothing kept, "45 % or more" is rejected at .01 after eight to eleven draws."""
    assert crossing(math.log(100), 0.45, 0.0, 11) == 1.0
    assert crossing(math.log(100), 0.45, 0.0, 7) == 0.0


@given(counts, rates)
def test_both_sides_mirror(case: tuple[int, int], rate: float) -> None:
    """Evidence against "at most" is that against "at least" of the misses."""
    hits, n = case
    assert against_at_most(hits, n, rate) == against_at_least(n - hits, n, 1 - rate)


@given(counts, rates)
def test_more_hits_never_speak_against_a_floor(case: tuple[int, int], rate: float) -> None:
    """Evidence against "at least" falls with each further hit."""
    hits, n = case
    assert against_at_least(hits + 1, n + 1, rate) <= against_at_least(hits, n + 1, rate) + 1e-9


@pytest.mark.parametrize(
    ("kept", "lost", "ungraded", "finding"),
    [
        (0, 0, 0, Finding.UNDECIDED),
        (0, 8, 0, Finding.UNDECIDED),
        (0, 12, 0, Finding.REMOVED),
        (1, 20, 3, Finding.REMOVED),
        (30, 0, 0, Finding.UNDECIDED),
        (45, 0, 0, Finding.RETAINED),
        (340, 170, 0, Finding.DEGRADED),
        (60, 60, 0, Finding.UNDECIDED),
        (0, 12, 4, Finding.UNDECIDED),
        (0, 2, 12, Finding.UNGRADEABLE),
    ],
)
def test_what_a_tally_allows_to_say(kept: int, lost: int, ungraded: int, finding: Finding) -> None:
    """Clear cases are decided soon, garbage is no evidence, and the middle takes long."""
    assert find(Tally(kept, lost, ungraded), RULE) is finding


@given(st.integers(0, 40), st.integers(0, 40))
def test_a_worse_judge_never_allows_more(kept: int, lost: int) -> None:
    """What may be said with a judge of whom less is known may be said with a better one."""
    worse = find(Tally(kept, lost), replace(RULE, sensitivity=0.7, specificity=0.7))
    better = find(Tally(kept, lost), replace(RULE, sensitivity=1.0, specificity=1.0))
    assert worse in {better, Finding.UNDECIDED}


@pytest.mark.parametrize(
    "broken",
    [{"kept": 0.4}, {"alpha": 0.0}, {"beta": 1.0}, {"sensitivity": 0.4, "specificity": 0.5}, {"lost": 0.0}],
)
def test_a_contradictory_rule_is_refused(broken: dict[str, float]) -> None:
    """Levels, shares and judges that leave nothing to test are an error of the caller."""
    with pytest.raises(ValueError, match="stop rule"):
        find(Tally(1, 1), replace(RULE, **broken))


@given(counts)
def test_the_sequence_is_robbins(case: tuple[int, int]) -> None:
    """At each limit the mixture's likelihood is 20 times the limit's; it is wider than the exact interval."""
    hits, n = case
    outcome = confidence_sequence(hits, n)
    if n == 0:
        assert isinstance(outcome, Unmeasured)
        return
    assert isinstance(outcome, Measured)
    assert 0 <= outcome.low <= outcome.value <= outcome.high <= 1
    for limit in (outcome.low, outcome.high):
        if 0 < limit < 1:
            ratio = stats.betabinom.pmf(hits, n, 0.5, 0.5) / stats.binom.pmf(hits, n, limit)
            assert ratio == pytest.approx(20, rel=1e-6)
    exact = stats.binomtest(hits, n).proportion_ci(method="exact")
    assert outcome.low <= exact.low + 1e-9
    assert outcome.high >= exact.high - 1e-9


def test_the_sequence_covers_at_all_times() -> None:
    """In 400 runs of 150 draws, the rate leaves the interval at any time in at most 5 % (and a margin)."""
    rng = np.random.default_rng(0)
    bounds = {}
    missed = 0
    for _ in range(400):
        hits = np.cumsum(rng.random(150) < 0.9)
        for n in range(1, 151, 3):
            key = (int(hits[n - 1]), n)
            if key not in bounds:
                outcome = confidence_sequence(*key)
                assert isinstance(outcome, Measured)
                bounds[key] = outcome.low <= 0.9 <= outcome.high
            if not bounds[key]:
                missed += 1
                break
    assert missed <= 0.05 * 400 + 9


def suite() -> PromptSuite:
    """Three topics; a screen of six prompts, twelve more in quick, paraphrases that are not asked for."""
    prompts = [
        Prompt(f"{topic}-{i}", "text", PromptKind.HARMFUL, topic, tier=Tier.SCREEN if i < 2 else Tier.QUICK)
        for topic in ("a", "b", "c")
        for i in range(6)
    ]
    prompts.append(Prompt("a-0-p", "text", PromptKind.HARMFUL, "a", paraphrase_of="a-0"))
    prompts.append(Prompt("u", "text", PromptKind.UTILITY, "u"))
    return PromptSuite("s", "1", tuple(prompts), "sha256:0")


def test_a_larger_tier_goes_on_where_the_smaller_ended() -> None:
    """The order is a seeded shuffle within each tier, of headline prompts only, and the same every time."""
    screen, quick = asking_order(suite(), Tier.SCREEN, 0), asking_order(suite(), Tier.QUICK, 0)
    assert quick[: len(screen)] == screen
    assert {prompt.id for prompt in screen} == {"a-0", "a-1", "b-0", "b-1", "c-0", "c-1"}
    assert len(quick) == 18
    assert quick == asking_order(suite(), Tier.QUICK, 0)
    assert quick != asking_order(suite(), Tier.QUICK, 1)


def test_only_what_the_original_refuses_is_counted() -> None:
    """Prompts that the original answers say nothing about what a fork lost."""
    labels = [("a", Label.REFUSED), ("b", Label.COMPLIED), ("c", Label.UNGRADEABLE), ("d", Label.COMPLIED)]
    assert tally_of(labels, {"a", "b", "c"}) == Tally(1, 1, 1)
