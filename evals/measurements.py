"""What was measured: one model's behaviour, and a fork's held against its original's. Values only.

Every number is `Measured` or `Unmeasured` with a reason (`evals.interface`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from evals.interface import NO_CHOICE, Isolation, Label, Outcome, PromptKind, Tier, Unmeasured

NOT_COMPARED = Unmeasured("not compared")


NOT_ASKED = Unmeasured("not asked for")


class SafetyStatus(StrEnum):
    """What happened to refusals, relative to the original."""

    RETAINED = "retained"
    DEGRADED = "degraded"
    REMOVED = "removed"
    NOT_MEASURED = "not-measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Counts of the answers to one kind of prompt, in one topic and language; paraphrases are left out."""

    kind: PromptKind
    topic: str
    language: str
    refused: int
    graded: int
    asked: int
    prompts: tuple[str, ...] = ()
    """Ids of those that were asked, in suite order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """Whether the label of an answer survives other words and other draws."""

    paraphrase_flips: Outcome
    """Share of (prompt, paraphrase) pairs, both graded, whose labels differ; n = pairs, interval clustered by
    prompt."""
    seed_flips: Outcome
    """Share of prompts whose sampled answers do not all have one label; n = prompts with two
    graded or more."""
    samples: int
    """Sampled answers a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """Measurements of one model on one suite."""

    suite: str
    """`<suite id>@<version>`"""
    suite_digest: str
    judge: str
    refusal: Outcome
    """Share of graded answers to HARMFUL headline prompts that refuse (Wilson interval)."""
    over_refusal: Outcome
    """Share of graded answers to BENIGN_TWIN headline prompts that refuse (Wilson interval)."""
    ungradeable: Outcome
    """Share of all judged answers that could not be graded; such an answer is in no other rate."""
    degenerate: Outcome
    """Share of UTILITY answers that are empty or loop."""
    labels: tuple[tuple[str, Label], ...]
    """(prompt id, label) for HARMFUL and BENIGN_TWIN prompts, in suite order."""
    refusal_by_topic: tuple[tuple[str, Outcome], ...]
    harmful: tuple[str, ...] = ()
    """Ids of the HARMFUL headline prompts among `labels`: those that a fork and its original are
    compared on."""
    tier: Tier = Tier.FULL
    cells: tuple[Cell, ...] = ()
    """By kind, topic and language, in suite order."""
    choice: Outcome = NO_CHOICE
    """Share of multiple-choice questions whose likeliest option is the right one (Wilson interval)."""
    chosen: tuple[tuple[str, bool], ...] = ()
    """(question id, whether its likeliest option is the right one), in suite order."""
    stability: Stability | Unmeasured = NOT_ASKED
    variant_of: tuple[tuple[str, str], ...] = ()
    """(id, id of the prompt that it repeats) of each variant among `labels`; one cluster of a bootstrap."""
    stopped: str = ""
    """Why not all prompts of the tier were asked, in words; empty when they were. Refusal rates then carry a
    confidence sequence, which holds whenever one stops, in place of a Wilson interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageDrop:
    """What happened to refusals of the harmful prompts that were translated into one language."""

    language: str
    drop: Outcome
    """Original rate minus fork rate on the same prompts, with a paired 95 % interval."""
    mcnemar_p: Outcome
    holm_p: Outcome
    """The same, adjusted over all languages (Holm 1979); n = discordant pairs, low = high = p."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpread:
    """Whether refusals were lost evenly over topics, on the headline prompts."""

    drops: tuple[tuple[str, Outcome], ...]
    """Original rate minus fork rate by topic. To look at: ten prompts carry no claim about one topic."""
    least: Outcome
    """The smallest drop of any topic; n = topics, interval from simultaneous ones over topics."""
    spread: Outcome
    """Largest minus smallest drop of any topic, likewise."""
    uneven_p: Outcome
    """Permutation test of "each topic lost the same share of the original's refusals"; n = those refusals,
    low = high = p."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A fork against its original on the same prompts."""

    status: SafetyStatus
    reason: str
    """Why not measured, or the deciding numbers in words."""
    mcnemar_p: Outcome
    """Exact two-sided McNemar on HARMFUL prompts graded twice; n = discordant pairs, low = high = p."""
    refusal_drop: Outcome
    """Original rate minus fork rate on the same prompts, with a paired 95 % interval."""
    kl_per_token: Outcome
    """Mean KL(original ‖ fork), nats per token, over the original's own UTILITY answers; n = prompts."""
    perplexity_ratio: Outcome
    """Fork perplexity over original perplexity on the same tokens; n = prompts."""
    over_refusal_drop: Outcome = NOT_COMPARED
    """Original rate minus fork rate on the same BENIGN_TWIN headlines; below 0: the fork refuses more."""
    variants_drop: Outcome = NOT_COMPARED
    """As `refusal_drop` over all HARMFUL prompts, paraphrases and translations too; its bootstrap interval
    draws a prompt with all that repeats it."""
    languages: tuple[LanguageDrop, ...] = ()
    """The languages other than that of the headline, in suite order."""
    topics: TopicSpread | Unmeasured = NOT_COMPARED
    choice_drop: Outcome = NOT_COMPARED
    """Original accuracy minus fork accuracy on the same multiple-choice questions, paired."""
    degenerate_rise: Outcome = NOT_COMPARED
    """Share of degenerate UTILITY answers of the fork minus that of the original."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The refusal probe (`evals.probe`): log-odds that an answer would begin like the original's refusals."""

    auroc: Outcome
    """On the original: how well it tells prompts that it refuses from those that it answers; n = prompts."""
    shift: Outcome
    """Fork minus original on the HARMFUL prompts that the original refuses, in nats: mean, t interval."""
    covered: Outcome
    """Share of those whose refusal begins as the ones do that the probe knows; it is blind to the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScore:
    """One metric of one task of the lm-evaluation-harness (`evals.harness`)."""

    task: str
    version: str
    metric: str
    model: Outcome
    """Mean over questions: Wilson interval where each is 0 or 1, else Student's t."""
    original: Outcome
    drop: Outcome
    """Original minus model on the same questions, paired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """What the child process reports for one model."""

    behaviour: Behaviour
    kl_per_token: Outcome
    perplexity_ratio: Outcome
    transcript: Path
    """0600 JSON file with the raw answers; never published. `outputs` reads the sampled ones from it."""
    isolation: Isolation
    device: str
    seconds: float
    notes: tuple[str, ...] = ()
    """What had to be ignored, in words."""
    gaps: tuple[str, ...] = ()
    """What could not be confined, in words; none when sandboxed."""
    calibration: Path | None = None
    """Of an original: how the judge was fitted to it (`evals.fitted`), for the evaluation of its forks."""
    probe: Probe | Unmeasured = NOT_ASKED
