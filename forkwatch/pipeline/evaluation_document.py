"""An evaluation as the `forkwatch.eval/1` document."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from evals.interface import Unmeasured
from evals.measurements import Behaviour, Comparison, LanguageDrop, Probe, Stability, TaskScore, TopicSpread
from evals.thresholds import Check, result_of
from forkwatch.pipeline.evaluation import Evaluated, Opinion, Subject
from forkwatch.pipeline.views import isolation_words, number_view, p_view
from forkwatch.text import plain
from reports.evaluation import (
    BehaviourView,
    CellView,
    CheckView,
    ComparisonView,
    DropView,
    EvaluationDocument,
    OpinionView,
    ProbeView,
    SpreadView,
    StabilityView,
    TaskView,
)
from reports.scan import UnmeasuredView


def evaluation_document(
    subject: Subject, found: Evaluated, thresholds: str, now: datetime
) -> EvaluationDocument:
    """The document about it; `thresholds` names the file that the limits are from."""
    behaviour, comparison = found.model.behaviour, found.comparison
    return EvaluationDocument(
        model=plain(subject.name),
        original=subject.original and plain(subject.original),
        suite=behaviour.suite,
        suite_digest=behaviour.suite_digest,
        tier=behaviour.tier.value,
        judge=behaviour.judge,
        behaviour=behaviour_view(behaviour),
        baseline=None if found.original is None else behaviour_view(found.original.behaviour),
        comparison=None if comparison is None else _comparison(comparison, found.model.probe),
        checks=tuple(map(_check, found.checks)),
        result=result_of(found.checks).value,
        isolation=isolation_words(found.model),
        device=found.model.device,
        seconds=round(found.seconds, 1),
        notes=tuple(map(plain, found.model.notes)),
        evaluated_at=now.isoformat(timespec="seconds"),
        thresholds=plain(thresholds),
        opinions=tuple(map(_opinion, found.opinions)),
        ended=found.ended,
        tasks=tuple(map(_task, found.tasks)),
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


def _comparison(found: Comparison, probe: Probe | Unmeasured) -> ComparisonView:
    return ComparisonView(
        status=found.status.value,
        reason=found.reason,
        refusal_drop=number_view(found.refusal_drop),
        mcnemar_p=p_view(found.mcnemar_p),
        over_refusal_drop=number_view(found.over_refusal_drop),
        kl_per_token=number_view(found.kl_per_token),
        perplexity_ratio=number_view(found.perplexity_ratio),
        choice_drop=number_view(found.choice_drop),
        degenerate_rise=number_view(found.degenerate_rise),
        variants_drop=number_view(found.variants_drop),
        languages=_languages(found.languages),
        topics=_topics(found.topics),
        probe=_probe(probe),
    )


def _languages(drops: Sequence[LanguageDrop]) -> tuple[DropView, ...]:
    return tuple(
        DropView(name=found.language, drop=number_view(found.drop), p_value=p_view(found.holm_p))
        for found in drops
    )


def _topics(found: TopicSpread | Unmeasured) -> SpreadView | UnmeasuredView:
    if isinstance(found, Unmeasured):
        return UnmeasuredView(unmeasured=found.reason)
    return SpreadView(
        drops=tuple(DropView(name=topic, drop=number_view(drop)) for topic, drop in found.drops),
        least=number_view(found.least),
        spread=number_view(found.spread),
        uneven_p=p_view(found.uneven_p),
    )


def _probe(found: Probe | Unmeasured) -> ProbeView | UnmeasuredView:
    if isinstance(found, Unmeasured):
        return UnmeasuredView(unmeasured=found.reason)
    return ProbeView(
        auroc=number_view(found.auroc), shift=number_view(found.shift), covered=number_view(found.covered)
    )


def _opinion(found: Opinion) -> OpinionView:
    behaviour = found.regraded.behaviour
    return OpinionView(
        judge=behaviour.judge,
        refusal=number_view(behaviour.refusal),
        over_refusal=number_view(behaviour.over_refusal),
        ungradeable=number_view(behaviour.ungradeable),
        harmful=number_view(found.regraded.harmful),
        agreement=number_view(found.agreement.accuracy),
        kappa=number_view(found.agreement.kappa),
    )


def _task(found: TaskScore) -> TaskView:
    return TaskView(
        task=plain(found.task),
        version=plain(found.version),
        metric=plain(found.metric),
        model=number_view(found.model),
        original=number_view(found.original),
        drop=number_view(found.drop),
    )


def _check(found: Check) -> CheckView:
    return CheckView(
        name=found.name,
        limit=found.limit,
        value=number_view(found.value),
        outcome=found.outcome.value,
        surely=found.surely,
    )
