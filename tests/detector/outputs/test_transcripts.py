"""Greedy transcripts and first-token log-probabilities against the numerics floor; nearest known fork."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from detector.outputs.first_logprobs import apart as logprobs_apart
from detector.outputs.first_logprobs import first_logprobs, logprob_test
from detector.outputs.interface import Decision, Output, Question, Sampling, Transcript
from detector.outputs.signflip import Floor, sign_flip_log_e, sign_flip_p, subset_p
from detector.outputs.transcripts import (
    apart,
    greedy_answers,
    greedy_transcript,
    greedy_transcript_sequential,
    nearest_transcript,
)

LENGTH = 200
DTYPES = ("float32", "float16", "bfloat16")
HAZARDS = (0.001, 0.002, 0.008)
"""Chance per character that numerics leave the common path: coarse formats leave earlier."""


def walk(rng: np.random.Generator, prompts: int, hazard: float) -> dict[str, str]:
    """Answers that follow `aaaa…` until they leave it for good, at a random place, for their own path."""
    answers = {}
    for prompt in range(prompts):
        leaves = min(int(rng.geometric(hazard)) - 1, LENGTH)
        own = "".join(map(str, rng.integers(10, size=8))) + "z" * LENGTH
        answers[f"p{prompt}"] = ("a" * leaves + own)[:LENGTH]
    return answers


def published(rng: np.random.Generator, prompts: int = 20) -> tuple[Transcript, ...]:
    return tuple(
        Transcript(model="authentic", engine="e", dtype=dtype, answers=walk(rng, prompts, hazard))
        for dtype, hazard in zip(DTYPES, HAZARDS, strict=True)
    )


@given(st.lists(st.floats(-1, 1), max_size=9))
@settings(max_examples=60, deadline=None)
def test_sign_flip_is_enumeration(excess: list[float]) -> None:
    """The convolution gives what counting all signs gives, and the e-value has mean 1 over all signs."""
    values = np.array(excess)
    steps = np.round(values * 64)
    flips = [np.array(signs) for signs in itertools.product((-1, 1), repeat=len(values))]
    at_least = [np.dot(signs, np.abs(steps)) >= steps.sum() for signs in flips]
    assert sign_flip_p(values) == pytest.approx(np.mean(at_least))
    assert np.mean([math.exp(sign_flip_log_e(signs * np.abs(values))) for signs in flips]) == pytest.approx(1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=3), st.lists(st.floats(0, 1), max_size=6))
@settings(max_examples=60, deadline=None)
def test_subset_is_enumeration(asked: list[float], unasked: list[float]) -> None:
    """The recursion gives what counting all subsets gives."""
    together = np.array([*asked, *unasked])
    steps = np.round((together - together.min()) / max(np.ptp(together), 1e-12) * 64)
    sums = [sum(one) for one in itertools.combinations(steps.tolist(), len(asked))]
    floor = Floor(np.zeros(len(asked)), np.array(asked), np.array(unasked))
    assert subset_p(floor) == pytest.approx(np.mean([one >= steps[: len(asked)].sum() for one in sums]))


@given(st.text(max_size=9), st.text(max_size=9), st.text(min_size=1, max_size=9))
@settings(max_examples=40, deadline=None)
def test_apart_is_symmetric(common: str, a: str, b: str) -> None:
    """The null hypothesis exchanges answers, so which of two comes first may not matter."""
    assert apart(common + a, common + b) == apart(common + b, common + a)
    assert 0 <= apart(common + a, common + b) <= 1
    assert apart(a, a + b) == float(not a.strip() and bool(b.strip()))


def test_level() -> None:
    """An endpoint with the numerics of the coarsest published format is rarely called different."""
    runs = 150
    p_values, ever = [], 0
    for run in range(runs):
        rng = np.random.default_rng(run)
        pack, served = published(rng, 16), walk(rng, 16, HAZARDS[2])
        result = greedy_transcript(served, pack)
        assert result.p_value is not None
        p_values.append(result.p_value)
        looks = [dict(list(served.items())[:n]) for n in (10, 13, 16)]
        ever += any(greedy_transcript_sequential(look, pack).decision is Decision.DIFFERENT for look in looks)
    for alpha in (0.01, 0.05, 0.2):
        alarms = sum(p <= alpha for p in p_values)
        assert binomtest(alarms, runs).proportion_ci(0.999, "exact").low <= alpha, (alpha, alarms)
    assert sum(p <= 0.2 for p in p_values) > 0.05 * runs, "a test that never alarms would have been caught"
    assert binomtest(ever, runs).proportion_ci(0.999, "exact").low <= 0.01


def test_modified_is_found() -> None:
    """A model that leaves the path five times as early is found with 20 prompts, by both tests."""
    found, early = 0, 0
    for run in range(20):
        rng = np.random.default_rng([1, run])
        pack, served = published(rng), walk(rng, 20, 0.1)
        result = greedy_transcript(served, pack)
        found += result.decision is Decision.DIFFERENT
        early += greedy_transcript_sequential(served, pack).decision is Decision.DIFFERENT
    assert found == 20
    assert early >= 15


def test_three_prompts_of_forty() -> None:
    """A random few of the pack's prompts are held against the floor on the others; the level holds."""
    alarms = found = 0
    for run in range(150):
        rng = np.random.default_rng([2, run])
        pack, asked = published(rng, 40), [f"p{i}" for i in rng.permutation(40)[:3]]
        same, changed = walk(rng, 40, HAZARDS[2]), walk(rng, 40, 0.2)
        alarms += greedy_transcript({p: same[p] for p in asked}, pack).decision is Decision.DIFFERENT
        result = greedy_transcript({p: changed[p] for p in asked}, pack)
        found += result.decision is Decision.DIFFERENT
        assert result.n == 3
    assert binomtest(alarms, 150).proportion_ci(0.999, "exact").low <= 0.01
    assert found > 75
    one = greedy_transcript({asked[0]: changed[asked[0]]}, pack)
    assert (one.decision, one.needed) == (Decision.INSUFFICIENT, 2)


