"""Sampling and teacher forcing of a few prompts many times: prompts of one length, so nothing is padded.

Same arithmetic as `evals.engine`, but the prompt's keys and values are computed once for all its answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from evals.decode import RoomyCache

FIELDS = ("logp", "entropy", "variance", "rank", "above")
_NEVER = -1e4
"""A logit that no sum of probabilities sees, and finite, so that 0 times its logarithm is 0."""
_TOKENS = 256
"""Rows of the vocabulary worked on at a time."""


@dataclass(frozen=True, slots=True)
class Draw:
    """How answers are drawn. Temperature 0 is greedy."""

    temperature: float = 1.0
    top_p: float = 1.0


def expanded(model: PreTrainedModel, chats: Sequence[Sequence[int]], each: int, room: int) -> RoomyCache:
    """Keys and values of all but the last token of each chat, each chat `each` times."""
    ids = torch.tensor(chats)[:, :-1]
    prefix = DynamicCache(config=model.config)
    model(input_ids=ids, past_key_values=prefix, use_cache=True, logits_to_keep=1)
    cache = RoomyCache(DynamicCache(config=model.config), len(chats) * each, room)
    for ours, theirs in zip(cache.layers, prefix.layers, strict=True):
        ours.update(theirs.keys.repeat_interleave(each, 0), theirs.values.repeat_interleave(each, 0))
    return cache


def choose(logits: torch.Tensor, draw: Draw, generator: torch.Generator) -> torch.Tensor:
    """One token a row, (rows,), by inverting the cumulative distribution."""
    if draw.temperature == 0:
        return logits.float().argmax(dim=1)
    probabilities = torch.softmax(logits.float() / draw.temperature, dim=1)
    if draw.top_p < 1:
        ordered, order = probabilities.sort(dim=1, descending=True)
        ordered[ordered.cumsum(dim=1) - ordered >= draw.top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter_(1, order, ordered)
    heights = probabilities.cumsum(dim=1)
    at = torch.rand(len(logits), 1, generator=generator) * heights[:, -1:]
    return torch.searchsorted(heights, at, right=True)[:, 0].clamp(max=logits.shape[1] - 1)


@torch.inference_mode()
def sample(  # noqa: PLR0913 - how, how many, how long
    model: PreTrainedModel,
    chats: Sequence[Sequence[int]],
    each: int,
    draw: Draw,
    *,
    new_tokens: int,
    stop: Sequence[int],
    seed: int,
    attention: str = "eager",
    seen: list[np.ndarray] | None = None,
) -> list[list[list[int]]]:
    """For each chat (all of one length) `each` answers of at most `new_tokens` tokens, without their end.

    `seen` collects `FIELDS` of the tokens, (fields, rows) a step, at temperature 1; those of a token that
    ends an answer and of what follows it mean nothing.
    """
    model.set_attn_implementation(attention)  # eager is a fifth faster here for one token a row
    generator = torch.Generator().manual_seed(seed)
    rows = len(chats) * each
    cache = expanded(model, chats, each, len(chats[0]) + new_tokens)
    last = torch.tensor([chat[-1] for chat in chats]).repeat_interleave(each)
    ended = torch.zeros(rows, dtype=torch.bool)
    made = []
    for _ in range(new_tokens):
        logits = model(
            input_ids=last[:, None], past_key_values=cache, use_cache=True, logits_to_keep=1
        ).logits
        last = choose(logits[:, -1], draw, generator)
        if seen is not None:
            at = range(0, rows, _TOKENS)
            parts = [(logits[i : i + _TOKENS, -1], last[i : i + _TOKENS]) for i in at]
            seen.append(np.concatenate([statistics(*part, stop, full=True) for part in parts], axis=1))
        made.append(torch.where(ended, torch.tensor(-1), last))
        ended |= torch.isin(last, torch.tensor(stop))
        if ended.all():
            break
    tokens = torch.stack(made, dim=1).tolist()
    answers = [[t for t in row if t >= 0 and t not in stop] for row in tokens]
    return [answers[i : i + each] for i in range(0, rows, each)]


def statistics(logits: torch.Tensor, tokens: torch.Tensor, stop: Sequence[int], *, full: bool) -> np.ndarray:
    """`FIELDS` (or only the first) of every token, (fields, tokens), from logits (tokens, vocabulary).

    Conditional on the answer going on: tokens that end it are masked out, as the product does.
    """
    going_on = logits.float()
    going_on[:, list(stop)] = _NEVER
    log_p = torch.log_softmax(going_on, dim=1)
    chosen = log_p.gather(1, tokens[:, None])
    if not full:
        return chosen.T.numpy()
    p = log_p.exp()
    more = log_p > chosen
    above = (p * more).sum(dim=1)
    weighted = p.mul_(log_p)
    entropy = -weighted.sum(dim=1)
    variance = weighted.mul_(log_p).sum(dim=1) - entropy**2
    return torch.stack([chosen[:, 0], entropy, variance, more.sum(dim=1).float(), above]).numpy()


@torch.inference_mode()
def score(
    model: PreTrainedModel,
    chats: Sequence[Sequence[int]],
    answers: Sequence[Sequence[Sequence[int]]],
    stop: Sequence[int],
    *,
    full: bool,
) -> list[np.ndarray]:
    """Teacher forcing of as many answers to each chat (all of one length); for each (fields, tokens)."""
    model.set_attn_implementation("sdpa")
    rows = [(chat, row) for chat, those in zip(chats, answers, strict=True) for row in those]
    longest = max(1, *(len(row) for _, row in rows))
    ids = torch.tensor([[chat[-1], *row, *[0] * (longest - len(row))][:longest] for chat, row in rows])
    cache = expanded(model, chats, len(answers[0]), len(chats[0]) + longest)
    states = model.model(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state
    kept = torch.cat([state[: len(row)] for state, (_, row) in zip(states, rows, strict=True)])
    flat = torch.tensor([token for _, row in rows for token in row], dtype=torch.long)
    parts = [
        statistics(model.lm_head(kept[at : at + _TOKENS]), flat[at : at + _TOKENS], stop, full=full)
        for at in range(0, len(flat), _TOKENS)
    ]
    values = np.concatenate(parts, axis=1) if parts else np.zeros((len(FIELDS) if full else 1, 0), np.float32)
    return np.split(values, np.cumsum([len(row) for _, row in rows])[:-1], axis=1)
