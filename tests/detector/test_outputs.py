"""The output test keeps its level on identical models and finds shifts that are there."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import binomtest

from detector.interface import OutputStatus
from detector.outputs import two_sample
from detector.outputs.two_sample import MAX_ANSWERS, compare_outputs

Answers = dict[str, tuple[str, ...]]
WORDS = 60


class Speaker:
    """A random Markov chain over made-up words; the prompt chooses the first word of an answer."""

    def __init__(self, seed: int, shift: float = 0.0) -> None:
        rng = np.random.default_rng(12345)
        self.words = [
            "".join(rng.choice(list("abcdefghijklmnop"), size=rng.integers(2, 7))) for _ in range(WORDS)
        ]
        logits = rng.normal(scale=2.0, size=(WORDS, WORDS))
        other = np.random.default_rng(seed)
        odds = np.exp(logits + shift * other.normal(size=logits.shape))
        self.cumulative = (odds / odds.sum(axis=1, keepdims=True)).cumsum(axis=1)

    def answers(self, prompts: int, samples: int, seed: int, length: int = 12) -> Answers:
        rng = np.random.default_rng(seed)
        state = np.repeat(np.arange(prompts) * 7 % WORDS, samples)
        spoken = []
        for _ in range(length):
            state = (self.cumulative[state] < rng.random((len(state), 1))).sum(axis=1).clip(0, WORDS - 1)
            spoken.append(state)
        texts = [" ".join(self.words[word] for word in row) for row in np.array(spoken).T]
        return {str(p): tuple(texts[p * samples : (p + 1) * samples]) for p in range(prompts)}


ORIGINAL = Speaker(0)


def p_value(original: Answers, fork: Answers, permutations: int = 999) -> float:
    result = compare_outputs(original, fork, permutations=permutations)
    assert result.p_value is not None
    return result.p_value


def test_false_alarms() -> None:
    """On 400 pairs from one and the same model, the false-alarm rate is what alpha promises.

    Clopper-Pearson at 99.9 %: the seeds are fixed, so this fails only when the test itself changes.
    """
    pairs = 400
    p_values = [
        p_value(ORIGINAL.answers(8, 2, 2 * pair), ORIGINAL.answers(8, 2, 2 * pair + 1), permutations=199)
        for pair in range(pairs)
    ]
    for alpha in (0.01, 0.05, 0.2):
        alarms = sum(p <= alpha for p in p_values)
        interval = binomtest(alarms, pairs).proportion_ci(0.999, "exact")
        assert interval.low <= alpha <= interval.high, (alpha, alarms)
    # Not vacuous: a test that never alarms would have been caught.
    assert sum(p <= 0.2 for p in p_values) > 0.1 * pairs


@pytest.mark.parametrize("samples", [1, 4])
def test_strong_shift(samples: int) -> None:
    """Another style of speaking is found in every one of ten forks, even with one answer a prompt."""
    for seed in range(1, 11):
        fork = Speaker(seed, shift=1.5).answers(40, samples, seed=seed)
        result = compare_outputs(ORIGINAL.answers(40, samples, seed=1000 + seed), fork)
        assert result.status is OutputStatus.MODIFIED, (seed, result)
        assert result.n == 40 * samples


def test_few_prompts_changed() -> None:
    """A fork that answers 4 of 40 prompts in other words, and the rest alike, is found."""
    original = ORIGINAL.answers(40, 4, seed=1)
    fork = ORIGINAL.answers(40, 4, seed=2)
    for prompt in ("3", "11", "19", "30"):
        fork[prompt] = tuple(f"no answer {number} to that" for number in range(4))
    assert p_value(original, fork) <= 0.01


def test_same_model() -> None:
    """Two samples of the same model are authentic, and the reason gives the sample size."""
    result = compare_outputs(ORIGINAL.answers(40, 4, seed=1), ORIGINAL.answers(40, 4, seed=2))
    assert result.status is OutputStatus.AUTHENTIC
    assert "40 prompts with 160 answers" in result.reason


def test_identical_answers() -> None:
    """The very same answers give p = 1, also when every answer is empty."""
    answers = ORIGINAL.answers(10, 2, seed=1)
    assert p_value(answers, answers) == 1.0
    assert p_value(dict.fromkeys("abcdefgh", ("", "")), dict.fromkeys("abcdefgh", ("", ""))) == 1.0


def test_many_answers_are_tested_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Single precision, which many answers get, changes no p-value; equal answers stay ties."""
    original, fork = ORIGINAL.answers(20, 16, seed=1), Speaker(3, shift=0.4).answers(20, 8, seed=2)
    single = p_value(original, fork)
    monkeypatch.setattr(two_sample, "_LARGE", MAX_ANSWERS)
    assert p_value(original, fork) == single
    monkeypatch.undo()
    same: Answers = {str(p): ("the same words",) * 12 for p in range(20)}
    assert p_value(same, same) == 1.0


