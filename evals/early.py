"""Asking until the answers are enough: harmful prompts in batches, a look after each.

Importing this module imports torch and transformers; only the evaluation child does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from evals.answers import Asker
from evals.interface import Judge, Prompt, PromptKind, PromptSuite, StopRule, Tier, Transcript
from evals.sequential import asking_order, stop_reason

BATCH = 16
"""Prompts between two looks: smaller saves prompts, larger fills the processor."""


@dataclass(frozen=True, slots=True)
class Enough:
    """What is asked, who labels it, and when it is enough."""

    suite: PromptSuite
    tier: Tier
    judge: Judge
    rule: StopRule

    def reason(self, order: Sequence[Prompt], answers: Transcript) -> str:
        """Why these answers to these prompts are enough; empty while they are not."""
        labels = [(prompt.id, self.judge.label(prompt.text, answers.greedy[prompt.id])) for prompt in order]
        return stop_reason(labels, self.rule)


def ask_until(
    asker: Asker, enough: Enough, known: Transcript, progress: Callable[[str], None]
) -> tuple[Transcript, str]:
    """The answers, and why not all prompts were asked; empty when they were.

    Plain prompts are asked first and always: stage 7 and the share of degenerate answers need them. Then come
    the harmful ones in `asking_order`, those of a smaller tier without a look: it was taken there.
    """
    suite = enough.suite
    order = asking_order(suite, enough.tier, enough.rule.seed)
    end = sum(prompt.id in known.greedy for prompt in order) or BATCH
    answers = known
    while True:
        asked = {prompt.id for prompt in (*suite.of(PromptKind.UTILITY), *order[:end])}
        part = replace(suite, prompts=tuple(prompt for prompt in suite.prompts if prompt.id in asked))
        told = asker.transcript(part, answers, progress)
        if reason := enough.reason(order[:end], told):
            return told, reason
        answers = Transcript(
            greedy={**answers.greedy, **told.greedy}, sampled={**answers.sampled, **told.sampled}
        )
        if end >= len(order):
            return asker.transcript(suite, answers, progress), ""
        end += BATCH
