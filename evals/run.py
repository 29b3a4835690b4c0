"""Evaluate one model in a confined child process. The parent imports no torch and reads no byte of a fork."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from evals.interface import (
    JUDGED,
    MIN_PROMPTS,
    DirectionRequest,
    EvalRequest,
    EvaluationFailedError,
    Isolation,
    PromptSuite,
    RefusalDirection,
    SuiteError,
    Tier,
    Unmeasured,
)
from evals.measurements import EvalResult
from evals.quiet import quiet
from evals.sandbox import CHILD, Achieved, Errand, admit, run
from evals.suite import load_suite
from evals.variants import Part, SeriesRequest, SeriesResult
from evals.wire import (
    DIRECTION,
    MAX_DIRECTION,
    TRANSCRIPT,
    dump,
    load_direction_report,
    load_report,
    load_series_report,
)

MAX_GAPS = 10
"""Of those that a child tells, and of its notes; there are fewer kinds."""

SERIES_ROOM, VARIANT_ROOM, PROMPT_ROOM = 1 << 20, 32 << 10, 256
"""Bytes that a series may answer with: at all, a variant, and a prompt of a variant."""
MAX_SERIES = 64 << 20
"""Bytes of the answer of a series at most: 200 variants asked 1000 prompts each."""


def evaluate(request: EvalRequest, *, progress: Callable[[str], None] = quiet) -> EvalResult:
    """Measure a fork on its original's config, tokenizer and template.

    A fork that does not fit the original's architecture gives `Unmeasured` numbers with the reason, no error.

    Args:
        request: What to evaluate.
        progress: Told what the child does, e.g. `generate 64/184`.

    Raises:
        SuiteError: the suite is invalid or has no prompt to judge.
        EvaluationFailedError: the child died, ran too long or broke its contract.
        IsolationError: full isolation is required, and this machine does not give it.
    """
    suite = _judgeable(request.suite, request.tier)
    started = time.monotonic()
    request = _absolute(request)
    here = admit(request.device, request.limits)
    own = (request.baseline_transcript, request.known, request.calibration)
    inputs = (request.original, request.suite, *request.weights, *(path for path in own if path is not None))
    errand = _errand(request, inputs, TRANSCRIPT)
    line = run(errand, [*CHILD, "evaluate"], dump(request), progress=progress)
    report = load_report(line, suite, request.stop)
    isolation, gaps = weaker(here, report.isolation, report.gaps)
    return EvalResult(
        behaviour=replace(report.behaviour, tier=request.tier),
        kl_per_token=report.kl_per_token,
        perplexity_ratio=report.perplexity_ratio,
        transcript=request.scratch / TRANSCRIPT,
        isolation=isolation,
        device=report.device,
        seconds=time.monotonic() - started,
        notes=report.notes[:MAX_GAPS],
        gaps=gaps,
        probe=report.probe,
    )


def baseline(request: EvalRequest, *, progress: Callable[[str], None] = quiet) -> EvalResult:
    """Measure the original itself: the same request without a fork's weights."""
    return evaluate(replace(request, weights=(), baseline_transcript=None), progress=progress)


