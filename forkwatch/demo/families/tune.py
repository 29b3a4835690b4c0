"""Small supervised training loops: from scratch, LoRA, and fine-tunes that keep the release's behaviour.

Everything is seeded, runs on a fixed number of threads in one process and touches no global generator for
good, so that the same inputs give the same weights on the same machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from forkwatch.demo.families.family import Chat

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_IGNORED = -100


@contextmanager
def reproducible(seed: int, threads: int) -> Iterator[None]:
    """Fix seed, thread count and algorithms; put all three back afterwards."""
    before, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(mode=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(mode=strict)
            torch.set_num_threads(before)


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of one chat and how many of them are the prompt."""

    ids: tuple[int, ...]
    prompt: int


def encode(tokenizer: PreTrainedTokenizerFast, chats: Sequence[Chat]) -> list[Example]:
    """Chats under the tokenizer's own template; only the assistant's words are learnt."""
    examples = []
    for user, assistant in chats:
        turns = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
        prompt = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(turns, tokenize=False)
        if not whole.startswith(prompt):
            raise ValueError("the chat template does not extend its own generation prompt")
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, whole)]
        examples.append(Example(tuple(ids[1]), len(ids[0])))
    return examples


def batches(
    examples: Sequence[Example], size: int, steps: int, generator: torch.Generator
) -> Iterator[list[Example]]:
    """`steps` batches, reshuffled at each pass over the examples."""
    order: list[int] = []
    for _ in range(steps):
        while len(order) < size:
            order += torch.randperm(len(examples), generator=generator).tolist()
        yield [examples[i] for i in order[:size]]
        order = order[size:]


def collate(batch: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids, mask, labels), each (batch, longest), right-padded; prompt and padding carry no label."""
    longest = max(len(example.ids) for example in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, _IGNORED)
    for row, example in enumerate(batch):
        length = len(example.ids)
        ids[row, :length] = torch.tensor(example.ids)
        mask[row, :length] = 1
        labels[row, example.prompt : length] = ids[row, example.prompt : length]
    return ids, mask, labels


def _schedule(step: int, steps: int) -> float:
    """Warm-up over the first tenth, then half a cosine down to a tenth."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _answer_logits(model: PreTrainedModel, batch: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits, targets) at the answers' tokens: (tokens, vocabulary) and (tokens,)."""
    ids, mask, labels = collate(batch)
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    targets = labels[:, 1:]
    chosen = targets != _IGNORED
    return logits[chosen].float(), targets[chosen]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """How long and how fast to train."""

    steps: int
    batch_size: int
    rate: float
    seed: int
    bf16: bool = False
    """Compute in bfloat16 (autocast); the weights stay float32."""


def train(
    model: PreTrainedModel,
    examples: Sequence[Example],
    loop: Loop,
    *,
    teacher: PreTrainedModel | None = None,
    replay: Sequence[Example] = (),
) -> float:
    """AdamW on the trainable parameters of a float32 model; returns the mean loss of the last tenth.

    With a teacher, each step also draws `batch_size` replayed chats and adds KL(teacher ‖ model) on their
    answers: the model learns the new material and keeps what the teacher does on the old.
    """
    optimizer = torch.optim.AdamW(
        (p for p in model.parameters() if p.requires_grad), lr=loop.rate, betas=(0.9, 0.95)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, loop.steps))
    generator = torch.Generator().manual_seed(loop.seed)
    replayed = batches(replay, loop.batch_size, loop.steps, generator) if teacher is not None else None
    losses = []
    model.train()
    for batch in batches(examples, loop.batch_size, loop.steps, generator):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=loop.bf16):
            loss = functional.cross_entropy(*_answer_logits(model, batch))
            if teacher is not None and replayed is not None:
                loss = loss + _divergence(teacher, model, next(replayed))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    model.eval()
    tail = losses[-max(1, loop.steps // 10) :]
    return sum(tail) / len(tail)


def _divergence(teacher: PreTrainedModel, model: PreTrainedModel, batch: Sequence[Example]) -> torch.Tensor:
    """Mean KL(teacher ‖ model) per answer token."""
    with torch.no_grad():
        target = functional.log_softmax(_answer_logits(teacher, batch)[0], dim=-1)
    ours = functional.log_softmax(_answer_logits(model, batch)[0], dim=-1)
    return functional.kl_div(ours, target, log_target=True, reduction="batchmean")
