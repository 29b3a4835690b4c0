"""An evaluation asked for by itself: a model, perhaps its original, limits, and second opinions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from evals.compare import compare
from evals.fitted import fit_judge
from evals.harness import TaskPlan, TaskRun, run_tasks, task_scores
from evals.interface import EvalRequest, Generator, Tier
from evals.judges.interface import Agreement, BatchJudge
from evals.judges.regrade import Regraded, agreement_between, regrade
from evals.measurements import Comparison, EvalResult, SafetyStatus, TaskScore
from evals.run import baseline, evaluate
from evals.screening import evaluate_auto
from evals.served import evaluate_served
from evals.suite import load_suite
from evals.text_items import TextRequest
from evals.thresholds import Check, Thresholds, check
from evals.wire import load_transcript
from forkwatch.pipeline.limits import limits_of, loss_limits
from forkwatch.sections.judging import EvaluationSettings, PolicySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is evaluated."""

    name: str
    folder: Path
    """Config, tokenizer, template and weights of the model, or of its original when `weights` are given."""
    weights: tuple[Path, ...] = ()
    original: str | None = None
    """Name of the original; None when the model stands by itself."""
    served: Generator | None = None
    """The endpoint that is asked, in place of weights; by itself it needs no folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How it is evaluated."""

    suite: Path
    tier: Tier | None
    """None: as little as decides, which needs an original; a model by itself is asked the quick tier."""
    repeats: int
    options: EvaluationSettings
    policy: PolicySettings
    thresholds: Thresholds
    tasks: TaskPlan | None = None
    """Of the lm-evaluation-harness, asked besides."""
    judges: tuple[BatchJudge, ...] = ()
    """Second opinions on the same answers; the limits are on what the built-in judge says."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What another judge says."""

    regraded: Regraded
    agreement: Agreement
    """With the built-in judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What was measured."""

    model: EvalResult
    original: EvalResult | None
    comparison: Comparison | None
    checks: tuple[Check, ...]
    seconds: float
    opinions: tuple[Opinion, ...] = ()
    ended: str = ""
    tasks: tuple[TaskScore, ...] = ()


Tell = Callable[[str], None]


def run_evaluation(subject: Subject, plan: Plan, scratch: Path, progress: Tell) -> Evaluated:
    """Measure the model, and its original first where there is one.

    Args:
        subject: What to measure.
        plan: How.
        scratch: Where the children work; the raw answers stay in it.
        progress: Told what the children do.

    Raises:
        EvalsError: the suite is none, a child failed, a judge cannot be had, or isolation is required and not
            to be had.
    """
    found = _measured(subject, plan, scratch, progress)
    tasks = () if plan.tasks is None else _tasks(subject, plan, plan.tasks, scratch, progress)
    return replace(found, opinions=second_opinions(plan, found.model), tasks=tasks)


def _tasks(
    subject: Subject, plan: Plan, tasks: TaskPlan, scratch: Path, progress: Tell
) -> tuple[TaskScore, ...]:
    """The original first: what it can not do is no loss of the model's."""

    def run(name: str, weights: tuple[Path, ...], place: str) -> TaskRun:
        request = TextRequest(
            original=subject.folder,
            weights=weights,
            items=scratch / f"{place}.items.json",
            scratch=scratch / place,
            timeout_seconds=plan.options.timeout_seconds,
            device=plan.options.device,
            limits=limits_of(plan.options),
        )
        return run_tasks(tasks, request, progress=lambda line: progress(f"{name}: {line}"))

    original = None if subject.original is None else run(subject.original, (), "tasks-original")
    return task_scores(run(subject.name, subject.weights, "tasks-model"), original)


def _measured(subject: Subject, plan: Plan, scratch: Path, progress: Tell) -> Evaluated:
    base = subject.original or subject.name
    asked = _request(subject, plan, scratch / "original", plan.tier or Tier.QUICK)
    if subject.original is None and subject.served is not None:
        return _alone(plan, evaluate_served(subject.served, subject.name, asked))
    first = baseline(asked, progress=lambda line: progress(f"{base}: {line}"))
    if subject.original is None:
        return _alone(plan, first)
    first = fit_judge(first, plan.suite, scratch)
    request = replace(asked, scratch=scratch / "model", probe=True)
    pair = _Pair(subject, plan, scratch, progress)
    if subject.served is not None or plan.tier is not None:
        return pair.compared(request, first)
    return pair.screened(request, first)


