"""Generation and teacher forcing with transformers, under the original's tokenizer and chat template.

Importing this module imports torch and transformers; only the evaluation child does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

import torch
from jinja2 import TemplateError
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList

from evals.decode import Ending, RoomyCache, decode, is_plain
from evals.memory import in_batches
from evals.packed import packed
from evals.quiet import quiet
from evals.seeds import row_seeds

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 64
"""Chats a batch: three times the tokens a second of batch 16 on two CPU cores (SmolLM2-135M, bf16)."""

GPU_BATCH = 256
"""Chats a batch on a GPU, where a step costs the reading of all weights, however many chats share it."""

SCORING_BATCH = 8
"""Chats a batch when every token's logits are kept."""

PACKED_FROM = 8
"""Steps for which a model's weights are packed, which takes as long as so many gain (SmolLM2-135M, bf16)."""

NUCLEUS = 512
"""Tokens that a nucleus is sought among, before all are put in order, which takes ten times as long."""

TEMPLATE_OPTIONS = {"enable_thinking": False, "date_string": "01 Jan 2025"}
"""Known switches of chat templates: no hidden reasoning, no clock. A template that has none ignores them."""


def render_chat(tokenizer: PreTrainedTokenizerBase, prompt: str, system: str | None = None) -> list[int]:
    """Token ids of one user turn and the header of the answer; plain text where there is no chat template.

    A system prompt goes before the turn; where the template has no place for one, or there is no template, it
    begins the turn.
    """
    if not tokenizer.chat_template:
        return list(tokenizer(prompt if system is None else f"{system}\n\n{prompt}")["input_ids"])
    turns = [{"role": "user", "content": prompt}]
    if system is not None:
        turns = _with_system(tokenizer, prompt, system)
    text = tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True, **TEMPLATE_OPTIONS
    )
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _with_system(tokenizer: PreTrainedTokenizerBase, prompt: str, system: str) -> list[dict[str, str]]:
    """The turns, by what the template does with a system prompt: some raise an error, some drop it."""
    turns = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, **TEMPLATE_OPTIONS)
    except TemplateError:
        text = ""
    return turns if system.strip() in text else [{"role": "user", "content": f"{system}\n\n{prompt}"}]


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token id that ends an answer, according to the original's configuration and tokenizer."""
    found: set[int] = set()
    for ids in (model.generation_config.eos_token_id, model.config.eos_token_id, tokenizer.eos_token_id):
        found.update([ids] if isinstance(ids, int) else ids or [])
    return sorted(found)


def left_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, both [rows, longest], padded on the left."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