def test_symmetric_and_ordered() -> None:
    """Neither the order of the mapping nor prompts that only one model answered change the result."""
    original, fork = ORIGINAL.answers(12, 2, seed=1), Speaker(1, shift=0.7).answers(12, 2, seed=2)
    expected = compare_outputs(original, fork)
    reordered = dict(reversed(fork.items())) | {"only here": ("text",), "empty": ()}
    assert compare_outputs(original | {"empty": ("text",)}, reordered) == expected


def test_level_is_kept_when_prompts_differ() -> None:
    """Answers that differ wildly between prompts, and not between models, are no difference."""
    original: Answers = {str(p): tuple(f"{'xyz'[p % 3] * 20} {n}" for n in (1, 2, 3)) for p in range(12)}
    fork: Answers = {prompt: (answers[1], answers[2], answers[0]) for prompt, answers in original.items()}
    assert p_value(original, fork) == 1.0


@pytest.mark.parametrize(
    ("prompts", "samples"),
    [(0, 4), (1, 4), (6, 1), (7, 1)],
)
def test_too_little_data(prompts: int, samples: int) -> None:
    """When even the most extreme outcome could not reach alpha, nothing was measured."""
    result = compare_outputs(ORIGINAL.answers(prompts, samples, 1), ORIGINAL.answers(prompts, samples, 2))
    assert (result.status, result.p_value) == (OutputStatus.NOT_MEASURED, None)
    assert result.reason


@pytest.mark.parametrize(("prompts", "samples"), [(2, 4), (8, 1)])
def test_just_enough_data(prompts: int, samples: int) -> None:
    """The smallest sizes that are measured can indeed reach alpha."""
    original = {str(p): tuple(f"aaaa {n}" for n in range(samples)) for p in range(prompts)}
    fork = {str(p): tuple(f"zzzz {n}" for n in range(samples)) for p in range(prompts)}
    assert p_value(original, fork) <= 0.01


def test_too_few_permutations() -> None:
    """With 50 permutations p cannot fall below 1/51, so alpha = 0.01 is out of reach."""
    answers = ORIGINAL.answers(20, 2, seed=1)
    assert compare_outputs(answers, answers, permutations=50).status is OutputStatus.NOT_MEASURED


def test_time() -> None:
    """40 prompts with 4 answers of 200 words a side take under 2 s of processor time."""
    original, fork = (ORIGINAL.answers(40, 4, seed=seed, length=200) for seed in (1, 2))
    compare_outputs(original, fork, permutations=99)  # imports
    start = time.process_time()
    compare_outputs(original, fork)
    assert time.process_time() - start < 2.0


def test_bounded() -> None:
    """Too many answers are cut evenly over the prompts, and a huge answer costs no more than a long one."""
    original = {str(p): tuple(f"{p} {n}" for n in range(60)) for p in range(100)}
    result = compare_outputs(original, original, permutations=99)
    assert result.n == MAX_ANSWERS // 2
    huge: Answers = {str(p): ("a" * 3_000_000,) for p in range(10)}
    assert p_value(huge, huge) == 1.0