def _alone(plan: Plan, result: EvalResult) -> Evaluated:
    suite = load_suite(plan.suite).at(result.behaviour.tier)
    checks = check(plan.thresholds, result.behaviour, None, suite)
    return Evaluated(model=result, original=None, comparison=None, checks=checks, seconds=result.seconds)


@dataclass(frozen=True, slots=True)
class _Pair:
    """A model that is held against its original."""

    subject: Subject
    plan: Plan
    scratch: Path
    progress: Tell

    def tell(self, line: str) -> None:
        self.progress(f"{self.subject.name}: {line}")

    def compared(self, request: EvalRequest, first: EvalResult) -> Evaluated:
        """All of a tier."""
        request = _against(request, first)
        if self.subject.served is not None:
            second = evaluate_served(self.subject.served, self.subject.name, request)
        else:
            second = evaluate(request, progress=self.tell)
        found = compare(first.behaviour, second, loss_limits(self.plan.policy))
        return self._evaluated(first, second, found)

    def screened(self, request: EvalRequest, first: EvalResult) -> Evaluated:
        """As little as decides; the original is asked all of the suite only where a smaller tier does not.

        The second screening sees the same answers and the same fit of the judge, so that its first looks are
        those of the first one: the error is not shared by more looks.
        """
        limits = loss_limits(self.plan.policy)
        found = evaluate_auto(_against(request, first), first.behaviour, limits, progress=self.tell)
        if found.comparison.status is SafetyStatus.NOT_MEASURED and found.result.behaviour.labels:
            whole = replace(
                request,
                weights=(),
                tier=Tier.FULL,
                known=first.transcript,
                calibration=first.calibration,
                scratch=self.scratch / "original-full",
                probe=False,
            )
            told = self.subject.original
            again = baseline(whole, progress=lambda line: self.progress(f"{told}: {line}"))
            first = replace(again, calibration=first.calibration, seconds=first.seconds + again.seconds)
            request = replace(
                request, tier=Tier.FULL, known=found.result.transcript, scratch=self.scratch / "model-full"
            )
            found = evaluate_auto(_against(request, first), first.behaviour, limits, progress=self.tell)
        ended = f"{found.why}, after {found.asked} judged prompts"
        return self._evaluated(first, found.result, found.comparison, ended)

    def _evaluated(
        self, first: EvalResult, second: EvalResult, found: Comparison, ended: str = ""
    ) -> Evaluated:
        suite = load_suite(self.plan.suite).at(second.behaviour.tier)
        return Evaluated(
            model=second,
            original=first,
            comparison=found,
            checks=check(self.plan.thresholds, second.behaviour, found, suite),
            seconds=first.seconds + second.seconds,
            ended=ended,
        )


def _against(request: EvalRequest, first: EvalResult) -> EvalRequest:
    return replace(request, baseline_transcript=first.transcript, calibration=first.calibration)


def _request(subject: Subject, plan: Plan, scratch: Path, tier: Tier) -> EvalRequest:
    options = plan.options
    return EvalRequest(
        original=subject.folder,
        weights=subject.weights,
        suite=plan.suite,
        tier=tier,
        baseline_transcript=None,
        scratch=scratch,
        max_new_tokens=options.max_new_tokens,
        samples=0,
        repeats=plan.repeats,
        seed=options.seed,
        timeout_seconds=options.timeout_seconds,
        device=options.device,
        limits=limits_of(options),
    )


def second_opinions(plan: Plan, result: EvalResult) -> tuple[Opinion, ...]:
    """What the plan's judges say; none of a misfit, which has no answers."""
    return tuple(_opinion(plan, result, judge) for judge in plan.judges if result.behaviour.labels)


def _opinion(plan: Plan, result: EvalResult, judge: BatchJudge) -> Opinion:
    suite, transcript = load_suite(plan.suite).at(result.behaviour.tier), load_transcript(result.transcript)
    if result.behaviour.stopped:  # what a screening left out has no answer
        suite = replace(suite, prompts=tuple(one for one in suite.prompts if one.id in transcript.greedy))
    regraded = regrade(suite, transcript, judge)
    return Opinion(regraded, agreement_between(suite, result.behaviour, regraded.behaviour))


def scratch_folder() -> TemporaryDirectory[str]:
    """A folder for one evaluation, gone with it, and the raw answers in it."""
    return TemporaryDirectory(prefix="forkwatch-eval-")
