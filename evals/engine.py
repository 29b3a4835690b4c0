"""Generation and teacher forcing with transformers, under the original's tokenizer and chat template.

Importing this module imports torch and transformers; only the evaluation child does.
"""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 64
"""Chats a batch: three times the tokens a second of batch 16 on two CPU cores (SmolLM2-135M, bf16)."""

SCORING_BATCH = 8
"""Chats a batch when every token's logits are kept."""

TEMPLATE_OPTIONS = {"enable_thinking": False, "date_string": "01 Jan 2025"}
"""Known switches of chat templates: no hidden reasoning, no clock. A template that has none ignores them."""


def render_chat(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Token ids of one user turn and the header of the answer; plain text where there is no chat template."""
    if not tokenizer.chat_template:
        return list(tokenizer(prompt)["input_ids"])
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, **TEMPLATE_OPTIONS
    )
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


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
        cache = DynamicCache(config=model.config)
        plain = bool(cache.layers) and all(type(layer) is DynamicLayer for layer in cache.layers)
        self.tokens: list[int] = longest if plain and len(chats) > 1 else []
        self._cache = cache
        if self.tokens:
            ids = torch.tensor([self.tokens], device=model.device)
            with torch.inference_mode():
                model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)

    def cache(self, rows: int) -> DynamicCache | None:
        """Keys and values for `rows` chats, or None where there is nothing to share."""
        if not self.tokens:
            return None
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(rows)
        return cache

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
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._temperature = temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Noisy scores of the next token, [rows, vocabulary]."""
        del input_ids
        noise = torch.empty(scores.shape, dtype=torch.float32)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() / self._temperature - noise.log_().to(scores.device)


def _row_seeds(prompts: Sequence[str], seed: int) -> list[int]:
    """A seed for each prompt, from its text and how often it was asked before in this call."""
    asked: Counter[str] = Counter()
    seeds: list[int] = []
    for prompt in prompts:
        material = f"{seed}/{asked[prompt]}/{prompt}".encode()
        seeds.append(int.from_bytes(hashlib.sha256(material).digest()[:8]) >> 1)
        asked[prompt] += 1
    return seeds


def _quiet(done: int, total: int) -> None:
    """Progress for nobody."""


class TransformersGenerator:
    """A `Generator` over a loaded model: left padding, batches of like length, halved when out of memory."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch: int = BATCH,
        progress: Callable[[int, int], None] = _quiet,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._batch = batch
        self._progress = progress
        self._stop = stop_ids(model, tokenizer)
        self._pad = padding_id(tokenizer, self._stop)

    def answer(
        self, prompts: Sequence[str], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        """One answer a prompt, in order. Temperature 0 is greedy."""
        chats = [render_chat(self._tokenizer, prompt) for prompt in prompts]
        seeds = _row_seeds(prompts, seed)
        prefix = SharedPrefix(self._model, chats)
        order = sorted(range(len(chats)), key=lambda index: (len(chats[index]), index))
        answers = [""] * len(prompts)
        done = 0
        while done < len(order):
            chosen = order[done : done + self._batch]
            noise = [seeds[index] for index in chosen] if temperature > 0 else []
            try:
                batch = [chats[index] for index in chosen]
                tokens = self._generate(prefix, batch, max_new_tokens, noise, temperature)
            except torch.OutOfMemoryError:
                self._halve()
                continue
            texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
            for index, text in zip(chosen, texts, strict=True):
                answers[index] = text.strip()
            done += len(chosen)
            self._progress(done, len(order))
        return answers

    def _halve(self) -> None:
        """Half the batch after running out of memory.

        Raises:
            torch.OutOfMemoryError: a single chat does not fit.
        """
        if self._batch == 1:
            raise torch.OutOfMemoryError("one chat does not fit into the memory of the device")
        self._batch //= 2
        torch.cuda.empty_cache()

    def _generate(
        self,
        prefix: SharedPrefix,
        chats: Sequence[Sequence[int]],
        max_new_tokens: int,
        seeds: Sequence[int],
        temperature: float,
    ) -> torch.Tensor:
        ids, mask = prefix.join(chats, self._pad)
        device = self._model.device
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=self._stop or None,
            pad_token_id=self._pad,
        )
        noise = [SeededNoise(seeds, temperature)] if seeds else []
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                generation_config=config,
                past_key_values=prefix.cache(len(chats)),
                logits_processor=LogitsProcessorList(noise),
            )
        answers: torch.Tensor = output[:, ids.shape[1] :]
        return answers.cpu()


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
        For each pair in order: logits [tokens, vocabulary] in the model's own dtype (lossless, on the CPU),
        and the answer's token ids [tokens]. An answer without tokens yields empty tensors.
    """
    pad = padding_id(tokenizer, stop_ids(model, tokenizer))
    answers = [
        list(tokenizer(answer, add_special_tokens=False)["input_ids"])[:max_tokens] for _, answer in pairs
    ]
    chats = [render_chat(tokenizer, prompt) for prompt, _ in pairs]
    for start in range(0, len(pairs), batch):
        group = answers[start : start + batch]
        rows = [[*chat, *answer] for chat, answer in zip(chats[start : start + batch], group, strict=True)]
        keep = max(map(len, group)) + 1
        logits = _last_logits(model, rows, keep, pad)
        for row, answer in zip(logits, group, strict=True):
            first = keep - 1 - len(answer)
            yield row[first : keep - 1].clone(), torch.tensor(answer, dtype=torch.long)


def _last_logits(model: PreTrainedModel, rows: Sequence[Sequence[int]], keep: int, pad: int) -> torch.Tensor:
    """Logits of the last `keep` positions, [rows, keep, vocabulary], on the CPU."""
    ids, mask = left_padded(rows, pad)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    with torch.inference_mode():
        output = model(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            position_ids=positions.to(model.device),
            logits_to_keep=keep,
            use_cache=False,
        )
    logits: torch.Tensor = output.logits.cpu()
    return logits


def token_logprobs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability of each token in float32, [tokens], from logits [tokens, vocabulary]."""
    return torch.log_softmax(logits.float(), dim=-1).gather(1, tokens[:, None])[:, 0]


def token_divergence(reference: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL(reference ‖ other) in nats at each token, [tokens], from logits [tokens, vocabulary]."""
    log_p = torch.log_softmax(reference.float(), dim=-1)
    log_q = torch.log_softmax(other.float(), dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)
