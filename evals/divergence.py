"""Divergence from the original, teacher-forced on its own answers to the plain prompts.

Importing this module imports torch and transformers; only the evaluation child does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from evals.answers import Asker
from evals.engine import answer_logits, token_divergence, token_logprobs
from evals.interface import Outcome, PromptKind, PromptSuite, Transcript, Unmeasured
from evals.metrics import at_least, exponential, mean_interval

SCORED_TOKENS = 48
"""Answer tokens compared with the original at most; 32 to 64 show what the first alone hides."""

LOGIT_BYTES = 1 << 30
"""Memory for the original's logits: 40 answers × 40 tokens × 49 152 words in bf16 take 157 MB."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What the original predicts on its own answers."""

    pairs: tuple[tuple[str, str], ...]
    logits: tuple[torch.Tensor, ...]
    """For each pair, [tokens, vocabulary]."""
    max_tokens: int


def reference_of(asker: Asker, suite: PromptSuite, original: Transcript) -> Reference | Unmeasured:
    """The original's logits on its own greedy utility answers, while the model holds its values."""
    utility = suite.of(PromptKind.UTILITY)
    answered = [(prompt.text, original.greedy.get(prompt.id, "")) for prompt in utility]
    # By length, so that a batch has little padding.
    pairs = tuple(sorted((pair for pair in answered if pair[1]), key=lambda pair: sum(map(len, pair))))
    if not pairs:
        return Unmeasured("the original answered no utility prompt")
    model = asker.model
    row_bytes = model.config.get_text_config().vocab_size * model.dtype.itemsize
    affordable = LOGIT_BYTES // (len(pairs) * row_bytes)
    max_tokens = min(SCORED_TOKENS, asker.asking.max_new_tokens, max(1, affordable))
    logits = tuple(row for row, _ in answer_logits(model, asker.tokenizer, pairs, max_tokens=max_tokens))
    return Reference(pairs, logits, max_tokens)


def divergence(reference: Reference | Unmeasured, asker: Asker) -> tuple[Outcome, Outcome]:
    """KL per token and perplexity ratio; the unit of both intervals is the prompt, not the token."""
    if isinstance(reference, Unmeasured):
        return reference, reference
    divergences: list[float] = []
    losses: list[float] = []
    scored = answer_logits(asker.model, asker.tokenizer, reference.pairs, max_tokens=reference.max_tokens)
    for ours, (theirs, tokens) in zip(reference.logits, scored, strict=True):
        if len(tokens) == 0:
            continue
        divergences.append(token_divergence(ours, theirs).mean().item())
        loss = token_logprobs(ours, tokens) - token_logprobs(theirs, tokens)
        losses.append(loss.mean().item())
    return at_least(mean_interval(divergences), 0.0), exponential(mean_interval(losses))
