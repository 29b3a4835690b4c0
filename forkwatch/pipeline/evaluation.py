"""An evaluation asked for by itself: a model, perhaps its original, limits, and the document about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from evals.compare import compare
from evals.interface import (
    Behaviour,
    Comparison,
    EvalRequest,
    EvalResult,
    Measured,
    Stability,
    Tier,
    Unmeasured,
)
from evals.run import baseline, evaluate
from evals.thresholds import Check, Thresholds, check, result_of
from forkwatch.pipeline.limits import limits_of
from forkwatch.pipeline.views import isolation_words, number_view
from forkwatch.settings import EvaluationSettings, PolicySettings
from forkwatch.text import plain
from reports.evaluation import (
    BehaviourView,
    CellView,
    CheckView,
    ComparisonView,
    EvaluationDocument,
    StabilityView,
)
from reports.scan import UnmeasuredView


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is evaluated."""

    name: str
    folder: Path
    """Config, tokenizer, template and weights of the model, or of its original when `weights` are given."""
    weights: tuple[Path, ...] = ()
    original: str | None = None
    """Name of the original; None when the model stands by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How it is evaluated."""

    suite: Path
    tier: Tier
    options: EvaluationSettings
    policy: PolicySettings
    thresholds: Thresholds


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What was measured."""

    model: EvalResult
    original: EvalResult | None
    comparison: Comparison | None
    checks: tuple[Check, ...]


def run_evaluation(subject: Subject, plan: Plan, scratch: Path, progress: Callable[[str], None]) -> Evaluated:
    """Measure the model, and its original first where there is one.

    Args:
        subject: What to measure.
        plan: How.
        scratch: Where the children work; the raw answers stay in it.
        progress: Told what the children do.

    Raises:
        EvalsError: the suite is none, a child failed, or isolation is required and not to be had.
    """
    request = _request(subject, plan, scratch)
    first = baseline(request, progress=lambda line: progress(f"{subject.original or subject.name}: {line}"))
    if not subject.weights:
        return Evaluated(first, None, None, check(plan.thresholds, first.behaviour, None))
    second = evaluate(
        _request(subject, plan, scratch, first), progress=lambda line: progress(f"{subject.name}: {line}")
    )
    found = compare(
        first.behaviour,
        second,
        removed_below=plan.policy.removed_below,
        degraded_drop=plan.policy.degraded_drop,
        alpha=plan.policy.alpha,
    )
    checks = check(plan.thresholds, second.behaviour, found)
    return Evaluated(second, first, found, checks)


def _request(subject: Subject, plan: Plan, scratch: Path, first: EvalResult | None = None) -> EvalRequest:
    options = plan.options
    return EvalRequest(
        original=subject.folder,
        weights=subject.weights,
        suite=plan.suite,
        tier=plan.tier,
        baseline_transcript=None if first is None else first.transcript,
        scratch=scratch / ("original" if first is None else "model"),
        max_new_tokens=options.max_new_tokens,
        samples=0,
        seed=options.seed,
        timeout_seconds=options.timeout_seconds,
        device=options.device,
        limits=limits_of(options),
    )


def evaluation_document(
    subject: Subject, plan: Plan, found: Evaluated, thresholds: str, now: datetime
) -> EvaluationDocument:
    """The document about it; `thresholds` names the file that the limits are from."""
    behaviour = found.model.behaviour
    seconds = found.model.seconds + (0.0 if found.original is None else found.original.seconds)
    return EvaluationDocument(
        model=plain(subject.name),
        original=subject.original and plain(subject.original),
        suite=behaviour.suite,
        suite_digest=behaviour.suite_digest,
        tier=plan.tier.value,
        judge=behaviour.judge,
        behaviour=behaviour_view(behaviour),
        baseline=None if found.original is None else behaviour_view(found.original.behaviour),
        comparison=None if found.comparison is None else _comparison(found.comparison),
        checks=tuple(map(_check, found.checks)),
        result=result_of(found.checks).value,
        isolation=isolation_words(found.model),
        device=found.model.device,
        seconds=round(seconds, 1),
        notes=tuple(map(plain, found.model.notes)),
        evaluated_at=now.isoformat(timespec="seconds"),
        thresholds=plain(thresholds),
    )


def behaviour_view(behaviour: Behaviour) -> BehaviourView:
    """A behaviour as reports show it."""
    return BehaviourView(
        refusal=number_view(behaviour.refusal),
        over_refusal=number_view(behaviour.over_refusal),
        ungradeable=number_view(behaviour.ungradeable),
        degenerate=number_view(behaviour.degenerate),
        choice=number_view(behaviour.choice),
        cells=tuple(
            CellView(
                kind="harmful" if cell.kind.value == "harmful" else "benign-twin",
                topic=cell.topic,
                language=cell.language,
                refused=cell.refused,
                graded=cell.graded,
                asked=cell.asked,
            )
            for cell in behaviour.cells
        ),
        stability=_stability(behaviour.stability),
    )


def _stability(found: Stability | Unmeasured) -> StabilityView | UnmeasuredView:
    if isinstance(found, Unmeasured):
        return UnmeasuredView(unmeasured=found.reason)
    return StabilityView(
        paraphrase_flips=number_view(found.paraphrase_flips),
        seed_flips=number_view(found.seed_flips),
        samples=found.samples,
    )


def _comparison(found: Comparison) -> ComparisonView:
    return ComparisonView(
        status=found.status.value,
        reason=found.reason,
        refusal_drop=number_view(found.refusal_drop),
        mcnemar_p=found.mcnemar_p.value if isinstance(found.mcnemar_p, Measured) else None,
        kl_per_token=number_view(found.kl_per_token),
        perplexity_ratio=number_view(found.perplexity_ratio),
    )


def _check(found: Check) -> CheckView:
    return CheckView(
        name=found.name,
        limit=found.limit,
        value=number_view(found.value),
        outcome=found.outcome.value,
        surely=found.surely,
    )


def scratch_folder() -> TemporaryDirectory[str]:
    """A folder for one evaluation, gone with it: raw answers are kept only where the caller asks."""
    return TemporaryDirectory(prefix="forkwatch-eval-")
