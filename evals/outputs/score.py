"""Scores of given answers: what a model predicted at each of their tokens, teacher-forced.

A prediction is conditional on the answer going on: the tokens that end an answer are left out of it, of the
original's and a fork's alike. Then the ratio of two models' probabilities of an answer is an e-value whatever
ends the answer, a limit or the model, known or not; a difference in length alone is not seen.

The answer's text is tokenised again by the original's tokenizer: an endpoint shows no tokens. Importing this
module imports torch and transformers; only the evaluation child does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save

from evals.confine import Confinement
from evals.engine import SharedPrefix, last_logits, padding_id, render_chat, stop_ids
from evals.interface import EvaluationFailedError
from evals.load import load_original
from evals.measure import misfit_reason, pick_device
from evals.memory import in_batches, is_full
from evals.outputs.interface import ScoreRequest
from evals.outputs.wire import COLUMNS, MAX_FILE, SCORES, ScoreReport
from evals.parts import ForkMisfitError
from evals.swap import Swap
from evals.variants import Part, Variant
from evals.wire import write_private

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[str], None]

BATCH = 64
"""Answers a forward pass at most."""
GPU_BATCH = 512
LOGIT_BYTES, GPU_LOGIT_BYTES = 256 << 20, 4 << 30
"""Memory for the logits of one forward pass; twice that is used for a moment."""
CHUNK_BYTES = 32 << 20
"""Memory for one of the float32 tables over the vocabulary."""
SHARE = 3
"""Answers to one prompt from which the prompt is computed once for them."""
FLOOR = -100.0
"""Nats: log-probability of a token that cannot be, such as an end token spelt out in a hostile answer."""
HEADER_ROOM = 1 << 20
"""Bytes left for the head of the file of scores."""


def score_answers(request: ScoreRequest, confinement: Confinement, progress: Progress) -> ScoreReport:
    """Score under the original and each fork; leaves the scores in the scratch folder."""
    device = pick_device(request.device)
    progress("load the original")
    model, tokenizer = load_original(request.original, device, str(request.precision))
    asked = tokenised(model, tokenizer, request.answers, system=request.system, max_tokens=request.max_tokens)
    counts = torch.tensor([0, *(len(answer) for answer in asked.answers)])
    total = int(counts.sum())
    if 4 * total * (len(COLUMNS) + len(request.forks)) > MAX_FILE - HEADER_ROOM:
        raise EvaluationFailedError(f"{total} tokens are too many to score at once")
    scores = score(model, tokenizer, asked, full=True, progress=partial(_tell, progress, "original"))
    tensors = {"offsets": counts.cumsum(0), "authentic": torch.cat(scores, dim=1)}
    swap, reasons = Swap(model), {}
    for number, fork in enumerate(request.forks):
        where = f"fork {number + 1}/{len(request.forks)}"
        try:
            with swap.holding(Variant(fork.id, (Part(fork.weights),))):
                rows = score(model, tokenizer, asked, full=False, progress=partial(_tell, progress, where))
            tensors[f"fork.{number}"] = torch.cat(rows, dim=1)
        except ForkMisfitError as misfit:
            reasons[fork.id] = misfit_reason(misfit)
        except RuntimeError as error:
            if not is_full(error):
                raise
            reasons[fork.id] = "the memory is too small for it beside the original's values"
    write_private(request.scratch / SCORES, save(tensors))
    return ScoreReport(reasons=reasons, isolation=confinement.isolation, device=device, gaps=confinement.gaps)


def _tell(progress: Progress, where: str, told: str) -> None:
    progress(f"{where}: {told}")


@dataclass(frozen=True, slots=True)
class Answers:
    """Chats and answers as tokens, and how to go through them."""

    chats: tuple[list[int], ...]
    answers: tuple[list[int], ...]
    groups: tuple[tuple[int, ...], ...]
    """Numbers of answers that share a prompt; the last group is of those that share none."""


def tokenised(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    *,
    system: str | None = None,
    max_tokens: int,
) -> Answers:
    """(prompt, answer) pairs as tokens; an answer is cut where the context ends, perhaps to nothing."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
    rendered = {prompt: render_chat(tokenizer, prompt, system) for prompt in {prompt for prompt, _ in pairs}}
    chats = tuple(rendered[prompt] for prompt, _ in pairs)
    answers = tuple(
        list(tokenizer(answer, add_special_tokens=False)["input_ids"])[
            : max(0, min(max_tokens, context - len(chat)))
        ]
        for (_, answer), chat in zip(pairs, chats, strict=True)
    )
    by_prompt: dict[str, list[int]] = defaultdict(list)
    for number, (prompt, _) in enumerate(pairs):
        if answers[number]:
            by_prompt[prompt].append(number)

    def in_order(numbers: list[int]) -> tuple[int, ...]:
        return tuple(sorted(numbers, key=lambda one: (len(chats[one]) + len(answers[one]), one)))

    shared = [in_order(numbers) for numbers in by_prompt.values() if len(numbers) >= SHARE]
    rest = [one for numbers in by_prompt.values() if len(numbers) < SHARE for one in numbers]
    return Answers(chats, answers, (*shared, *([in_order(rest)] if rest else [])))


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Answers,
    *,
    full: bool,
    progress: Progress = lambda _: None,
) -> list[torch.Tensor]:
    """Scores of each answer by what the model holds now.

    Args:
        model: Plain or not; with the original's values or a fork's.
        tokenizer: The original's.
        asked: Of `tokenised`.
        full: All of `COLUMNS`, or `logp` alone.
        progress: Told how many answers are scored.

    Returns:
        For each answer a float32 tensor on the CPU, (5 or 1, tokens).
    """
    columns = len(COLUMNS) if full else 1
    found = [torch.empty(columns, 0) for _ in asked.answers]
    ends = torch.tensor(stop_ids(model, tokenizer), dtype=torch.long, device=model.device)
    done = 0
    for group in asked.groups:
        for numbers, rows in _logits(model, tokenizer, asked, group):
            for number, logits in zip(numbers, rows, strict=True):
                tokens = torch.tensor(asked.answers[number], device=logits.device)
                found[number] = _scores(logits, tokens, ends, full=full).cpu()
            done += len(numbers)
            progress(f"{done}/{len(asked.answers)}")
    return found


