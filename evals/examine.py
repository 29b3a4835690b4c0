"""What is measured of one loaded model, be it the original or holds it a fork's values.

Importing this module imports torch and transformers; only the evaluation child does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from evals.answers import NOTHING_KNOWN, Asker
from evals.behaviour import Extent, behaviour_of, unmeasured_behaviour
from evals.choices import choose
from evals.divergence import Reference, divergence, reference_of
from evals.early import Enough, ask_until
from evals.interface import Judge, Outcome, PromptSuite, StopRule, Tier, Transcript, Unmeasured
from evals.measurements import Behaviour

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Examined:
    """The measurements of one model, and the answers that they come from."""

    behaviour: Behaviour
    kl_per_token: Outcome
    perplexity_ratio: Outcome
    transcript: Transcript


@dataclass(frozen=True, slots=True)
class Bench:
    """A loaded original, whose values may be exchanged between two looks, and what it is asked."""

    asker: Asker
    suite: PromptSuite
    """What the tier asks."""
    tier: Tier
    judge: Judge
    stop: StopRule | None = None

    def transcript(self, known: Transcript, progress: Progress) -> Transcript:
        """The answers of what the model holds now."""
        return self.asker.transcript(self.suite, known, progress)

    def reference(self, original: Transcript, progress: Progress) -> Reference | Unmeasured:
        """What others are compared with; the model must hold the original's values."""
        progress("score the original")
        return reference_of(self.asker, self.suite, original)

    def examine(
        self,
        reference: Reference | Unmeasured,
        progress: Progress,
        known: Transcript = NOTHING_KNOWN,
    ) -> Examined:
        """Divergence, answers, labels and choices of what the model holds now."""
        if isinstance(reference, Reference):
            progress("score the fork")
        kl_per_token, perplexity_ratio = divergence(reference, self.asker)
        transcript, stopped = self._ask(known, progress)
        extent = Extent(
            tier=self.tier,
            chosen=choose(self.asker, self.suite.choices, progress),
            stopped=stopped,
            sampled=transcript.sampled,
        )
        return Examined(
            behaviour=behaviour_of(self.suite, self.judge, transcript.greedy, extent),
            kl_per_token=kl_per_token,
            perplexity_ratio=perplexity_ratio,
            transcript=transcript,
        )

    def _ask(self, known: Transcript, progress: Progress) -> tuple[Transcript, str]:
        """The answers, and why not all prompts were asked; empty when they were."""
        if self.stop is None:
            return self.transcript(known, progress), ""
        enough = Enough(self.suite, self.tier, self.judge, self.stop)
        return ask_until(self.asker, enough, known, progress)

    def unmeasured(self, reason: str) -> Examined:
        """Nothing, and why."""
        behaviour = unmeasured_behaviour(self.suite, self.judge, reason)
        nothing = Unmeasured(reason)
        behaviour = replace(behaviour, choice=nothing, tier=self.tier)
        return Examined(behaviour, nothing, nothing, NOTHING_KNOWN)
