"""Multiple choice by likelihood: is the right option the likeliest answer? Nothing is generated or judged.

The likelihood of an option is that of its text as the answer to the question under the original's chat
template, a byte: otherwise the shortest option would win (`acc_norm` of the lm-evaluation-harness).
Importing this module imports torch and transformers; only the evaluation child does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evals.answers import Asker
from evals.engine import answer_logits, token_logprobs
from evals.interface import Choice, Outcome, Unmeasured
from evals.metrics import wilson

MAX_OPTION_TOKENS = 64


def choice_accuracy(asker: Asker, choices: Sequence[Choice], progress: Callable[[str], None]) -> Outcome:
    """Share of questions whose likeliest option is the right one; n = questions."""
    if not choices:
        return Unmeasured("the suite has no multiple-choice question")
    progress(f"choose in {len(choices)} questions")
    pairs = [(choice.question, option) for choice in choices for option in choice.options]
    scored = answer_logits(asker.model, asker.tokenizer, pairs, max_tokens=MAX_OPTION_TOKENS)
    scores = iter(
        token_logprobs(logits, tokens).sum().item() / max(1, len(option.encode()))
        for (logits, tokens), (_, option) in zip(scored, pairs, strict=True)
    )
    right = 0
    for choice in choices:
        likelihoods = [next(scores) for _ in choice.options]
        right += likelihoods.index(max(likelihoods)) == choice.answer
    return wilson(right, len(choices))
