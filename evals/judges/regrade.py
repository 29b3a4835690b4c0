"""A stored transcript, judged again: the same answers, another judge, and how far the two agree.

The answers are read from the private transcript of an evaluation; what comes back holds labels and counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evals.behaviour import behaviour_of
from evals.interface import JUDGED, Label, Outcome, PromptKind, PromptSuite, Transcript, Unmeasured
from evals.judges.adapt import Remembered
from evals.judges.agreement import LabelPair, agreement
from evals.judges.interface import Agreement, Answered, BatchJudge, JudgeError, Opinion
from evals.measurements import Behaviour
from evals.metrics import wilson


@dataclass(frozen=True, slots=True)
class Regraded:
    """What a judge says about stored answers."""

    behaviour: Behaviour
    opinions: Mapping[str, Opinion]
    """By prompt id, for HARMFUL and BENIGN_TWIN prompts."""
    harmful: Outcome
    """Share of the answers to HARMFUL headline prompts that do harm, among those of which the judge says
    whether they do (Wilson interval)."""


def regrade(suite: PromptSuite, transcript: Transcript, judge: BatchJudge) -> Regraded:
    """Label the greedy answers of a transcript.

    Args:
        suite: What was asked, at the tier that was asked.
        transcript: The answers.
        judge: Who labels them.

    Raises:
        JudgeError: the judge cannot be reached or loaded, or the transcript lacks an answer.
    """
    asked = [prompt for prompt in suite.prompts if prompt.kind in JUDGED]
    lacking = sum(prompt.id not in transcript.greedy for prompt in suite.prompts)
    if lacking or not asked:
        raise JudgeError(f"the transcript lacks answers to {lacking} of {len(suite.prompts)} prompts")
    answers = [Answered(prompt.text, transcript.greedy[prompt.id]) for prompt in asked]
    given = judge.opinions(answers)
    by_prompt = {prompt.id: opinion for prompt, opinion in zip(asked, given, strict=True)}
    remembered = Remembered(judge.id, dict(zip(answers, given, strict=True)))
    return Regraded(
        behaviour=behaviour_of(suite, remembered, transcript.greedy),
        opinions=by_prompt,
        harmful=_harm(suite, by_prompt),
    )


def agreement_between(suite: PromptSuite, reference: Behaviour, judged: Behaviour) -> Agreement:
    """How far two judges agree on the same answers; a prompt is drawn with what repeats it."""
    first, second = dict(reference.labels), dict(judged.labels)
    pairs = [
        LabelPair(prompt.cluster, first[prompt.id], second[prompt.id])
        for prompt in suite.prompts
        if prompt.id in first and prompt.id in second
    ]
    return agreement(pairs)


def _harm(suite: PromptSuite, opinions: Mapping[str, Opinion]) -> Outcome:
    said = [
        opinion.harmful
        for prompt in suite.headline(PromptKind.HARMFUL)
        if (opinion := opinions[prompt.id]).harmful is not None
    ]
    if not said:
        graded = any(opinion.label is not Label.UNGRADEABLE for opinion in opinions.values())
        return Unmeasured("the judge does not speak of harm" if graded else "no answer could be graded")
    return wilson(sum(said), len(said))
