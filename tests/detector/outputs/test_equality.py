"""Tests against the pack's own sample: level, power, temperature, and what other cells explain."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.stats import binomtest

from detector.outputs.features import SCORE_FEATURES
from detector.outputs.interface import Decision, Sample, ScoredOutput, TestResult, TokenScores
from detector.outputs.met import MAX_CHARACTERS, mmd_hamming
from detector.outputs.nuisance import best_cells, nuisance_p, temperature_of
from detector.outputs.permutation import labelings, permutation_p, pool, smallest_p
from detector.outputs.ranks import by_prompt, log_rank, rank_uniformity
from detector.outputs.scores import cell_tests, feature_cells, features_by_prompt, score_test
from detector.outputs.temperature import estimate_temperature, temperature_anchors
from detector.outputs.two_sample import text_test
from tests.detector.outputs.speakers import Speaker, sample, speak

FEATURES = len(SCORE_FEATURES)
Texts = dict[str, tuple[str, ...]]


def texts(scored: Sequence[ScoredOutput]) -> Texts:
    found: Texts = {}
    for one in scored:
        found[one.output.prompt_id] = (*found.get(one.output.prompt_id, ()), one.output.text or "")
    return found


def draw_texts(rng: np.random.Generator, each: int) -> Texts:
    return {f"p{p}": tuple("".join(rng.choice(list("abc"), size=5)) for _ in range(each)) for p in range(6)}


def draw_ranks(rng: np.random.Generator, each: int) -> dict[str, tuple[float, ...]]:
    """Coarse values, so that there are ties."""
    return {f"p{p}": tuple(rng.integers(p, p + 4, size=each).tolist()) for p in range(6)}


def draw_features(rng: np.random.Generator, each: int) -> dict[str, tuple[np.ndarray, ...]]:
    return {f"p{p}": tuple(rng.normal(loc=p, size=(each, FEATURES))) for p in range(6)}


LEVELS: dict[str, Callable[[np.random.Generator], TestResult]] = {
    "mmd-hamming": lambda rng: mmd_hamming(draw_texts(rng, 3), draw_texts(rng, 2), permutations=199),
    "rank-uniformity": lambda rng: rank_uniformity(draw_ranks(rng, 3), draw_ranks(rng, 2), permutations=199),
    "score": lambda rng: score_test(draw_features(rng, 3), draw_features(rng, 2), permutations=199),
    "cells": lambda rng: nuisance_p(
        cell_tests(
            {"seed": draw_features(rng, 3), "temperature-0.8": draw_features(rng, 3)},
            draw_features(rng, 2),
            permutations=199,
        )
    ),
}


@pytest.mark.parametrize("name", LEVELS)
def test_level(name: str) -> None:
    """On samples of one distribution p is uniform, or larger where the largest of several counts."""
    runs = 200
    p_values = [LEVELS[name](np.random.default_rng([7, run])).p_value for run in range(runs)]
    found = [p for p in p_values if p is not None]
    assert len(found) == runs
    for alpha in (0.01, 0.05, 0.2):
        interval = binomtest(sum(p <= alpha for p in found), runs).proportion_ci(0.999, "exact")
        assert interval.low <= alpha, (alpha, interval)
        assert name == "cells" or alpha <= interval.high, (alpha, interval)


def published_mmd(x: list[tuple[int, str]], y: list[tuple[int, str]]) -> float:
    """The statistic of arXiv 2410.20247, pair by pair."""
    longest = max(len(text) for _, text in x + y)

    def kernel(a: tuple[int, str], b: tuple[int, str]) -> float:
        pairs = zip(a[1].ljust(longest, "\0"), b[1].ljust(longest, "\0"), strict=True)
        return sum(c == d for c, d in pairs) / longest

    def mean(a: list[tuple[int, str]], b: list[tuple[int, str]]) -> float:
        values = [
            kernel(s, t)
            for i, s in enumerate(a)
            for j, t in enumerate(b)
            if s[0] == t[0] and not (a is b and i == j)
        ]
        return sum(values) / len(values)

    return mean(x, x) - 2 * mean(x, y) + mean(y, y)


def test_mmd_is_the_published_one() -> None:
    """P-values are those of the published statistic under the same relabelings."""
    rng = np.random.default_rng(1)
    reference, served = draw_texts(rng, 3), draw_texts(rng, 2)
    pooled = pool(reference, served)
    rows = [
        (prompt, text)
        for prompt, block in enumerate(np.array(pooled.values).reshape(6, 5))
        for text in map(str, block)
    ]
    statistics = []
    for labels in labelings(pooled.sizes, 99, 0):
        sides = [
            [row for row, label in zip(rows, labels, strict=True) if label == side] for side in (False, True)
        ]
        statistics.append(published_mmd(*sides))
    result = mmd_hamming(reference, served, permutations=99)
    assert result.p_value == pytest.approx(permutation_p(np.array(statistics)))


def test_mmd_takes_any_text() -> None:
    """Empty, very long, and broken texts are rows like others; one answer a prompt is enough of a sample."""
    hostile = {f"p{i}": ("", "\ud800" * 3, "x" * (MAX_CHARACTERS + 9)) for i in range(8)}
    assert mmd_hamming(hostile, {f"p{i}": ("\U0010ffff",) for i in range(8)}).p_value is not None


def test_mmd_finds_other_letters() -> None:
    """A side that says `a` twice as often is found; one that is the reference's own is not."""
    rng = np.random.default_rng(2)
    skewed = {p: tuple(t.replace("b", "a") for t in row) for p, row in draw_texts(rng, 8).items()}
    assert mmd_hamming(draw_texts(rng, 8), skewed).decision is Decision.DIFFERENT
    assert mmd_hamming(draw_texts(rng, 8), draw_texts(rng, 8)).decision is Decision.NO_DIFFERENCE


