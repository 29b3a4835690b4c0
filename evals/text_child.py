"""The child's side of `evals.texts`: likelihoods and continuations of plain text, by one loaded model.

Tokens are split between context and continuation as the lm-evaluation-harness splits them (`HFLM`), so that
its scores are those that it would have given. Importing this module imports torch and transformers; only the
evaluation child does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch

from evals.confine import Confinement
from evals.engine import TransformersGenerator, left_padded, padding_id, stop_ids, token_logprobs
from evals.load import load_original
from evals.measure import misfit_reason, pick_device
from evals.memory import in_batches
from evals.parts import ForkMisfitError
from evals.swap import apply_fork
from evals.text_items import Completion, Continuation, TextAnswers, TextItems, TextReport, TextRequest
from evals.texts import RESULTS, read_items, rolling_windows, write_answers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[str], None]
Row = tuple[list[int], list[int]]
"""Token ids of a context and of what follows it."""

BATCH = 32
LOGIT_BYTES = 256 << 20
"""Memory for the logits of one forward pass."""
_DEFAULT_CONTEXT = 2048


def answer_texts(request: TextRequest, confinement: Confinement, progress: Progress) -> TextReport:
    """Answer all items with the original, or with a fork's values in it; leaves a file in scratch."""
    device = pick_device(request.device)
    progress("load the original")
    model, tokenizer = load_original(request.original, device)
    misfit = ""
    try:
        if request.weights:
            progress("load the fork")
            apply_fork(model, request.weights)
    except ForkMisfitError as found:
        misfit = misfit_reason(found)
    else:
        answers = Reader(model, tokenizer, progress).answer(read_items(request.items))
        write_answers(request.scratch / RESULTS, answers)
    return TextReport(isolation=confinement.isolation, device=device, misfit=misfit, gaps=confinement.gaps)


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads and continues plain text with one model."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    progress: Progress

    def answer(self, items: TextItems) -> TextAnswers:
        """Answers in the order of the items."""
        pairs = [self._split(item) for item in items.continuations]
        windows = [
            rolling_windows(self._encode(item.text), self._first, self._longest) for item in items.documents
        ]
        scored = self._score([*pairs, *(row for rows in windows for row in rows)])
        rest = iter(scored[len(pairs) :])
        return TextAnswers(
            continuations=tuple(scored[: len(pairs)]),
            documents=tuple(sum(next(rest)[0] for _ in rows) for rows in windows),
            completions=self._complete(items.completions),
        )

    @property
    def _longest(self) -> int:
        """Tokens that the model can look back at."""
        config = self.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or _DEFAULT_CONTEXT)

    @property
    def _first(self) -> int:
        """What stands before a text that nothing stands before."""
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return padding_id(self.tokenizer, stop_ids(self.model, self.tokenizer))

    def _encode(self, text: str) -> list[int]:
        """With the tokenizer's own special tokens, unless the text begins with them."""
        special = not text.startswith(str(self.tokenizer.decode([self._first])))
        return list(self.tokenizer(text, add_special_tokens=special)["input_ids"])

    def _split(self, item: Continuation) -> Row:
        """Spaces at the end of the context belong to the continuation, as the model learned them."""
        if not item.context:
            tokens = list(self.tokenizer(item.text, add_special_tokens=False)["input_ids"])
            begun = tokens[:1] == [self._first]
            return (tokens[:1], tokens[1:]) if begun else ([self._first], tokens)
        kept = item.context.rstrip()
        moved = item.context[len(kept) :] + item.text
        context = self._encode(kept)
        return context, self._encode(kept + moved)[len(context) :]

    def _score(self, rows: Sequence[Row]) -> list[tuple[float, bool]]:
        """(log-probability, all greedy) of each continuation; too long a context loses its beginning."""
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index][0]) - len(rows[index][1]))
        found: dict[int, tuple[float, bool]] = {}
        for chosen, scores in in_batches(
            order, self._rows_at_once(rows), lambda part: self._forward([rows[index] for index in part])
        ):
            found.update(zip(chosen, scores, strict=True))
            self.progress(f"read {len(found)}/{len(rows)}")
        return [found[index] for index in range(len(rows))]

    def _rows_at_once(self, rows: Sequence[Row]) -> int:
        """As many as their logits leave room for."""
        longest = max((len(text) for _, text in rows), default=1) + 1
        one = longest * int(self.model.config.get_text_config().vocab_size) * 4
        return max(1, min(BATCH, LOGIT_BYTES // one))

    def _forward(self, rows: Sequence[Row]) -> list[tuple[float, bool]]:
        pad = padding_id(self.tokenizer, stop_ids(self.model, self.tokenizer))
        texts = [text[-self._longest :] for _, text in rows]
        seen = [(context + text)[-self._longest - 1 :][:-1] for context, text in rows]
        ids, mask = (tensor.to(self.model.device) for tensor in left_padded(seen, pad))
        keep = max(1, *map(len, texts))
        with torch.inference_mode():
            logits = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
                logits_to_keep=keep,
                use_cache=False,
            ).logits
        scores = []
        for row, text in zip(logits, texts, strict=True):
            tokens = torch.tensor(text, dtype=torch.long, device=row.device)
            own = row[len(row) - len(text) :]
            greedy = bool((own.argmax(dim=-1) == tokens).all())
            scores.append((token_logprobs(own, tokens).sum().item() if text else 0.0, greedy))
        return scores

    def _complete(self, items: Sequence[Completion]) -> tuple[str, ...]:
        """Those of one length together, since a batch ends with its longest."""
        generator = TransformersGenerator(
            self.model, self.tokenizer, progress=lambda done, total: self.progress(f"generate {done}/{total}")
        )
        texts: dict[int, str] = {}
        order = sorted(range(len(items)), key=lambda index: items[index].max_new_tokens)
        for length, group in groupby(order, key=lambda index: items[index].max_new_tokens):
            chosen = list(group)
            room = max(1, self._longest - length)
            rows = [self._encode(items[index].context)[-room:] for index in chosen]
            for index, text in zip(chosen, generator.complete(rows, max_new_tokens=length), strict=True):
                texts[index] = _until(text, items[index].until)
        return tuple(texts[index] for index in range(len(items)))


def _until(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        if stop:
            text = text.split(stop, maxsplit=1)[0]
    return text
