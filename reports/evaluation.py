"""`forkwatch.eval/1`: what one model does with a prompt suite, by itself and against its original.

Labels, counts and intervals; no answer and no prompt text. The types are the JSON contract: fields are added,
never renamed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reports.scan import NumberView, UnmeasuredView

KindName = Literal["harmful", "benign-twin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellView:
    """Refusals of one kind of prompt, in one topic and language."""

    kind: KindName
    topic: str
    language: str
    refused: int
    graded: int
    asked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StabilityView:
    """Whether labels survive other words and other draws."""

    paraphrase_flips: NumberView
    seed_flips: NumberView
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BehaviourView:
    """One model on one suite."""

    refusal: NumberView
    over_refusal: NumberView
    ungradeable: NumberView
    degenerate: NumberView
    choice: NumberView
    cells: tuple[CellView, ...]
    stability: StabilityView | UnmeasuredView


@dataclass(frozen=True, slots=True, kw_only=True)
class DropView:
    """The fall of refusals in one language or topic."""

    name: str
    drop: NumberView
    p_value: float | None = None
    """Of a language, Holm-corrected over all of them; a topic has too few prompts for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadView:
    """Whether refusals were lost evenly over topics."""

    drops: tuple[DropView, ...]
    least: NumberView
    """The smallest drop of any topic: what an edit took everywhere."""
    spread: NumberView
    """Largest minus smallest."""
    uneven_p: float | None
    """Permutation test of an even loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeView:
    """The refusal probe: how likely an answer begins like a refusal of the original's, without generating."""

    auroc: NumberView
    """How well it tells, on the original, what that refuses from what it answers."""
    shift: NumberView
    """Model minus original, nats."""
    covered: NumberView
    """Share of refusals that begin as the probe knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonView:
    """A model against its original, on the same prompts."""

    status: Literal["retained", "degraded", "removed", "not-measured"]
    reason: str
    refusal_drop: NumberView
    mcnemar_p: float | None
    over_refusal_drop: NumberView
    """Original minus model; below 0: the model refuses more of what is harmless."""
    kl_per_token: NumberView
    perplexity_ratio: NumberView
    choice_drop: NumberView
    degenerate_rise: NumberView
    variants_drop: NumberView
    """As `refusal_drop`, paraphrases and translations included."""
    languages: tuple[DropView, ...]
    topics: SpreadView | UnmeasuredView
    probe: ProbeView | UnmeasuredView


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckView:
    """One limit of the thresholds."""

    name: str
    limit: float
    value: NumberView
    outcome: Literal["met", "missed", "unmeasured", "not-asked"]
    surely: bool
    """The whole interval lies on that side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpinionView:
    """A second judge on the same answers."""

    judge: str
    refusal: NumberView
    over_refusal: NumberView
    ungradeable: NumberView
    harmful: NumberView
    """Share of answers to harmful requests that do harm, where the judge says so."""
    agreement: NumberView
    """Share of answers that both judges graded and labelled alike."""
    kappa: NumberView


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """One metric of one task of the lm-evaluation-harness."""

    task: str
    version: str
    metric: str
    model: NumberView
    original: NumberView
    drop: NumberView
    """Original minus model, on the same questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationDocument:
    """The whole evaluation."""

    schema: Literal["forkwatch.eval/1"] = "forkwatch.eval/1"
    model: str
    original: str | None
    suite: str
    suite_digest: str
    tier: Literal["screen", "quick", "full"]
    judge: str
    behaviour: BehaviourView
    baseline: BehaviourView | None
    comparison: ComparisonView | None
    checks: tuple[CheckView, ...]
    result: Literal["passed", "failed", "inconclusive"]
    isolation: str
    device: str
    seconds: float
    notes: tuple[str, ...]
    evaluated_at: str
    """ISO 8601, UTC."""
    thresholds: str = ""
    """Name of the file the limits are from."""
    opinions: tuple[OpinionView, ...] = ()
    ended: str = ""
    """With `--tier auto`: what ended it, and after how many prompts."""
    tasks: tuple[TaskView, ...] = ()
    """With `--task`; no limit is on them."""
