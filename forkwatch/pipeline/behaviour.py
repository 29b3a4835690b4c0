"""Stages 6 and 7: what a release and its forks do with prompts, measured in confined child processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from crawler.interface import Snapshot
from detector.interface import OutputTest
from evals.interface import (
    DirectionRequest,
    EvalRequest,
    Label,
    PromptKind,
    RefusalDirection,
    Tier,
    Unmeasured,
)
from evals.measurements import Behaviour, EvalResult
from forkwatch.pipeline.blobs import blob_path, keep_blob
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.limits import limits_of
from forkwatch.pipeline.originals import Original
from forkwatch.pipeline.scratch import scratch_folder
from forkwatch.pipeline.stages import materialise


def evaluate_original(context: Context, original: Original) -> EvalResult:
    """Measure a release, and fit the judge to it. What a smaller tier asked is not asked again."""
    from evals.fitted import fit_judge
    from evals.known import KnownAnswers, answers_key
    from evals.plan import gpu_devices
    from evals.run import evaluate

    with scratch_folder(context) as folder:
        request = _request(context, original, folder)
        known = KnownAnswers(context.state.answers)
        device = "cuda" if gpu_devices(request.device) else "cpu"
        key = answers_key(request, original=original.root_digest, suite=original.suite_digest, device=device)
        request = replace(request, known=known.find(key))
        result = evaluate(request, progress=_teller(context, original.repo))
        if result.device == device:  # else the driver's files are there, and no driver
            known.keep(key, result.transcript)
        fitted = fit_judge(result, original.suite, folder)
        assert fitted.calibration is not None
        return replace(
            fitted,
            transcript=Path(keep_blob(context.state, result.transcript)),
            calibration=Path(keep_blob(context.state, fitted.calibration)),
        )


def evaluate_fork(
    context: Context, original: Original, snapshot: Snapshot, baseline: EvalResult
) -> EvalResult:
    """Measure a fork against its release's answers, with the judge that is fitted to the release."""
    from evals.run import evaluate

    state, calibration = context.state, baseline.calibration
    with scratch_folder(context) as folder:
        request = _request(context, original, folder)
        request = replace(
            request,
            weights=materialise(context, snapshot, folder / "weights"),
            baseline_transcript=blob_path(state, baseline.transcript.name),
            calibration=None if calibration is None else blob_path(state, calibration.name),
            seed=request.seed + 1,  # independent samples for the two-sample test
        )
        result = evaluate(request, progress=_teller(context, snapshot.repo))
        return replace(result, transcript=Path(keep_blob(state, result.transcript)))


def _request(context: Context, original: Original, folder: Path) -> EvalRequest:
    """For the release itself."""
    options = context.settings.evaluation
    return EvalRequest(
        original=original.folder,
        weights=(),
        suite=original.suite,
        tier=Tier(options.tier),
        baseline_transcript=None,
        scratch=folder / "child",
        max_new_tokens=options.max_new_tokens,
        samples=options.samples,
        seed=options.seed,
        timeout_seconds=options.timeout_seconds,
        device=options.device,
        limits=limits_of(options),
    )


def _teller(context: Context, who: str) -> Callable[[str], None]:
    return lambda line: context.talk.note(f"{who}: {line}")


def refusal_direction(
    context: Context, original: Original, baseline: EvalResult
) -> RefusalDirection | Unmeasured:
    """The original's refusal direction, measured on it alone in a confined child process; kept as a blob."""
    from evals.run import refusal_direction as measure
    from evals.suite import load_suite

    options, behaviour = context.settings.evaluation, baseline.behaviour
    twins = load_suite(original.suite).headline(PromptKind.BENIGN_TWIN)
    with scratch_folder(context) as scratch:
        request = DirectionRequest(
            original=original.folder,
            suite=original.suite,
            refused=_labelled(behaviour, Label.REFUSED, frozenset(behaviour.harmful)),
            answered=_labelled(behaviour, Label.COMPLIED, frozenset(twin.id for twin in twins)),
            scratch=scratch,
            timeout_seconds=options.timeout_seconds,
            device=options.device,
            limits=limits_of(options),
        )
        found = measure(request, progress=lambda line: context.talk.note(f"{original.repo}: {line}"))
        if isinstance(found, Unmeasured):
            return found
        return replace(found, file=Path(keep_blob(context.state, found.file)))


def _labelled(behaviour: Behaviour, wanted: Label, among: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name, label in behaviour.labels if label is wanted and name in among)


def test_outputs(context: Context, original: EvalResult, fork: EvalResult) -> OutputTest:
    """Sampled answers of fork and original to the same harmless prompts."""
    from detector.outputs.two_sample import compare_outputs
    from evals.wire import load_transcript

    ours = load_transcript(blob_path(context.state, original.transcript.name))
    theirs = load_transcript(blob_path(context.state, fork.transcript.name))
    harmful = {*original.behaviour.harmful, *fork.behaviour.harmful}  # sampled for their stability alone
    plain, others = (
        {name: answers for name, answers in side.sampled.items() if name not in harmful}
        for side in (ours, theirs)
    )
    return compare_outputs(plain, others, alpha=context.settings.policy.alpha)
