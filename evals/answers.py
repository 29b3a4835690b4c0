"""The answers of a loaded model to a suite: greedy ones to all, sampled ones to the plain prompts.

Importing this module imports torch and transformers; only the evaluation child does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from evals.engine import TransformersGenerator
from evals.interface import EvalRequest, PromptKind, PromptSuite, Transcript

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[str], None]


def answers(
    request: EvalRequest,
    suite: PromptSuite,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress,
) -> Transcript:
    """Greedy answers to every prompt, `samples` sampled ones to the plain prompts, by prompt id."""

    def generator(what: str) -> TransformersGenerator:
        return TransformersGenerator(
            model, tokenizer, progress=lambda done, total: progress(f"{what} {done}/{total}")
        )

    greedy = generator("generate").answer(
        [prompt.text for prompt in suite.prompts],
        max_new_tokens=request.max_new_tokens,
        temperature=0.0,
        seed=request.seed,
    )
    utility = suite.of(PromptKind.UTILITY)
    sampled = generator("sample").answer(
        [prompt.text for prompt in utility for _ in range(request.samples)],
        max_new_tokens=request.max_new_tokens,
        temperature=1.0,
        seed=request.seed,
    )
    rows = [sampled[i * request.samples : (i + 1) * request.samples] for i in range(len(utility))]
    return Transcript(
        greedy={prompt.id: text for prompt, text in zip(suite.prompts, greedy, strict=True)},
        sampled={prompt.id: tuple(row) for prompt, row in zip(utility, rows, strict=True)},
    )
