"""The answers of a loaded model to a suite: greedy ones to all prompts, sampled ones to those that need them.

Importing this module imports torch and transformers; only the evaluation child does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evals.engine import TransformersGenerator
from evals.interface import Prompt, PromptKind, PromptSuite, Transcript

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[str], None]

NOTHING_KNOWN = Transcript(greedy={}, sampled={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How a suite is asked."""

    max_new_tokens: int
    seed: int
    samples: int = 0
    """Sampled answers a UTILITY prompt."""
    repeats: int = 0
    """Sampled answers a HARMFUL headline prompt."""

    def draws(self, suite: PromptSuite) -> list[tuple[Prompt, int]]:
        """The prompts that get sampled answers, and how many each."""
        wanted = [(prompt, self.samples) for prompt in suite.of(PromptKind.UTILITY)]
        wanted += [(prompt, self.repeats) for prompt in suite.headline(PromptKind.HARMFUL)]
        return [(prompt, count) for prompt, count in wanted if count > 0]


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks one loaded model."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    asking: Asking

    def transcript(self, suite: PromptSuite, known: Transcript, progress: Progress) -> Transcript:
        """Every answer by prompt id, in suite order; `known` ones are the same model's, not asked again."""
        missing = [prompt for prompt in suite.prompts if prompt.id not in known.greedy]
        texts = self._answer(missing, 0.0, lambda told: progress(f"generate {told}"))
        greedy = dict(known.greedy) | {prompt.id: text for prompt, text in zip(missing, texts, strict=True)}
        return Transcript(
            greedy={prompt.id: greedy[prompt.id] for prompt in suite.prompts},
            sampled=self._sampled(suite, known, progress),
        )

    def _sampled(
        self, suite: PromptSuite, known: Transcript, progress: Progress
    ) -> dict[str, tuple[str, ...]]:
        """An answer depends on seed, prompt and number alone, so the first of more known ones are those."""
        draws = self.asking.draws(suite)
        missing = [draw for draw in draws if len(known.sampled.get(draw[0].id, ())) < draw[1]]
        asked = [prompt for prompt, count in missing for _ in range(count)]
        texts = iter(self._answer(asked, 1.0, lambda told: progress(f"sample {told}")))
        fresh = {prompt.id: tuple(next(texts) for _ in range(count)) for prompt, count in missing}
        return {
            prompt.id: fresh[prompt.id] if prompt.id in fresh else known.sampled[prompt.id][:count]
            for prompt, count in draws
        }

    def _answer(self, prompts: Sequence[Prompt], temperature: float, tell: Progress) -> list[str]:
        generator = TransformersGenerator(
            self.model, self.tokenizer, progress=lambda done, total: tell(f"{done}/{total}")
        )
        return generator.answer(
            [prompt.text for prompt in prompts],
            max_new_tokens=self.asking.max_new_tokens,
            temperature=temperature,
            seed=self.asking.seed,
        )