def series(request: SeriesRequest, *, progress: Callable[[str], None] = quiet) -> SeriesResult:
    """Measure variants of one original in one child, which loads it once.

    A variant that does not fit, or for which no time was left, has `Unmeasured` numbers with the reason.

    Args:
        request: The original and its variants; ids must differ.
        progress: Told what the child does, e.g. `fork 3/12: generate 64/184`.

    Raises:
        ValueError: there is no variant, or two share an id.
        SuiteError: the suite is invalid or has no prompt to judge.
        EvaluationFailedError: the child died, ran too long, did not get the original's values back, or broke
            its contract.
        IsolationError: full isolation is required, and this machine does not give it.
    """
    names = [variant.id for variant in request.variants]
    if not names or len(set(names)) < len(names):
        raise ValueError("a series needs variants, each with an id of its own")
    suite = _judgeable(request.suite, request.tier)
    request = _absolute_series(request)
    here = admit(request.device, request.limits)
    weights = [path for variant in request.variants for part in variant.parts for path in part.weights]
    own = [path for path in (request.baseline_transcript, request.calibration) if path is not None]
    inputs = (request.original, request.suite, *weights, *own)
    room = SERIES_ROOM + (len(names) + 1) * (VARIANT_ROOM + PROMPT_ROOM * len(suite.prompts))
    errand = replace(_errand(request, tuple(dict.fromkeys(inputs))), max_answer=min(MAX_SERIES, room))
    line = run(errand, [*CHILD, "series"], dump(request), progress=progress)
    report = load_series_report(line, suite, names)
    isolation, gaps = weaker(here, report.isolation, report.gaps)
    return SeriesResult(
        original=report.original,
        variants=report.variants,
        isolation=isolation,
        gaps=gaps,
        device=report.device,
        load_seconds=report.load_seconds,
    )


def _judgeable(path: Path, tier: Tier) -> PromptSuite:
    """What the tier asks of a suite, if there is anything to judge.

    Raises:
        SuiteError: the suite is invalid or has no prompt to judge.
    """
    suite = load_suite(path).at(tier)
    if not any(prompt.kind in JUDGED for prompt in suite.prompts):
        raise SuiteError(f"{path}: no harmful prompt and no twin, so nothing would be judged")
    return suite


def refusal_direction(
    request: DirectionRequest, *, progress: Callable[[str], None] = quiet
) -> RefusalDirection | Unmeasured:
    """The direction by which the original tells prompts that it refuses from twins that it answers.

    Raises:
        SuiteError: the suite is invalid.
        EvaluationFailedError: the child died, ran too long or broke its contract.
        IsolationError: full isolation is required, and this machine does not give it.
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
    here = admit(request.device, request.limits)
    errand = _errand(request, (request.original, request.suite), DIRECTION)
    line = run(errand, [*CHILD, "direction"], dump(request), progress=progress)
    report = load_direction_report(line, suite)
    file = request.scratch / DIRECTION
    if not 0 < file.stat().st_size <= MAX_DIRECTION:
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
        isolation=weaker(here, report.isolation, ())[0],
        device=report.device,
        seconds=time.monotonic() - started,
    )


def _errand(
    request: EvalRequest | DirectionRequest | SeriesRequest, inputs: tuple[Path, ...], *outputs: str
) -> Errand:
    return Errand(
        scratch=request.scratch,
        inputs=inputs,
        outputs=outputs,
        device=request.device,
        limits=request.limits,
        timeout_seconds=request.timeout_seconds,
    )


def weaker(here: Achieved, isolation: Isolation, gaps: tuple[str, ...]) -> tuple[Isolation, tuple[str, ...]]:
    """What both the child and the check before it achieved; the child's words may be a fork's by now."""
    reduced = Isolation.REDUCED in (here.isolation, isolation)
    told = tuple(dict.fromkeys((*here.gaps, *gaps[:MAX_GAPS])))
    return (Isolation.REDUCED if reduced else isolation), told


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
        calibration=request.calibration and request.calibration.absolute(),
        known=request.known and request.known.absolute(),
        scratch=request.scratch.absolute(),
    )


def _absolute_series(request: SeriesRequest) -> SeriesRequest:
    transcript = request.baseline_transcript

    def absolute(part: Part) -> Part:
        return replace(part, weights=tuple(path.absolute() for path in part.weights))

    return replace(
        request,
        original=request.original.absolute(),
        variants=tuple(
            replace(variant, parts=tuple(map(absolute, variant.parts))) for variant in request.variants
        ),
        suite=request.suite.absolute(),
        baseline_transcript=transcript and transcript.absolute(),
        calibration=request.calibration and request.calibration.absolute(),
        scratch=request.scratch.absolute(),
    )