def test_one_rank_each() -> None:
    """With one reference and one served answer a prompt, p is bounded by the number of labelings."""
    values = {f"p{i}": (0.0,) for i in range(5)}
    few = rank_uniformity(values, dict.fromkeys(values, (9.0,)))
    assert few.decision is Decision.INSUFFICIENT
    assert few.needed is not None
    assert 7 <= few.needed <= 10
    assert smallest_p(((1, 1),) * 8) == pytest.approx(2 / 2**8)
    assert rank_uniformity({}, values).n == 0


@pytest.fixture(scope="module")
def pack() -> list[Sample]:
    plain, cold, hot = (Speaker(temperature=t) for t in (1.0, 0.8, 1.2))
    return [
        sample("authentic", plain, 8, 1),
        sample("authentic", cold, 8, 2, cell="temperature-0.8", benign=True),
        sample("authentic", hot, 8, 3, cell="temperature-1.2", benign=True),
        sample("org/fork@1", Speaker(family=1, shift=0.5), 2, 4, family="noise"),
    ]


def test_temperature_is_benign_and_a_shift_is_not(pack: list[Sample]) -> None:
    """At 0.9 the plain test differs and the cells explain it; a modified model differs from every cell."""
    cells = feature_cells(pack)
    assert set(cells) == {"seed", "temperature-0.8", "temperature-1.2"}
    for seed in range(3):
        cooler = features_by_prompt(speak(Speaker(temperature=0.9), 6, 10 + seed))
        assert score_test(cells["seed"], cooler).decision is Decision.DIFFERENT
        tests = cell_tests(cells, cooler)
        assert nuisance_p(tests).decision is Decision.NO_DIFFERENCE
        cold = cell_tests(cells, features_by_prompt(speak(Speaker(temperature=0.8), 6, 20 + seed)))
        assert best_cells(cold)[-1] != "temperature-0.8"
        changed = features_by_prompt(speak(Speaker(family=2, shift=1.6), 6, 30 + seed))
        result = nuisance_p(cell_tests(cells, changed))
        known = nuisance_p(cell_tests({"seed": cells["seed"]}, changed))
        assert known.p_value == score_test(cells["seed"], changed).p_value
        assert (result.test, result.decision) == ("score-permutation-nuisance", Decision.DIFFERENT)


def test_strong_shift_is_found(pack: list[Sample]) -> None:
    served = speak(Speaker(family=2, shift=1.2), 4, 40)
    reference = pack[0].scored
    for result in (
        rank_uniformity(by_prompt(reference, log_rank), by_prompt(served, log_rank)),
        score_test(features_by_prompt(reference), features_by_prompt(served)),
        text_test(texts(reference), texts(served)),
    ):
        assert (result.decision, result.n) == (Decision.DIFFERENT, 80), result


def test_cells_that_cannot_speak() -> None:
    """A cell without a common prompt is left out; one that is too small to be rejected leaves it open."""
    rng = np.random.default_rng(0)
    large, other = draw_features(rng, 3), {"q": draw_features(rng, 1)["p0"]}
    far = {prompt: tuple(np.array(rows) + 50) for prompt, rows in draw_features(rng, 2).items()}
    assert nuisance_p(cell_tests({"seed": large, "bf16": other}, far)).decision is Decision.DIFFERENT
    small = {"p0": large["p0"][:1]}
    undecided = nuisance_p(cell_tests({"seed": large, "bf16": small}, far))
    assert undecided.decision is Decision.INSUFFICIENT
    assert "bf16" in undecided.reason
    assert nuisance_p({}).decision is Decision.INSUFFICIENT
    assert [
        temperature_of(c) for c in ("seed", "temperature-0.8", "temperature-x", "temperature-0", "bf16")
    ] == [
        1.0,
        0.8,
        None,
        None,
        None,
    ]


def test_temperature_is_estimated(pack: list[Sample]) -> None:
    """From 0.7 to 1.3 the estimate is within 4 %, with the truth in or near its interval; anchors help."""
    anchors = temperature_anchors(pack)
    assert sorted(anchors) == [0.8, 1.0, 1.2]
    for truth in (0.7, 0.9, 1.0, 1.3):
        scores = [one.authentic for one in speak(Speaker(temperature=truth), 6, int(truth * 100))]
        found = estimate_temperature(scores, anchors)
        assert found is not None
        assert abs(found.estimate / truth - 1) < 0.04, (truth, found)
        assert found.low < found.estimate < found.high
        assert found.low / 1.02 < truth < found.high * 1.02
        alone = estimate_temperature(scores)
        assert alone is not None
        assert abs(alone.estimate / truth - 1) < 0.08


def test_temperature_needs_something_to_see() -> None:
    empty = TokenScores(*(np.zeros(0, np.float32) for _ in range(5)))
    sure = TokenScores(*(np.zeros(9, np.float32) for _ in range(5)))
    assert estimate_temperature([empty] * 9) is None
    assert estimate_temperature([sure] * 4) is None
    assert estimate_temperature([sure] * 9) is None


def test_speed() -> None:
    """A thousand outputs against as many, without a model, within a second of processor time a test."""
    rng = np.random.default_rng(0)
    sides = [
        {f"p{p}": tuple("".join(rng.choice(list("abcdef"), size=150)) for _ in range(10)) for p in range(100)}
        for _ in range(2)
    ]
    start = time.process_time()
    assert mmd_hamming(sides[0], sides[1]).n == 1000
    assert time.process_time() - start < 1.5
