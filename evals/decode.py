"""Decoding a batch of chats: answers that have ended leave the batch, and keys and values are never recopied.

`generate()` of transformers carries every answer until the longest has ended, and copies the whole cache for
each new token. Where every layer keeps all keys and values, `decode` gives the same tokens without either.
Importing this module imports torch and transformers; only the evaluation child does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LEAVING = 8
"""One in so many answers has ended before the batch is cut: cutting copies the cache."""

PREFILL = 256
"""Tokens that are read in one pass at least: fewer cost more a token."""

WASTE = 8
"""One in so many tokens of a pass may be padding before the chats are read in another."""

Choose = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]
"""Scores [rows, vocabulary] of the next token and the chats they belong to → token ids [rows]."""


def is_plain(model: PreTrainedModel) -> bool:
    """Whether every layer keeps all keys and values: no sliding window, no recurrent state."""
    layers = DynamicCache(config=model.config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """Keys and values in a buffer with room for those to come; `keys` and `values` are views of it."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append along the third axis; all of [rows, heads, tokens, width] so far."""
        start, rows = self.get_seq_length(), key_states.shape[0]
        self._place((key_states, value_states), slice(None), rows, start)
        return self.keys, self.values

    def take(self, rows: slice, of: int, new: tuple[torch.Tensor, torch.Tensor], stop: int) -> None:
        """Put the keys and values of some rows `of` so many where they end at `stop`; zeros before them."""
        self._place(new, rows, of, stop - new[0].shape[2])

    def _place(self, new: tuple[torch.Tensor, torch.Tensor], rows: slice, of: int, start: int) -> None:
        stop = start + new[0].shape[2]
        if self._buffers is None:
            self.lazy_initialization(*new)
            keys, values = (state.new_zeros(of, state.shape[1], self._room, state.shape[3]) for state in new)
            self._buffers = keys, values
        for buffer, state in zip(self._buffers, new, strict=True):
            buffer[rows, :, start:stop] = state
        self.keys, self.values = (buffer[:, :, :stop] for buffer in self._buffers)

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows only."""
        if self._buffers is None:
            return
        stop = self.get_seq_length()
        keys, values = (buffer.index_select(0, rows) for buffer in self._buffers)
        self._buffers = keys, values
        self.keys, self.values = (buffer[:, :, :stop] for buffer in self._buffers)


class RoomyCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """A `DynamicCache` of plain layers with room for `room` tokens."""

    def __init__(self, prefix: Cache, rows: int, room: int) -> None:
        super().__init__(layers=[RoomyLayer(room) for _ in prefix.layers])
        for ours, theirs in zip(self.layers, prefix.layers, strict=True):
            if theirs.get_seq_length():
                ours.update(theirs.keys.expand(rows, -1, -1, -1), theirs.values.expand(rows, -1, -1, -1))

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows only."""
        for layer in self.layers:
            layer.select(rows)


@dataclass(frozen=True, slots=True)
class Ending:
    """When an answer ends."""

    stop: Sequence[int]
    """Tokens that end it."""
    max_new_tokens: int


@dataclass(slots=True)
class _Batch:
    """The chats that are still being answered."""

    chats: list[int]
    """Their numbers."""
    cache: RoomyCache
    mask: torch.Tensor
    """[rows, room]: tokens to attend to; those to come count already."""
    positions: torch.Tensor
    """[rows, 1]: of the last token."""

    def cut(self, rows: Sequence[int]) -> None:
        """Keep these rows only."""
        chosen = torch.tensor(rows, device=self.mask.device)
        self.chats = [self.chats[row] for row in rows]
        self.cache.select(chosen)
        self.mask, self.positions = self.mask[chosen], self.positions[chosen]


def decode(
    model: PreTrainedModel,
    prefix: Cache,
    padded: tuple[torch.Tensor, torch.Tensor],
    ending: Ending,
    choose: Choose,
) -> list[list[int]]:
    """Answer a batch of chats.

    Args:
        model: One with `is_plain` layers.
        prefix: Keys and values of the tokens that all chats begin with, of one row; may be empty.
        padded: Ids and attention mask, [rows, width], padded behind the prefix, on the left.
        ending: When an answer ends.
        choose: Picks the next tokens.

    Returns:
        For each chat its new tokens, the one that ended it included.
    """
    ids, mask = (tensor.to(model.device) for tensor in padded)
    rows, width = ids.shape
    ends, max_new_tokens = frozenset(ending.stop), ending.max_new_tokens
    answers: list[list[int]] = [[] for _ in range(rows)]
    ahead = mask.new_ones(rows, max_new_tokens)
    cache = RoomyCache(prefix, rows, width + max_new_tokens)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    batch = _Batch(list(range(rows)), cache, torch.cat([mask, ahead], dim=1), positions[:, -1:])
    with torch.inference_mode():
        logits = _read(model, prefix, batch, ids, positions)
        for made in range(1, max_new_tokens + 1):
            tokens = choose(logits, batch.chats)
            going = []
            for row, (chat, token) in enumerate(zip(batch.chats, tokens.tolist(), strict=True)):
                if not answers[chat] or answers[chat][-1] not in ends:
                    answers[chat].append(token)
                    if token not in ends:
                        going.append(row)
            if not going or made == max_new_tokens:
                break
            if len(batch.chats) - len(going) >= max(1, len(batch.chats) // LEAVING):
                batch.cut(going)
                tokens = tokens[going]
            batch.positions = batch.positions + 1
            logits = _forward(model, batch, tokens[:, None], batch.positions, width + made)
    return answers


def _read(
    model: PreTrainedModel, prefix: Cache, batch: _Batch, ids: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """Read the prompts, those of like length together; [rows, vocabulary] scores of their first tokens."""
    rows, width = ids.shape
    seen, mask = prefix.get_seq_length(), batch.mask[:, :width]
    scores = []
    for first, last, longest in _passes(mask[:, seen:].sum(dim=1).tolist()):
        part = RoomyCache(prefix, last - first, seen + longest)
        columns = [*range(seen), *range(width - longest, width)]
        output = model(
            input_ids=ids[first:last, width - longest :],
            attention_mask=mask[first:last, columns],
            position_ids=positions[first:last, width - longest :],
            past_key_values=part,
            use_cache=True,
            logits_to_keep=1,
        )
        scores.append(output.logits[:, -1])
        for ours, theirs in zip(batch.cache.layers, part.layers, strict=True):
            new = theirs.keys[:, :, seen:], theirs.values[:, :, seen:]
            ours.take(slice(first, last), rows, new, width)
    return torch.cat(scores)


def _passes(lengths: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """First row, one past the last, and length of each pass over chats, so that little of it is padding."""
    first, longest, total = 0, 0, 0
    for row, length in enumerate(lengths):
        padded = max(longest, length) * (row - first + 1)
        if longest * (row - first) >= PREFILL and (padded - total - length) * WASTE > padded:
            yield first, row, longest
            first, longest, total = row, 0, 0
        longest, total = max(longest, length), total + length
    yield first, len(lengths), longest


def _forward(
    model: PreTrainedModel, batch: _Batch, ids: torch.Tensor, positions: torch.Tensor, length: int
) -> torch.Tensor:
    """Scores of the next token, [rows, vocabulary]."""
    output = model(
        input_ids=ids,
        attention_mask=batch.mask[:, :length],
        position_ids=positions,
        past_key_values=batch.cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits: torch.Tensor = output.logits[:, -1]
    return logits