def test_what_cannot_be_decided() -> None:
    """Six prompts of six cannot reach 1 %, one transcript has no floor, nothing shared is nothing seen."""
    rng = np.random.default_rng(0)
    pack, larger = published(rng, 6), published(rng, 7)
    changed = {f"p{i}": "z" * LENGTH for i in range(7)}
    few = greedy_transcript(changed, pack)
    assert (few.decision, few.n, few.needed) == (Decision.INSUFFICIENT, 6, 7)
    assert greedy_transcript_sequential(changed, pack).decision is Decision.INSUFFICIENT
    assert greedy_transcript(changed, larger).decision is Decision.DIFFERENT
    assert greedy_transcript(changed, pack[:1]).decision is Decision.INSUFFICIENT
    assert "two authentic" in greedy_transcript(changed, pack[:1]).reason
    assert greedy_transcript({"other": "z"}, pack).n == 0
    assert greedy_transcript({}, ()).decision is Decision.INSUFFICIENT


def test_nearest_fork_is_named() -> None:
    """The fork that an endpoint serves is named among three; an authentic endpoint is none of them."""
    rng = np.random.default_rng(3)
    pack = published(rng)
    paths = {f"org/fork{i}@{i}": walk(rng, 20, 0.05) for i in range(3)}
    forks = [Transcript(model=name, engine="e", dtype="float32", answers=own) for name, own in paths.items()]
    served = {
        p: answer if rng.random() < 0.95 else pack[0].answers[p] for p, answer in paths["org/fork1@1"].items()
    }
    result, candidates = nearest_transcript(served, pack, forks)
    assert result.question is Question.ATTRIBUTION
    assert result.decision is Decision.DIFFERENT
    assert candidates[0].fork == "org/fork1@1"
    assert len(candidates) == 3
    copy = Transcript(model="org/copy@9", engine="e", dtype="float32", answers=paths["org/fork1@1"])
    tied, both = nearest_transcript(served, pack, [*forks, copy])
    assert (tied.p_value, len(both)) == (result.p_value, 3)
    assert both[0].fork == "org/copy@9"
    assert "tied with org/fork1@1" in both[0].detail
    assert "nearer to org/copy@9 = org/fork1@1" in tied.reason
    none, _ = nearest_transcript(walk(rng, 20, HAZARDS[2]), pack, forks)
    assert none.decision is Decision.NO_DIFFERENCE
    few, _ = nearest_transcript(dict(list(served.items())[:4]), pack, forks)
    assert few.decision is Decision.INSUFFICIENT
    nothing, nobody = nearest_transcript(served, pack, ())
    assert (nothing.decision, nobody) == (Decision.INSUFFICIENT, ())


