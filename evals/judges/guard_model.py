"""Running a guard model. Importing this imports torch and transformers; only the guard's child does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)

from evals.interface import Label
from evals.judges.guard_formats import (
    MINOS,
    TOO_LONG,
    WILDGUARD,
    GuardKind,
    classifier_opinions,
    harmless_text,
    parse,
)
from evals.judges.interface import Answered, JudgeError, Opinion

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_NEW_TOKENS = 64
"""A verdict has about 20."""
BATCH = 16
_LONGEST = 1 << 20
"""Tokens; tokenizers without a limit name a far larger number."""

Progress = Callable[[int, int], None]


def run_guard(
    folder: Path, kind: GuardKind, device: str, answers: Sequence[Answered], progress: Progress
) -> list[Opinion]:
    """One opinion an answer, in order.

    Raises:
        JudgeError: the model is not of this kind.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    loader = AutoModelForCausalLM if kind.generates else AutoModelForSequenceClassification
    model = loader.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype="auto"
    )
    model = model.to(device).eval()
    judge = _generated if kind.generates else _classified
    chats = _encoded(kind, tokenizer, answers)
    room = _room(model, tokenizer, MAX_NEW_TOKENS if kind.generates else 0)
    if not kind.generates:  # the end of a long answer is cut; the token that ends a text stays
        chats = [chat if len(chat) <= room else [*chat[: room - 1], chat[-1]] for chat in chats]
    opinions = [Opinion(Label.UNGRADEABLE, reason=TOO_LONG)] * len(answers)
    fitting = sorted(
        (index for index, chat in enumerate(chats) if 0 < len(chat) <= room),
        key=lambda index: (len(chats[index]), index),
    )
    done = 0
    for batch, given in judge(model, tokenizer, kind, [(index, chats[index]) for index in fitting]):
        for index, opinion in zip(batch, given, strict=True):
            opinions[index] = opinion
        done += len(batch)
        progress(done, len(fitting))
    return opinions


_Encoded = tuple[int, list[int]]
_Judged = Iterator[tuple[list[int], list[Opinion]]]


def _encoded(
    kind: GuardKind, tokenizer: PreTrainedTokenizerBase, answers: Sequence[Answered]
) -> list[list[int]]:
    """Token ids of what the guard is shown about each answer."""
    special = (*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens)
    clean = [
        Answered(harmless_text(item.prompt, special), harmless_text(item.answer, special)) for item in answers
    ]
    if kind in (GuardKind.QWEN3GUARD, GuardKind.LLAMAGUARD):
        parts = _in_parts(tokenizer)
        texts = [_rendered(tokenizer, item, parts=parts) for item in clean]
    elif kind is GuardKind.CLASSIFIER:
        texts = [item.answer for item in clean]
    else:
        form = WILDGUARD if kind is GuardKind.WILDGUARD else MINOS
        texts = [form.format(prompt=item.prompt, answer=item.answer) for item in clean]
    # What a generative guard is shown holds its own special tokens; a classifier's tokenizer adds them.
    return [list(tokenizer(text, add_special_tokens=not kind.generates)["input_ids"]) for text in texts]


def _rendered(tokenizer: PreTrainedTokenizerBase, item: Answered, *, parts: bool) -> str:
    """Both turns under the guard's own template, which ends with the header of its verdict."""

    def content(text: str) -> object:
        return [{"type": "text", "text": text}] if parts else text

    turns = [
        {"role": "user", "content": content(item.prompt)},
        {"role": "assistant", "content": content(item.answer)},
    ]
    return str(tokenizer.apply_chat_template(turns, tokenize=False))


def _in_parts(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template takes contents in parts (Llama Guard 3 1B and 4) instead of plain text.

    Raises:
        JudgeError: it shows a prompt and an answer in neither way.
    """
    probe = Answered("forkwatchprompt", "forkwatchanswer")
    for parts in (False, True):
        try:
            text = _rendered(tokenizer, probe, parts=parts)
        except Exception:  # noqa: BLE001, S112 - a template can fail in any way; the other form is tried
            continue
        if probe.prompt in text and probe.answer in text and "'type': 'text'" not in text:
            return parts
    raise JudgeError("the guard's chat template does not show a prompt and an answer")


def _room(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, new: int) -> int:
    """Tokens that the model can be shown."""
    positions = getattr(model.config, "max_position_embeddings", None) or _LONGEST
    offset = 2 if "roberta" in str(model.config.model_type) else 0  # its positions start after the padding id
    return max(1, min(int(positions) - offset, int(tokenizer.model_max_length), _LONGEST) - new)


def _generated(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kind: GuardKind, chats: Sequence[_Encoded]
) -> _Judged:
    """Greedy verdicts."""
    stop = {tokenizer.eos_token_id}
    for ids in (model.generation_config.eos_token_id, model.config.eos_token_id):
        stop.update([ids] if isinstance(ids, int) else ids or [])
    ends = sorted(number for number in stop if number is not None)
    # What else the guard's configuration says of decoding, e.g. a penalty on repeated words, would leak in.
    model.generation_config = GenerationConfig(eos_token_id=ends or None)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (ends or [0])[0]
    config = GenerationConfig(
        max_new_tokens=MAX_NEW_TOKENS, do_sample=False, eos_token_id=ends or None, pad_token_id=pad
    )
    for start in range(0, len(chats), BATCH):
        batch = chats[start : start + BATCH]
        width = max(len(ids) for _, ids in batch)
        rows = torch.tensor([[pad] * (width - len(ids)) + ids for _, ids in batch], device=model.device)
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for _, ids in batch])
        with torch.inference_mode():
            output = model.generate(
                input_ids=rows, attention_mask=mask.to(model.device), generation_config=config
            )
        texts = tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
        yield [index for index, _ in batch], [parse(kind, text) for text in texts]


def _classified(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kind: GuardKind, chats: Sequence[_Encoded]
) -> _Judged:
    """The likeliest class of each."""
    del kind
    names = {int(index): str(name) for index, name in dict(model.config.id2label).items()}
    meanings = classifier_opinions(names)
    if len(names) < 2 or model.config.problem_type == "multi_label_classification":
        raise JudgeError("the classifier does not choose one of several classes")
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    for start in range(0, len(chats), BATCH):
        batch = chats[start : start + BATCH]
        width = max(len(ids) for _, ids in batch)
        rows = torch.tensor([ids + [pad] * (width - len(ids)) for _, ids in batch], device=model.device)
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for _, ids in batch])
        with torch.inference_mode():
            logits = model(input_ids=rows, attention_mask=mask.to(model.device)).logits
        best = logits.float().argmax(dim=-1).tolist()
        yield [index for index, _ in batch], [meanings[number] for number in best]
