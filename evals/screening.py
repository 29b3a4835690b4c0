"""As few prompts as a clear answer needs: small tiers first, larger ones only while undecided.

Within a tier the child stops once its sequential test decides; at the end of a tier `compare` may decide.
These looks share the error: one for the sequential test over all tiers, which holds by itself however often
it is taken, and one for each tier's end (Bonferroni). Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from evals.behaviour import narrowed, sequenced
from evals.breakdown import pairs_of
from evals.compare import MIN_ORIGINAL, LossLimits, compare, obstacle
from evals.interface import EvalRequest, Label, Measured, Outcome, StopRule, Tier, Unmeasured
from evals.measurements import Behaviour, Comparison, EvalResult, SafetyStatus
from evals.metrics import CONFIDENCE, paired_difference, wilson
from evals.quiet import quiet
from evals.run import evaluate
from evals.sequential import Finding, confidence_sequence, find, tally_of
from evals.suite import load_suite

LOOKS = 1 + len(Tier)
"""The sequential test, and the end of each tier."""

STOPPED = Unmeasured("asking stopped as soon as the sequential test decided")

_STATUS = {
    Finding.RETAINED: SafetyStatus.RETAINED,
    Finding.DEGRADED: SafetyStatus.DEGRADED,
    Finding.REMOVED: SafetyStatus.REMOVED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """What a screening found, and with how little."""

    result: EvalResult
    """Of the last tier, with confidence sequences for refusal rates, and the seconds of all tiers."""
    comparison: Comparison
    """Its drop, status and p-value hold although one looked several times."""
    tier: Tier
    """The last one that was asked."""
    asked: int
    """Judged prompts that the fork answered."""
    kept: Outcome
    """Share of the original's refusals that the fork keeps, as labelled, with a 95 % confidence sequence."""
    why: str
    """What ended it, in words."""


class Evaluator(Protocol):
    """`evals.run.evaluate`, or something that keeps its promises."""

    def __call__(self, request: EvalRequest, *, progress: Callable[[str], None]) -> EvalResult: ...


def _tell(progress: Callable[[str], None], tier: Tier, text: str) -> None:
    progress(f"{tier}: {text}")


def evaluate_auto(
    request: EvalRequest,
    baseline: Behaviour,
    limits: LossLimits | None = None,
    *,
    progress: Callable[[str], None] = quiet,
    evaluator: Evaluator = evaluate,
) -> Screened:
    """Screen a fork, and ask more only while its status is undecided. Same inputs, same stop.

    Args:
        request: As for `evaluate`; `tier` is the largest one to go to. Each tier works in a folder of its own
            below `scratch`.
        baseline: The original's behaviour on the same suite; no tier beyond its own is asked.
        limits: What counts as a loss. Its levels are those of the whole screening.
        progress: Told what the child does.
        evaluator: Runs one tier.

    Raises:
        SuiteError: the suite is invalid.
        EvaluationFailedError: a child died, ran too long or broke its contract.
        IsolationError: full isolation is required, and this machine does not give it.
    """
    suite = load_suite(request.suite)
    shared = _shared(limits or LossLimits())
    rule = _rule(baseline, shared, request.seed)
    last = min(request.tier, baseline.tier, key=tuple(Tier).index)
    translated = any(prompt.translation_of for prompt in suite.prompts)
    seconds, known = 0.0, request.known
    for tier in Tier:
        result = evaluator(
            replace(request, tier=tier, known=known, stop=rule, scratch=request.scratch / tier),
            progress=partial(_tell, progress, tier),
        )
        seconds, known = seconds + result.seconds, result.transcript
        behaviour = result.behaviour
        against = narrowed(baseline, suite, dict(behaviour.labels)) if behaviour.labels else baseline
        comparison = _looked(compare(against, result, shared), against, behaviour, shared)
        if behaviour.stopped and rule is not None and not obstacle(against, behaviour):
            comparison = _stopped(comparison, against, behaviour, rule)
        goes_on = not behaviour.stopped and _may_turn(against, behaviour, comparison, shared)
        why = (
            ""
            if goes_on and tier is not last
            else _why(behaviour, comparison, tier, last, translated=translated)
        )
        if why:
            break
    return Screened(
        result=replace(result, behaviour=sequenced(behaviour, suite), seconds=seconds),
        comparison=comparison,
        tier=tier,
        asked=len(behaviour.labels),
        kept=_kept(baseline, behaviour),
        why=why,
    )


def _shared(limits: LossLimits) -> LossLimits:
    """The levels of one look."""
    return replace(limits, alpha=limits.alpha / LOOKS, confidence=1 - (1 - limits.confidence) / LOOKS)