class SharedPrefix:
    """The tokens that all chats of a call begin with, computed once; half of a short chat is header.

    Used only where every layer keeps all keys and values: a sliding window or a recurrent state would see the
    padding between prefix and prompt.
    """

    def __init__(self, model: PreTrainedModel, chats: Sequence[Sequence[int]]) -> None:
        columns = zip(*(chat[:-1] for chat in chats), strict=False)
        longest = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
        self.tokens: list[int] = longest if is_plain(model) and len(chats) > 1 else []
        self.one = DynamicCache(config=model.config)
        """Keys and values of the prefix, of one row; empty where there is nothing to share."""
        if self.tokens:
            ids = torch.tensor([self.tokens], device=model.device)
            with torch.inference_mode():
                model(input_ids=ids, past_key_values=self.one, use_cache=True, logits_to_keep=1)

    def join(self, chats: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask, [chats, longest]: the prefix, then the rest of each chat padded on the left."""
        length = len(self.tokens)
        ids, mask = left_padded([chat[length:] for chat in chats], pad)
        prefix = torch.tensor(self.tokens, dtype=ids.dtype).expand(len(chats), length)
        return torch.cat([prefix, ids], dim=1), torch.cat([torch.ones_like(prefix), mask], dim=1)


class SeededNoise:
    """Turns greedy decoding into sampling at a temperature: argmax(logits / T + Gumbel noise).

    The maximum of logits plus Gumbel noise is an exact sample of their softmax (Gumbel 1954). Each row draws
    from its own generator, so an answer depends on the seed and on its prompt, not on the order or the batch.
    With `top_p` below 1 only the nucleus is drawn from (Holtzman et al., arXiv 1904.09751).
    """

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float = 1.0) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._temperature = temperature
        self._top_p = top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Noisy scores of the next token of every row, [rows, vocabulary]."""
        del input_ids
        return self.noisy(scores, range(len(self._generators)))

    def noisy(self, scores: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Noisy scores of the next token, [rows, vocabulary], of the rows with these numbers."""
        noise = torch.empty(scores.shape, dtype=torch.float32)
        for number, row in zip(rows, noise, strict=True):
            row.exponential_(generator=self._generators[number])
        tempered = scores.float() / self._temperature
        if self._top_p < 1:
            tempered = nucleus(tempered, self._top_p)
        return tempered - noise.log_().to(scores.device)


def nucleus(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """The scores [rows, vocabulary], -inf outside the fewest tokens that hold `top_p` of the probability."""
    probabilities = scores.softmax(dim=-1)
    count = min(NUCLEUS, scores.shape[-1])
    highest = probabilities.topk(count, dim=-1).values
    if bool((highest.sum(dim=-1) < top_p).any()):  # a flat prediction: all tokens in order
        highest = probabilities.sort(dim=-1, descending=True).values
    before = highest.cumsum(dim=-1) - highest
    inside = (before < top_p).sum(dim=-1, keepdim=True)  # at least 1: nothing comes before the first
    least = highest.gather(-1, inside - 1)
    return scores.masked_fill(probabilities < least, -torch.inf)


@dataclass(frozen=True, slots=True)
class Draw:
    """How answers are drawn."""

    max_new_tokens: int
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0


class TransformersGenerator:
    """A `Generator` over a loaded model: left padding, batches of like length, halved when out of memory."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch: int | None = None,
        progress: Callable[[int, int], None] = quiet,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._batch = batch or (GPU_BATCH if model.device.type == "cuda" else BATCH)
        self._progress = progress
        self._stop = stop_ids(model, tokenizer)
        self._pad = padding_id(tokenizer, self._stop)

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return frozenset(self._stop)

    def answer(
        self, prompts: Sequence[str], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        """One answer a prompt, in order. Temperature 0 is greedy."""
        chats = [render_chat(self._tokenizer, prompt) for prompt in prompts]
        draw = Draw(max_new_tokens, temperature)
        tokens = self.draw(chats, row_seeds(prompts, seed), draw)
        return [text.strip() for text in self._texts(tokens)]

    def complete(self, rows: Sequence[list[int]], *, max_new_tokens: int) -> list[str]:
        """How each row of token ids most likely goes on, in order."""
        return self._texts(self.draw(rows, [], Draw(max_new_tokens)))

    def _texts(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        return [self._tokenizer.decode(row, skip_special_tokens=True) for row in tokens]

    def draw(self, chats: Sequence[Sequence[int]], seeds: Sequence[int], draw: Draw) -> list[list[int]]:
        """The tokens of one answer a chat, in order, the one that ended it included.

        A seed each is needed where the temperature is not 0.
        """
        prefix = SharedPrefix(self._model, chats)
        order = sorted(range(len(chats)), key=lambda index: (len(chats[index]), index))
        answers: list[list[int]] = [[] for _ in chats]
        done = 0

        def work(chosen: Sequence[int]) -> list[list[int]]:
            noise = [seeds[index] for index in chosen] if draw.temperature > 0 else []
            return self._generate(prefix, [chats[index] for index in chosen], noise, draw)

        steps = draw.max_new_tokens * -(-len(chats) // self._batch)
        with packed(self._model) if steps >= PACKED_FROM else nullcontext():
            for chosen, found in in_batches(order, self._batch, work):
                for index, tokens in zip(chosen, found, strict=True):
                    answers[index] = tokens
                done += len(chosen)
                self._progress(done, len(order))
        return answers

    def _generate(
        self, prefix: SharedPrefix, chats: Sequence[Sequence[int]], seeds: Sequence[int], draw: Draw
    ) -> list[list[int]]:
        """The new tokens of each chat; what lies behind its end does not count."""
        max_new_tokens = draw.max_new_tokens
        noise = SeededNoise(seeds, draw.temperature, draw.top_p) if seeds else None
        padded = prefix.join(chats, self._pad)
        if not is_plain(self._model):
            return self._generate_all(padded, max_new_tokens, noise)

        def choose(scores: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
            noisy = scores if noise is None else noise.noisy(scores, rows)
            return noisy.max(
                dim=-1
            ).indices  # the first of equals, as argmax, in a seventh of the time in bf16

        return decode(self._model, prefix.one, padded, Ending(self._stop, max_new_tokens), choose)

    def _generate_all(
        self, padded: tuple[torch.Tensor, torch.Tensor], max_new_tokens: int, noise: SeededNoise | None
    ) -> list[list[int]]:
        """By `generate()`, which knows every kind of state that a layer may have."""
        ids, mask = padded
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=self._stop or None,
            pad_token_id=self._pad,
        )
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=ids.to(self._model.device),
                attention_mask=mask.to(self._model.device),
                generation_config=config,
                logits_processor=LogitsProcessorList([noise] if noise else []),
            )
        answers: list[list[int]] = output[:, ids.shape[1] :].tolist()
        return answers


def padding_id(tokenizer: PreTrainedTokenizerBase, stop: Sequence[int]) -> int:
    """A token to pad with; masked out, so any will do where the tokenizer names none."""
    if tokenizer.pad_token_id is not None:
        return int(tokenizer.pad_token_id)
    return stop[0] if stop else 0


def answer_logits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    *,
    max_tokens: int,
    batch: int = SCORING_BATCH,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Teacher forcing: what the model predicts at each token of given answers.

    Args:
        model: The model to ask.
        tokenizer: The original's.
        pairs: (prompt, answer).
        max_tokens: Answer tokens scored at most.
        batch: Chats a forward pass.

    Yields:
        For each pair in order: logits [tokens, vocabulary] in the model's own dtype, where the model is, and
        the answer's token ids [tokens]. An answer without tokens yields empty tensors.
    """
    pad = padding_id(tokenizer, stop_ids(model, tokenizer))
    answers = [
        list(tokenizer(answer, add_special_tokens=False)["input_ids"])[:max_tokens] for _, answer in pairs
    ]
    chats = [render_chat(tokenizer, prompt) for prompt, _ in pairs]
    prefix = SharedPrefix(model, chats)

    def work(chosen: Sequence[int]) -> list[torch.Tensor]:
        keep = max(len(answers[index]) for index in chosen) + 1
        padded = prefix.join([[*chats[index], *answers[index]] for index in chosen], pad)
        logits = last_logits(model, prefix, padded, keep)
        firsts = (keep - 1 - len(answers[index]) for index in chosen)
        return [row[first : keep - 1].clone() for row, first in zip(logits, firsts, strict=True)]

    for chosen, scored in in_batches(range(len(pairs)), batch, work):
        for index, logits in zip(chosen, scored, strict=True):
            yield logits, torch.tensor(answers[index], dtype=torch.long, device=logits.device)


def last_logits(
    model: PreTrainedModel, prefix: SharedPrefix, padded: tuple[torch.Tensor, torch.Tensor], keep: int
) -> torch.Tensor:
    """Logits of the last `keep` positions, [rows, keep, vocabulary]."""
    ids, mask = (tensor.to(model.device) for tensor in padded)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    seen = len(prefix.tokens)
    cache = RoomyCache(prefix.one, *ids.shape) if seen else None
    with torch.inference_mode():
        output = model(
            input_ids=ids[:, seen:],
            attention_mask=mask,
            position_ids=positions[:, seen:],
            past_key_values=cache,
            logits_to_keep=keep,
            use_cache=cache is not None,
        )
    logits: torch.Tensor = output.logits
    return logits


def token_logprobs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability of each token in float32, [tokens], from logits [tokens, vocabulary]."""
    return torch.log_softmax(logits.float(), dim=-1).gather(1, tokens[:, None])[:, 0]


def token_divergence(reference: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL(reference ‖ other) in nats at each token, [tokens], from logits [tokens, vocabulary]."""
    log_p = torch.log_softmax(reference.float(), dim=-1)
    log_q = torch.log_softmax(other.float(), dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)
