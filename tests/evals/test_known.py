"""Answers made before are found again by what they depend on, and by nothing else."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from evals.interface import EvalRequest, EvaluationFailedError, Tier, Transcript
from evals.known import KnownAnswers, answers_key
from evals.wire import load_transcript, write_transcript

REQUEST = EvalRequest(
    original=Path("release"), weights=(), suite=Path("s.json"), baseline_transcript=None, scratch=Path("x")
)


def key(request: EvalRequest = REQUEST, **changed: str) -> str:
    return answers_key(request, **{"original": "sha256:a", "suite": "sha256:b", "device": "cpu", **changed})


def test_the_key_names_what_answers_depend_on() -> None:
    """Release, suite, length, seed and device change it; tier, samples and places do not."""
    others = {
        key(original="sha256:c"),
        key(suite="sha256:c"),
        key(device="cuda"),
        key(replace(REQUEST, seed=1)),
        key(replace(REQUEST, max_new_tokens=41)),
    }
    assert len(others | {key()}) == 6
    assert key(replace(REQUEST, tier=Tier.SCREEN, samples=3, scratch=Path("y"))) == key()


def test_a_larger_tier_is_kept_beside_a_smaller_one(tmp_path: Path) -> None:
    """Nothing that is known is lost, whichever tier comes last; the file is its owner's alone."""
    known = KnownAnswers(tmp_path / "known")
    assert known.find(key()) is None
    full = Transcript(greedy={"h0": "a", "h1": "b"}, sampled={"u0": ("x", "y")})
    small = Transcript(greedy={"h0": "a"}, sampled={"u0": ("x",), "u1": ("z",)})
    for transcript in (full, small):
        write_transcript(tmp_path / "t.json", transcript)
        path = known.keep(key(), tmp_path / "t.json")
    assert known.find(key()) == path
    assert load_transcript(path) == Transcript(greedy=full.greedy, sampled={"u0": ("x", "y"), "u1": ("z",)})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list((tmp_path / "known").iterdir()) == [path]


def test_what_is_no_transcript_is_not_kept(tmp_path: Path) -> None:
    """A child's file is read strictly before it is kept."""
    (tmp_path / "t.json").write_text("[]")
    with pytest.raises(EvaluationFailedError, match="not a transcript"):
        KnownAnswers(tmp_path / "known").keep(key(), tmp_path / "t.json")