def test_only_greedy_answers_count() -> None:
    """Sampled answers and answers without text are no transcripts; the first of several counts."""
    cold, warm = Sampling(temperature=0.0), Sampling(temperature=1.0)
    outputs = [
        Output(prompt_id="a", text="one", sampling=cold),
        Output(prompt_id="a", text="two", sampling=cold),
        Output(prompt_id="b", text="warm", sampling=warm),
        Output(prompt_id="c", text=None, sampling=cold),
        Output(prompt_id="d", text="unknown"),
    ]
    assert greedy_answers(outputs) == {"a": "one"}


def test_speed() -> None:
    """A thousand long answers with three transcripts each are judged within a second of processor time."""
    rng = np.random.default_rng(0)
    pack, served = published(rng, 1000), walk(rng, 1000, 0.05)
    start = time.process_time()
    assert greedy_transcript(served, pack).n == 1000
    assert time.process_time() - start < 1


def logprobs(rng: np.random.Generator, spread: float, prompts: int = 40) -> dict[str, dict[str, float]]:
    """Top 20 of a fixed prediction, of a scale that differs by prompt, with noise on the logits."""
    found = {}
    for prompt in range(prompts):
        logits = np.linspace(0, -6, 30) * (0.5 + prompt % 5)
        logits = logits + spread * (0.2 + prompt % 3) * rng.normal(size=30)
        values = logits - np.log(np.exp(logits).sum())
        top = sorted(range(30), key=lambda i: -values[i])[:20]
        found[f"p{prompt}"] = {f"t{i}": float(values[i]) for i in top}
    return found


def test_first_logprobs() -> None:
    """Numerics as coarse as a cell's pass; a change of four times that is found, also from five tokens."""
    alarms = found = 0
    for run in range(40):
        rng = np.random.default_rng(run)
        coarse = logprobs(rng, 0.05)
        # Two cells of one engine, and an endpoint whose rounding is independent of theirs.
        cells = {"fp32": logprobs(rng, 0.001), "seed": coarse, "bf16": coarse, "top-p-0.9": logprobs(rng, 3)}
        alarms += logprob_test(logprobs(rng, 0.05), cells).decision is Decision.DIFFERENT
        modified = {prompt: dict(list(top.items())[:5]) for prompt, top in logprobs(rng, 0.2).items()}
        found += logprob_test(modified, cells).decision is Decision.DIFFERENT
    assert binomtest(alarms, 40).proportion_ci(0.999, "exact").low <= 0.01
    assert found >= 38
    assert logprob_test(modified, {"seed": cells["seed"]}).decision is Decision.INSUFFICIENT
    assert logprobs_apart({}, {"a": -1.0}) == 0


def test_first_logprobs_of_outputs() -> None:
    outputs = [
        Output(prompt_id="a", text="x", top_logprobs=(("x", -0.1), ("y", -3.0))),
        Output(prompt_id="b", text=""),
    ]
    assert first_logprobs(outputs) == {"a": {"x": -0.1, "y": -3.0}}
