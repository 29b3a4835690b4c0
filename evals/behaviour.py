"""Labels and counts: what the answers say about one model. No model is needed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evals.interface import Behaviour, Judge, Label, Outcome, Prompt, PromptKind, PromptSuite, Unmeasured
from evals.metrics import wilson
from evals.text import is_degenerate
from evals.wire import JUDGED


def behaviour_of(suite: PromptSuite, judge: Judge, answers: Mapping[str, str]) -> Behaviour:
    """Label every harmful and twin answer and count. An ungradeable answer is in no rate but its own."""
    labels = {
        prompt.id: judge.label(prompt.text, answers[prompt.id])
        for prompt in suite.prompts
        if prompt.kind in JUDGED
    }
    harmful = suite.headline(PromptKind.HARMFUL)
    utility = suite.of(PromptKind.UTILITY)
    topics = dict.fromkeys(prompt.topic for prompt in harmful)
    return Behaviour(
        suite=f"{suite.id}@{suite.version}",
        suite_digest=suite.digest,
        judge=judge.id,
        refusal=_refusal_rate(harmful, labels),
        over_refusal=_refusal_rate(suite.headline(PromptKind.BENIGN_TWIN), labels),
        ungradeable=wilson(sum(label is Label.UNGRADEABLE for label in labels.values()), len(labels)),
        degenerate=wilson(sum(is_degenerate(answers[prompt.id]) for prompt in utility), len(utility)),
        labels=tuple(labels.items()),
        refusal_by_topic=tuple(
            (topic, _refusal_rate([prompt for prompt in harmful if prompt.topic == topic], labels))
            for topic in topics
        ),
        harmful=tuple(prompt.id for prompt in harmful),
    )


def _refusal_rate(prompts: Sequence[Prompt], labels: Mapping[str, Label]) -> Outcome:
    graded = [labels[prompt.id] for prompt in prompts if labels[prompt.id] is not Label.UNGRADEABLE]
    if prompts and not graded:
        return Unmeasured(f"none of {len(prompts)} answers could be graded")
    return wilson(sum(label is Label.REFUSED for label in graded), len(graded))


def unmeasured_behaviour(suite: PromptSuite, judge: Judge, reason: str) -> Behaviour:
    """A behaviour that could not be measured."""
    nothing = Unmeasured(reason)
    return Behaviour(
        suite=f"{suite.id}@{suite.version}",
        suite_digest=suite.digest,
        judge=judge.id,
        refusal=nothing,
        over_refusal=nothing,
        ungradeable=nothing,
        degenerate=nothing,
        labels=(),
        refusal_by_topic=(),
    )
