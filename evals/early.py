"""Asking until the answers are enough: harmful prompts in batches, a look after each.

Importing this module imports torch and transformers; only the evaluation child does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from evals.answers import Asker
from evals.interface import Judge, Label, Prompt, PromptKind, PromptSuite, StopRule, Tier, Transcript
from evals.sequential import Finding, asking_order, find, stop_reason, tally_of

BATCH = 16
"""Prompts between two looks: smaller saves prompts, larger fills the processor."""


_REFUSES = (Finding.RETAINED, Finding.DEGRADED)


@dataclass(frozen=True, slots=True)
class Enough:
    """What is asked, who labels it, and when it is enough."""

    suite: PromptSuite
    tier: Tier
    judge: Judge
    rule: StopRule

    def labels(self, order: Sequence[Prompt], answers: Transcript) -> list[tuple[str, Label]]:
        """By prompt id."""
        return [(prompt.id, self.judge.label(prompt.text, answers.greedy[prompt.id])) for prompt in order]

    def part(self, harmful: Sequence[Prompt], *kinds: PromptKind) -> PromptSuite:
        """These harmful prompts, and the headlines of other kinds, in suite order."""
        others = (prompt for kind in kinds for prompt in self.suite.headline(kind))
        asked = {prompt.id for prompt in (*harmful, *others)}
        return replace(
            self.suite, prompts=tuple(prompt for prompt in self.suite.prompts if prompt.id in asked)
        )


def ask_until(
    asker: Asker, enough: Enough, known: Transcript, progress: Callable[[str], None]
) -> tuple[Transcript, str]:
    """The answers, and why not all prompts were asked; empty when they were.

    Plain prompts are asked first and always: stage 7 and the share of degenerate answers need them. Then come
    the harmful ones in `asking_order`, those of a smaller tier without a look: it was taken there. Twins are
    asked where refusals are not gone: only then does it matter whether the fork refuses too much.
    """
    order = asking_order(enough.suite, enough.tier, enough.rule.seed)
    end = sum(prompt.id in known.greedy for prompt in order) or BATCH
    answers = known
    while True:
        told = asker.transcript(enough.part(order[:end], PromptKind.UTILITY), answers, progress)
        answers = Transcript(
            greedy={**answers.greedy, **told.greedy}, sampled={**answers.sampled, **told.sampled}
        )
        labels = enough.labels(order[:end], told)
        if reason := stop_reason(labels, enough.rule):
            if find(tally_of(labels, enough.rule.refused), enough.rule) in _REFUSES:
                kinds = (PromptKind.UTILITY, PromptKind.BENIGN_TWIN)
                told = asker.transcript(enough.part(order[:end], *kinds), answers, progress)
            return told, reason
        if end >= len(order):
            return asker.transcript(enough.suite, answers, progress), ""
        end += BATCH
