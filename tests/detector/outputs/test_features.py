"""Features of outputs, and hashed n-grams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.outputs.features import (
    LIMIT,
    LOOK_FEATURES,
    SCORE_FEATURES,
    fit_standard,
    look_features,
    score_features,
)
from detector.outputs.interface import TokenScores
from detector.outputs.ngrams import BUCKETS, count_ngrams
from tests.detector.outputs.speakers import AUTHENTIC, Speaker, speak


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=5))
def test_ngrams_are_those_of_scikit_learn(texts: list[str]) -> None:
    """Bucket by bucket, for any text: with its own library or without, a classifier sees the same."""
    from sklearn.feature_extraction.text import HashingVectorizer

    theirs = HashingVectorizer(
        analyzer="char",
        ngram_range=(1, 4),
        n_features=BUCKETS,
        lowercase=False,
        norm=None,
        alternate_sign=False,
    )
    ours = count_ngrams(texts)
    expected = theirs.transform(texts) if texts else None
    if expected is None:
        assert not len(ours.row)
        return
    expected.sort_indices()
    assert np.array_equal(ours.bucket, expected.indices)
    assert np.array_equal(ours.count, expected.data)
    assert np.array_equal(np.bincount(ours.row, minlength=len(texts)), np.diff(expected.indptr))


def test_a_lone_surrogate_and_many_texts_are_hashed_one_by_one() -> None:
    """A text's counts do not depend on its neighbours, nor on where a chunk ends."""
    texts = [f"text {number} \ud800" for number in range(300)]
    together, alone = count_ngrams(texts), count_ngrams(texts[299:])
    assert np.array_equal(together.bucket[together.row == 299], alone.bucket)


def test_there_are_twenty_one_score_features_each_with_its_meaning() -> None:
    """By hand, for an answer of two tokens."""
    half = float(np.log(0.5))
    scores = TokenScores(*(np.array(values, np.float32) for values in (
        (half, half), (0.7, 0.5), (0.04, 0.12), (0, 100), (0.0, 0.5)
    )))  # fmt: skip
    found = dict(zip(SCORE_FEATURES, score_features(scores), strict=True))
    assert len(SCORE_FEATURES) == 21
    assert found["mean-logp"] == pytest.approx(half)
    assert found["mean-surprise"] == pytest.approx(half + 0.6)
    assert found["mean-log-rank"] == pytest.approx(np.log(101) / 2)
    assert (found["top-1"], found["rank-100"]) == (0.5, 0.5)
    assert found["first-logp"] == pytest.approx(half)
    assert found["residual-z"] == pytest.approx((2 * half + 1.2) / 0.4, rel=1e-5)
    # (0, .5) and (.5, 1) cover the unit interval evenly.
    assert [found[f"pit-{i}"] for i in range(10)] == pytest.approx([0.1] * 10)


def test_features_of_authentic_answers_are_centred_and_those_of_a_hotter_model_are_not() -> None:
    """Expectations under the model itself: surprise 0, PIT uniform."""
    ours = np.array([score_features(one.authentic) for one in speak(AUTHENTIC, 20, 1)])
    hot = np.array([score_features(one.authentic) for one in speak(Speaker(temperature=1.5), 20, 2)])
    surprise = SCORE_FEATURES.index("mean-surprise")
    assert abs(ours[:, surprise].mean()) < 4 * ours[:, surprise].std() / 20
    assert hot[:, surprise].mean() < -10 * ours[:, surprise].std() / 20
    assert ours[:, -10:].mean(axis=0) == pytest.approx([0.1] * 10, abs=0.01)


@pytest.mark.parametrize("bad", [(), (np.nan,), (-np.inf,)])
def test_what_has_no_finite_score_has_no_features(bad: tuple[float, ...]) -> None:
    """Not a number in is not a verdict out."""
    array = np.array(bad, np.float32)
    with pytest.raises(ValueError, match="no features"):
        score_features(TokenScores(array, array, array, array, array))


def test_looks_see_lists_markup_and_refusals() -> None:
    """Four numbers."""
    assert dict(zip(LOOK_FEATURES, look_features("# Plan\n- one\n2. two\nand **so** on"), strict=True)) == {
        "log-characters": pytest.approx(np.log(34)),
        "list-lines": 0.5,
        "markup-lines": 0.5,
        "refusal-opening": 0.0,
    }
    refusals = (
        "I’m sorry, but no.",
        "I cannot help.",
        "“Sorry, I can't",
        "Unfortunately, no",
        "As an AI model",
    )
    assert all(look_features(text)[3] for text in refusals)
    assert not any(look_features(text)[3] for text in ("I can help.", "The cant of it", "", "Sorrya"))


def test_standardising_removes_the_prompt() -> None:
    """Two prompts with very different means score alike; a prompt that is not known is held against all."""
    rng = np.random.default_rng(0)
    prompts = ["a"] * 50 + ["b"] * 50
    features = rng.normal(size=(100, 1)) + np.repeat([[0.0], [100.0]], 50, axis=0)
    standard = fit_standard(features, prompts)
    assert standard.apply(np.array([[1.0], [101.0]]), ["a", "b"]) == pytest.approx(np.ones((2, 1)), abs=0.4)
    assert standard.apply(np.array([[50.0]]), ["c"]) == pytest.approx(0, abs=0.05)
    assert standard.apply(np.array([[1e9]]), ["a"]) == LIMIT
