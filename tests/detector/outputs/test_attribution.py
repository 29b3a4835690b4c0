"""Known forks are named, unknown ones are not, and an authentic model is called nothing."""

from __future__ import annotations

import math

import pytest

from detector.outputs.attribution import AUTHENTIC, UNKNOWN, against, attribute, posterior
from detector.outputs.evalues import bar
from detector.outputs.interface import Decision
from detector.outputs.likelihood import PLAIN, Likelihoods, likelihoods
from tests.detector.outputs.chains import Logits, chain, drawn, fork_of, probabilities, scored

MODEL = chain(0)
FORKS = {f"{name}/fork@1": fork_of(MODEL, 0.6, seed) for seed, name in enumerate("abc", 1)}
A = "a/fork@1"


def seen(truth: Logits, outputs: int, seed: int, forks: dict[str, Logits] = FORKS) -> Likelihoods:
    rows = scored(drawn(probabilities(truth), outputs, 10, seed), MODEL, forks)
    return likelihoods(rows, (PLAIN,), forks)


def test_a_known_fork_is_named() -> None:
    found = attribute(seen(FORKS[A], 40, 1))
    assert found.named == A
    assert found.left == (A,)
    assert found.result.decision is Decision.DIFFERENT
    assert found.candidates[0].fork == A
    assert "posterior 1" in found.candidates[0].detail
    assert "ruled out" in found.candidates[1].detail


def test_an_unknown_fork_is_not_named_but_its_relative_is_said() -> None:
    """A third of fork a's change and something of its own: neither the release nor a known fork."""
    sibling = fork_of(MODEL + 0.7 * (FORKS[A] - MODEL), 0.3, 99)
    found = attribute(seen(sibling, 600, 2))
    assert found.result.decision is Decision.DIFFERENT
    assert (found.named, found.left, found.relative) == (None, (), A)


def test_copies_of_a_fork_bear_its_name() -> None:
    """Two uploads of the same weights cannot be told apart, and need not be."""
    forks = {**FORKS, "z/copy@1": FORKS[A]}
    found = attribute(seen(FORKS[A], 40, 1, forks))
    assert (found.named, found.left) == (A, (A, "z/copy@1"))
    assert "z/copy@1" not in {one.fork for one in found.candidates}
    assert "scores as z/copy@1 does" in found.candidates[0].detail
    assert found.candidates[0].detail.startswith("posterior 1")


def test_the_authentic_model_rules_every_fork_out() -> None:
    found = attribute(seen(MODEL, 60, 3))
    assert found.result.decision is Decision.NO_DIFFERENCE
    assert (found.named, found.left) == (None, ())
    shares = posterior(seen(MODEL, 60, 3))
    assert max(shares, key=shares.__getitem__) == AUTHENTIC


def test_few_outputs_are_not_enough() -> None:
    found = attribute(seen(FORKS[A], 1, 4))
    assert found.result.decision is Decision.INSUFFICIENT
    assert found.named is None
    assert found.result.needed is None or found.result.needed > 0


@pytest.mark.parametrize("truth", [AUTHENTIC, *FORKS])
def test_the_truth_is_rarely_ruled_out(truth: str) -> None:
    """100 streams from each hypothesis, looked at five times: at most a hundredth, by design."""
    model = MODEL if truth == AUTHENTIC else FORKS[truth]
    wrong = 0
    for stream in range(100):
        rows = scored(drawn(probabilities(model), 5, 24, 100 + stream), MODEL, FORKS)
        parts = [likelihoods([row], (PLAIN,), FORKS) for row in rows]
        total, peak = parts[0], against(parts[0])[truth]
        for part in parts[1:]:
            total += part
            peak = max(peak, against(total)[truth])
        wrong += peak >= bar(0.01)
    assert wrong <= 5  # P(more) = 0.05 % at a rate of a hundredth


def test_what_was_ruled_out_once_stays_so() -> None:
    passed = {AUTHENTIC: bar(0.01), **dict.fromkeys(FORKS, bar(0.01)), A: -math.inf}
    assert attribute(seen(FORKS[A], 1, 4), passed=passed).named == A


def test_posterior_sums_to_one() -> None:
    found = posterior(seen(FORKS[A], 5, 1))
    assert set(found) == {AUTHENTIC, UNKNOWN, *FORKS}
    assert sum(found.values()) == pytest.approx(1)
