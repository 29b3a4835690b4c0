"""Draw or score answers in a confined child. The parent imports no torch and reads no byte of a fork."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from detector.outputs.interface import Output, Sampling, ScoredOutput
from evals.interface import Unmeasured
from evals.outputs.interface import (
    Collected,
    CollectRequest,
    CollectResult,
    Job,
    Model,
    ScoreRequest,
    ScoreResult,
)
from evals.outputs.wire import (
    ANSWERS,
    ASKED,
    SCORES,
    Drawn,
    JobAnswers,
    dump_asked,
    load_answers,
    load_collect_report,
    load_score_report,
    load_scores,
)
from evals.process import printable
from evals.quiet import quiet
from evals.run import weaker
from evals.sandbox import CHILD, Errand, admit, run
from evals.wire import MAX_TOLD, write_private

Progress = Callable[[str], None]


def collect(request: CollectRequest, *, progress: Progress = quiet) -> CollectResult:
    """Draw answers of an original and its forks.

    A fork that does not fit gives nothing, with the reason.

    Args:
        request: What to ask; a job names one of the models.
        progress: Told what the child does, e.g. `authentic seed 1/8: draw 128/960`.

    Raises:
        ValueError: there is no job or no prompt, two models share an id, or a job names none.
        EvaluationFailedError: the child died, ran too long, did not get the original's values back, or broke
            its contract.
        IsolationError: full isolation is required, and this machine does not give it.
    """
    names = [model.id for model in request.models]
    if not request.jobs or len(set(names)) < len(names) or {job.model for job in request.jobs} - {*names}:
        raise ValueError("jobs need models, each with an id of its own")
    if not request.prompts and not request.harmful:
        raise ValueError("nothing is asked")
    started = time.monotonic()
    request = replace(
        request,
        original=request.original.absolute(),
        models=_absolute(request.models),
        calibration=request.calibration and request.calibration.absolute(),
        scratch=request.scratch.absolute(),
    )
    own = [request.calibration] if request.calibration is not None else []
    errand, here = (
        _errand(request, (*_files(request.models), *own), ANSWERS),
        admit(request.device, request.limits),
    )
    line = run(errand, [*CHILD, "collect"], bytes(request.scratch), progress=progress)
    report = load_collect_report(line)
    answers = load_answers(request.scratch / ANSWERS, request)
    isolation, gaps = weaker(here, report.isolation, report.gaps)
    return CollectResult(
        collected=tuple(
            _collected(request, job, found) for job, found in zip(request.jobs, answers, strict=True)
        ),
        isolation=isolation,
        gaps=gaps,
        device=report.device,
        seconds=time.monotonic() - started,
    )


def score(request: ScoreRequest, *, progress: Progress = quiet) -> ScoreResult:
    """Score answers under an original and its forks.

    Args:
        request: What to score.
        progress: Told what the child does, e.g. `fork 1/3: 128/960`.

    Raises:
        ValueError: there is no answer, or two forks share an id.
        EvaluationFailedError: the child died, ran too long, did not get the original's values back, or broke
            its contract; or the answers are too long for one file.
        IsolationError: full isolation is required, and this machine does not give it.
    """
    names = [fork.id for fork in request.forks]
    if not request.answers or len(set(names)) < len(names):
        raise ValueError("scoring needs answers, and forks with an id each")
    started = time.monotonic()
    request = replace(
        request,
        original=request.original.absolute(),
        forks=_absolute(request.forks),
        scratch=request.scratch.absolute(),
    )
    errand, here = _errand(request, _files(request.forks), SCORES), admit(request.device, request.limits)
    line = run(errand, [*CHILD, "score"], bytes(request.scratch), progress=progress)
    report = load_score_report(line, request)
    authentic, forks = load_scores(request.scratch / SCORES, request, report.reasons)
    isolation, gaps = weaker(here, report.isolation, report.gaps)
    return ScoreResult(
        authentic=authentic,
        forks={**forks, **{fork: Unmeasured(reason) for fork, reason in report.reasons.items()}},
        precision=report.precision,
        isolation=isolation,
        gaps=gaps,
        device=report.device,
        seconds=time.monotonic() - started,
    )


def with_scores(outputs: Sequence[Output], result: ScoreResult, scorer: str) -> tuple[ScoredOutput, ...]:
    """Outputs with the scores of their texts, which were asked about in this order."""
    forks = {name: rows for name, rows in result.forks.items() if not isinstance(rows, Unmeasured)}
    return tuple(
        ScoredOutput(
            output=output,
            authentic=result.authentic[number],
            forks={name: rows[number] for name, rows in forks.items()},
            scorer=scorer,
        )
        for number, output in enumerate(outputs)
    )


def _errand(request: CollectRequest | ScoreRequest, inputs: Iterable[Path], output: str) -> Errand:
    """What the child needs; the request lies beside what it leaves."""
    request.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(request.scratch / ASKED, dump_asked(request))
    return Errand(
        scratch=request.scratch,
        inputs=tuple(dict.fromkeys((request.original, request.scratch / ASKED, *inputs))),
        outputs=(output,),
        device=request.device,
        limits=request.limits,
        timeout_seconds=request.timeout_seconds,
    )


def _files(models: Iterable[Model]) -> tuple[Path, ...]:
    return tuple(path for model in models for path in model.weights)


def _absolute(models: Iterable[Model]) -> tuple[Model, ...]:
    """The child works in its scratch folder, where relative paths would mean something else."""
    return tuple(replace(model, weights=tuple(path.absolute() for path in model.weights)) for model in models)


def _collected(request: CollectRequest, job: Job, found: JobAnswers) -> Collected:
    prompts, drawn = list(request.prompts), job.cell.sampling(request.max_new_tokens)
    cold = job.cell.sampling(request.max_new_tokens, temperature=0.0)
    if found.reason:
        prompts = []
    told = printable(found.reason.encode("utf-8", "replace"), MAX_TOLD)
    return Collected(
        model=job.model,
        cell=job.cell.name,
        samples=tuple(
            _output(name, answer, drawn)
            for name, answer in zip(
                (name for name in prompts for _ in range(job.samples)), found.samples, strict=True
            )
        ),
        greedy={
            name: _output(name, answer, cold) for name, answer in zip(prompts, found.greedy, strict=False)
        },
        first={name: _by_token(row) for name, row in zip(prompts, found.first, strict=False)},
        refused=_refused(request.harmful, found),
        missing=Unmeasured(told) if found.reason else None,
        seconds=found.seconds,
    )


def _by_token(row: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Likeliest first; of tokens that look alike, such as parts of a character, the likeliest stands."""
    found: dict[str, float] = {}
    for token, logp in row:
        found.setdefault(token, logp)
    return found


def _refused(harmful: Mapping[str, str], found: JobAnswers) -> Mapping[str, tuple[bool | None, ...]]:
    return dict(zip(harmful, found.refused, strict=False))


def _output(name: str, answer: Drawn, sampling: Sampling) -> Output:
    return Output(prompt_id=name, text=answer.text, sampling=sampling, finish_reason=answer.finished)
