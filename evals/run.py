"""Evaluate one model in a confined child process. The parent imports no torch and reads no byte of a fork."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace

from evals.interface import (
    MIN_PROMPTS,
    DirectionRequest,
    EvalRequest,
    EvalResult,
    EvaluationFailedError,
    RefusalDirection,
    SuiteError,
    Unmeasured,
)
from evals.process import run_child
from evals.suite import load_suite
from evals.wire import (
    DIRECTION,
    JUDGED,
    MAX_DIRECTION,
    TRANSCRIPT,
    dump,
    load_direction_report,
    load_report,
)

_CHILD = (sys.executable, "-I", "-m", "evals.child")


def _quiet(text: str) -> None:
    """Progress for nobody."""


def evaluate(request: EvalRequest, *, progress: Callable[[str], None] = _quiet) -> EvalResult:
    """Measure a fork on its original's config, tokenizer and template.

    A fork that does not fit the original's architecture gives `Unmeasured` numbers with the reason, no error.

    Args:
        request: What to evaluate.
        progress: Told what the child does, e.g. `generate 64/184`.

    Raises:
        SuiteError: the suite is invalid or has no prompt to judge.
        EvaluationFailedError: the child died, ran too long or broke its contract.
    """
    suite = load_suite(request.suite)
    if not any(prompt.kind in JUDGED for prompt in suite.prompts):
        raise SuiteError(f"{request.suite}: no harmful prompt and no twin, so nothing would be judged")
    started = time.monotonic()
    request = _absolute(request)
    line = run_child(
        [*_CHILD, "evaluate"],
        dump(request),
        request.scratch,
        timeout_seconds=request.timeout_seconds,
        progress=progress,
    )
    report = load_report(line, suite)
    return EvalResult(
        behaviour=report.behaviour,
        kl_per_token=report.kl_per_token,
        perplexity_ratio=report.perplexity_ratio,
        transcript=request.scratch / TRANSCRIPT,
        isolation=report.isolation,
        device=report.device,
        seconds=time.monotonic() - started,
        notes=report.notes,
    )


def baseline(request: EvalRequest, *, progress: Callable[[str], None] = _quiet) -> EvalResult:
    """Measure the original itself: the same request without a fork's weights."""
    return evaluate(replace(request, weights=(), baseline_transcript=None), progress=progress)


def refusal_direction(
    request: DirectionRequest, *, progress: Callable[[str], None] = _quiet
) -> RefusalDirection | Unmeasured:
    """The direction by which the original tells prompts that it refuses from twins that it answers.

    Raises:
        SuiteError: the suite is invalid.
        EvaluationFailedError: the child died, ran too long or broke its contract.
    """
    refused, answered = len(request.refused), len(request.answered)
    if min(refused, answered) < MIN_PROMPTS:
        return Unmeasured(
            f"the original refuses {refused} harmful prompts and answers {answered} of their twins: too few "
            f"for a direction, which needs {MIN_PROMPTS} of either"
        )
    suite = load_suite(request.suite)
    started = time.monotonic()
    request = replace(
        request,
        original=request.original.absolute(),
        suite=request.suite.absolute(),
        scratch=request.scratch.absolute(),
    )
    command = [*_CHILD, "direction"]
    line = run_child(
        command, dump(request), request.scratch, timeout_seconds=request.timeout_seconds, progress=progress
    )
    report = load_direction_report(line, suite)
    file = request.scratch / DIRECTION
    if not file.is_file() or file.stat().st_size > MAX_DIRECTION:
        raise EvaluationFailedError("the evaluation child left no direction")
    return RefusalDirection(
        file=file,
        harmful=report.harmful,
        twins=report.twins,
        stability=report.stability,
        separation=report.separation,
        sources=report.sources,
        best=report.best,
        written=report.written,
        isolation=report.isolation,
        device=report.device,
        seconds=time.monotonic() - started,
    )


def _absolute(request: EvalRequest) -> EvalRequest:
    """The child works in its scratch folder, where relative paths would mean something else.

    Links are kept: a cached file has its name, by which its format is known, in the link only.
    """
    transcript = request.baseline_transcript
    return replace(
        request,
        original=request.original.absolute(),
        weights=tuple(path.absolute() for path in request.weights),
        suite=request.suite.absolute(),
        baseline_transcript=transcript and transcript.absolute(),
        scratch=request.scratch.absolute(),
    )