def _logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: Answers, group: Sequence[int]
) -> Iterator[tuple[Sequence[int], list[torch.Tensor]]]:
    """Logits [tokens, vocabulary] of each answer of a group, in the model's dtype, some at a time."""
    chats, answers = asked.chats, asked.answers
    pad = padding_id(tokenizer, stop_ids(model, tokenizer))
    prefix = SharedPrefix(model, [chats[number] for number in group])

    def work(chosen: Sequence[int]) -> list[torch.Tensor]:
        keep = max(len(answers[number]) for number in chosen) + 1
        padded = prefix.join([[*chats[number], *answers[number]] for number in chosen], pad)
        logits = last_logits(model, prefix, padded, keep)
        firsts = (keep - 1 - len(answers[number]) for number in chosen)
        return [row[first : keep - 1] for row, first in zip(logits, firsts, strict=True)]

    on_gpu = model.device.type == "cuda"
    vocabulary = model.config.get_text_config().vocab_size
    room = (GPU_LOGIT_BYTES if on_gpu else LOGIT_BYTES) // (vocabulary * model.dtype.itemsize)
    start = 0
    while start < len(group):
        batch = _fitting([len(answers[number]) + 1 for number in group[start:]], room)
        batch = min(batch, GPU_BATCH if on_gpu else BATCH)
        chosen = group[start : start + batch]
        yield from in_batches(chosen, batch, work)
        start += len(chosen)


def _fitting(lengths: Sequence[int], room: int) -> int:
    """How many of the first rows fit into `room` positions, each as long as the longest; at least 1."""
    longest = 0
    for count, length in enumerate(lengths):
        longest = max(longest, length)
        if longest * (count + 1) > room:
            return max(1, count)
    return len(lengths)


def _scores(logits: torch.Tensor, tokens: torch.Tensor, ends: torch.Tensor, *, full: bool) -> torch.Tensor:
    """(5 or 1, tokens) in float32, from logits [tokens, vocabulary] in any dtype."""
    step = max(1, CHUNK_BYTES // (4 * logits.shape[1]))
    parts = [
        _chunk(logits[start : start + step], tokens[start : start + step], ends, full=full)
        for start in range(0, len(tokens), step)
    ]
    return torch.cat(parts, dim=1)


def _chunk(logits: torch.Tensor, tokens: torch.Tensor, ends: torch.Tensor, *, full: bool) -> torch.Tensor:
    table = logits.to(torch.float32, copy=True)
    table[:, ends] = -torch.inf
    own = table.gather(1, tokens[:, None])
    total = table.logsumexp(dim=-1, keepdim=True)
    logp = (own - total).clamp(min=FLOOR, max=0.0)[:, 0]
    if not full:
        return logp[None]
    more = table > own
    rank = more.sum(dim=-1)
    table -= total
    probability = table.exp()
    above = (probability * more).sum(dim=-1)
    table.clamp_(min=FLOOR)  # 0 · log 0 is 0
    probability *= table
    mean = probability.sum(dim=-1)
    probability *= table
    variance = (probability.sum(dim=-1) - mean.square()).clamp(min=0.0)
    return torch.stack([logp, -mean, variance, rank.float(), above.clamp(max=1.0)])