def _rule(baseline: Behaviour, shared: LossLimits, seed: int) -> StopRule | None:
    """The rule of the sequential test; None where the original refuses too little for it to be lost."""
    rate = baseline.refusal
    if not isinstance(rate, Measured) or rate.value < MIN_ORIGINAL:
        return None
    harmful = frozenset(baseline.harmful)
    return StopRule(
        refused=tuple(name for name, label in baseline.labels if name in harmful and label is Label.REFUSED),
        kept=1 - shared.degraded_drop,
        lost=shared.removed_below,
        alpha=shared.alpha,
        beta=1 - shared.confidence,
        sensitivity=shared.sensitivity,
        specificity=shared.specificity,
        seed=seed,
    )


def _looked(comparison: Comparison, original: Behaviour, fork: Behaviour, shared: LossLimits) -> Comparison:
    """P-value and interval of the drop, for one look of several."""
    p_value = comparison.mcnemar_p
    if isinstance(p_value, Measured):
        adjusted = min(1.0, LOOKS * p_value.value)
        p_value = Measured(adjusted, p_value.n, adjusted, adjusted)
    drop = comparison.refusal_drop
    if isinstance(drop, Measured):
        pairs = pairs_of(original.harmful, dict(original.labels), dict(fork.labels))
        drop = paired_difference(pairs, confidence=shared.confidence)
    return replace(comparison, mcnemar_p=p_value, refusal_drop=drop)


def _stopped(comparison: Comparison, original: Behaviour, fork: Behaviour, rule: StopRule) -> Comparison:
    """What the sequential test says, in place of numbers that hold at a fixed size only."""
    finding = find(tally_of(fork.labels, rule.refused), rule)
    undecided = finding not in _STATUS
    return replace(
        comparison,
        status=SafetyStatus.NOT_MEASURED if undecided else _STATUS[finding],
        reason=fork.stopped,
        mcnemar_p=STOPPED,
        refusal_drop=_drop(original, fork),
        variants_drop=STOPPED,
        topics=STOPPED,
    )


def _drop(original: Behaviour, fork: Behaviour) -> Outcome:
    """Original rate minus fork rate at a time chosen by the data: losses minus gains, half the error each."""
    before, after = dict(original.labels), dict(fork.labels)
    pairs = [(before[name], after[name]) for name in fork.harmful if name in before]
    graded = [pair for pair in pairs if Label.UNGRADEABLE not in pair]
    confidence = 1 - (1 - CONFIDENCE) / 2
    lost, gained = (
        confidence_sequence(sum(pair == change for pair in graded), len(graded), confidence=confidence)
        for change in ((Label.REFUSED, Label.COMPLIED), (Label.COMPLIED, Label.REFUSED))
    )
    if isinstance(lost, Unmeasured) or isinstance(gained, Unmeasured):
        return Unmeasured("no pair of graded answers")
    return Measured(lost.value - gained.value, lost.n, lost.low - gained.high, lost.high - gained.low)


def _kept(baseline: Behaviour, fork: Behaviour) -> Outcome:
    harmful, before = frozenset(baseline.harmful), dict(baseline.labels)
    refused = {name for name in harmful if before.get(name) is Label.REFUSED}
    tally = tally_of(fork.labels, refused)
    return confidence_sequence(tally.kept, tally.kept + tally.lost)


def _may_turn(original: Behaviour, fork: Behaviour, comparison: Comparison, shared: LossLimits) -> bool:
    """Whether "degraded" may turn into another word where more is asked.

    `compare` says it where some loss is sure and the one seen is large enough. That is all a last tier can
    do; a smaller one goes on until the loss surely is large enough, and surely is no removal.
    """
    if comparison.status is not SafetyStatus.DEGRADED:
        return False
    pairs = pairs_of(original.harmful, dict(original.labels), dict(fork.labels))
    after = wilson(pairs.both + pairs.only_second, pairs.n, confidence=shared.confidence)
    drop = paired_difference(pairs, confidence=shared.confidence)
    before = (pairs.both + pairs.only_first) / pairs.n
    return not (
        isinstance(after, Measured)
        and isinstance(drop, Measured)
        and after.low >= shared.removed_below * before
        and drop.low > shared.degraded_drop
    )


def _why(behaviour: Behaviour, comparison: Comparison, tier: Tier, last: Tier, *, translated: bool) -> str:
    """Why no larger tier is asked, or nothing; `translated`: the suite asks in other languages too."""
    others = "; other languages were not asked" if translated and not comparison.languages else ""
    if behaviour.stopped:
        return f"the answers were enough in tier {tier}{others}"
    if isinstance(behaviour.refusal, Unmeasured) and not behaviour.labels:
        return "the fork cannot be measured"
    if comparison.status is not SafetyStatus.NOT_MEASURED:
        return f"tier {tier} decided{others}"
    return f"nothing larger than tier {tier} was to be asked" if tier is last else ""
