"""Multiple choice by likelihood: is the right option the likeliest answer? Nothing is generated or judged.

The likelihood of an option is that of its text as the answer to the question under the original's chat
template, a byte: otherwise the shortest option would win (`acc_norm` of the lm-evaluation-harness). The
question is read once for all its options. Importing this module imports torch and transformers; only the
evaluation child does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from evals.answers import Asker
from evals.decode import RoomyCache, is_plain
from evals.engine import SharedPrefix, answer_logits, padding_id, render_chat, stop_ids, token_logprobs
from evals.interface import NO_CHOICE, Choice, Unmeasured
from evals.memory import in_batches

BATCH = 16
"""Questions a forward pass; their options are as many rows, of a few tokens each."""

MAX_OPTION_TOKENS = 64


def choose(
    asker: Asker, choices: Sequence[Choice], progress: Callable[[str], None]
) -> tuple[tuple[str, bool], ...] | Unmeasured:
    """(question id, whether the likeliest option is the right one), in order.

    Unmeasured where the model gives an option no likelihood that is a number.
    """
    if not choices:
        return NO_CHOICE
    progress(f"choose in {len(choices)} questions")
    chosen: list[tuple[str, bool]] = []
    for choice, logprobs in zip(choices, option_logprobs(asker, choices), strict=True):
        sizes = torch.tensor([max(1, len(option.encode())) for option in choice.options])
        likelihoods = torch.tensor(logprobs) / sizes
        if not torch.isfinite(likelihoods).all():
            return Unmeasured(f"{choice.id}: the likelihood of an option is no number")
        chosen.append((choice.id, int(likelihoods.argmax()) == choice.answer))
    return tuple(chosen)


def option_logprobs(asker: Asker, choices: Sequence[Choice]) -> list[list[float]]:
    """For each question the log-probability, in nats, of each of its options."""
    if not is_plain(asker.model):
        return _one_by_one(asker, choices)
    tokenizer = asker.tokenizer
    asked = [
        _Asked(render_chat(tokenizer, choice.question), [_tokens(asker, option) for option in choice.options])
        for choice in choices
    ]
    prefix = SharedPrefix(asker.model, [one.chat for one in asked])
    order = sorted(range(len(asked)), key=lambda index: len(asked[index].chat))
    found: dict[int, list[float]] = {}
    for chosen, scores in in_batches(
        order, BATCH, lambda part: _score(asker, prefix, [asked[index] for index in part])
    ):
        found.update(zip(chosen, scores, strict=True))
    return [found[index] for index in range(len(asked))]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question and its options, in tokens."""

    chat: list[int]
    options: list[list[int]]


def _tokens(asker: Asker, option: str) -> list[int]:
    return list(asker.tokenizer(option, add_special_tokens=False)["input_ids"])[:MAX_OPTION_TOKENS]


def _score(asker: Asker, prefix: SharedPrefix, asked: Sequence[_Asked]) -> list[list[float]]:
    """One pass over the questions, one over all options behind the keys and values of theirs."""
    model = asker.model
    pad = padding_id(asker.tokenizer, stop_ids(model, asker.tokenizer))
    ids, mask = (tensor.to(model.device) for tensor in prefix.join([one.chat for one in asked], pad))
    options = [option for one in asked for option in one.options]
    owners = torch.tensor([row for row, one in enumerate(asked) for _ in one.options], device=model.device)
    longest = max(1, *map(len, options))
    padded = [option + [pad] * (longest - len(option)) for option in options]
    tokens = torch.tensor(padded, device=model.device)
    cache = RoomyCache(prefix.one, len(asked), ids.shape[1] + longest)
    seen = len(prefix.tokens)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    with torch.inference_mode():
        first = model(
            input_ids=ids[:, seen:],
            attention_mask=mask,
            position_ids=positions[:, seen:],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[owners]
        cache.select(owners)
        # What stands behind an option is padding that no token of the option looks at.
        rest = model(
            input_ids=tokens,
            attention_mask=torch.cat([mask[owners], torch.ones_like(tokens)], dim=1),
            position_ids=positions[owners, -1:] + 1 + torch.arange(longest, device=model.device),
            past_key_values=cache,
            use_cache=True,
        ).logits[:, :-1]
    logits = torch.cat([first, rest], dim=1)
    sums = iter(
        token_logprobs(row[: len(option)], chosen[: len(option)]).sum().item()
        for row, option, chosen in zip(logits, options, tokens, strict=True)
    )
    return [[next(sums) for _ in one.options] for one in asked]


def _one_by_one(asker: Asker, choices: Sequence[Choice]) -> list[list[float]]:
    """A forward pass over question and option for each option, where layers keep other state."""
    pairs = [(choice.question, option) for choice in choices for option in choice.options]
    scored = answer_logits(asker.model, asker.tokenizer, pairs, max_tokens=MAX_OPTION_TOKENS)
    sums = iter(token_logprobs(logits, tokens).sum().item() for logits, tokens in scored)
    return [[next(sums) for _ in choice.options] for choice in choices]
