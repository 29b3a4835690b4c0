"""Vocabularies that grew, shrank or moved: which row of embedding and head is which of the original's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.edits.context import Context
from detector.errors import UnreadableTensorError
from detector.grid import values_as_stored
from detector.interface import Certainty, Edit, EditDetail, EditKind, Evidence, TensorStatus, WeightReader
from detector.pairing import EMBEDDINGS, HEADS, Pair

if TYPE_CHECKING:
    import torch

ELEMENTS_AT_A_TIME = 1 << 24
"""64 MiB in float32, whatever the width of a row."""
TOKENS = frozenset({*EMBEDDINGS, *HEADS})
CLOSE = 0.2
"""Relative distance of two rows below which they are the same token's, trained on or rounded."""
PROBES = 256
"""Rows of the fork that are looked for among all of the original's."""
ALIKE = 0.9
"""Cosine from which a row elsewhere is the same token's: unrelated rows of 64 dimensions and more, centred,
stay under 0.6."""
ALL = 1 - 1e-9
"""A single rewritten row among a hundred thousand is an edit of its own."""
OTHER = 0.5
"""Relative norm from which rows of an embedding of unchanged size may have changed places."""


@dataclass(frozen=True, slots=True)
class VocabularyFinding:
    """The edit, if there is one, and the tensors it accounts for."""

    edits: tuple[Edit, ...]
    explained: frozenset[str]


def find_vocabulary_change(context: Context) -> VocabularyFinding:
    """Rows added to, removed from or permuted in the embedding and the head; one edit for both."""
    found: list[tuple[Pair, Certainty, tuple[Evidence, ...]]] = []
    for pair in context.pairing.reshaped:
        if pair.name in TOKENS and pair.original.shape[1:] == pair.fork.shape[1:]:
            try:
                found.append((pair, *_resized(pair, context.original, context.fork)))
            except UnreadableTensorError:
                continue
    for comparison in context.comparisons:
        pair = comparison.pair
        changed = comparison.status is TensorStatus.CHANGED and comparison.relative_norm > OTHER
        if changed and pair.name in TOKENS and pair.is_matrix:
            moved = _permuted(pair, context.original, context.fork)
            if moved is not None:
                found.append((pair, *moved))
    if not found:
        return VocabularyFinding((), frozenset())
    proved = all(certainty is Certainty.PROVED for _, certainty, _ in found)
    detail = EditDetail(modules=tuple(sorted({pair.module for pair, _, _ in found})))
    certainty = Certainty.PROVED if proved else Certainty.CONSISTENT
    edit = Edit(EditKind.VOCABULARY_CHANGE, certainty, detail, found[0][2])
    return VocabularyFinding((edit,), frozenset(pair.name for pair, _, _ in found))


def _resized(
    pair: Pair, original: WeightReader, fork: WeightReader
) -> tuple[Certainty, tuple[Evidence, ...]]:
    before, after = pair.original.shape[0], pair.fork.shape[0]
    equal, close = common_rows(pair, original, fork)
    evidence = [
        Evidence("rows", after, f"the original has {before}"),
        Evidence("rows-kept-in-place", round(close, 4), "share of the common rows, nearly the same"),
        Evidence("rows-equal-in-place", round(equal, 4), "share of the common rows, value by value"),
    ]
    if after > before and equal > OTHER:
        evidence.append(_added(fork.band(pair.fork.name, before, after - before).float()))
    if close < 1 - OTHER:
        moved = _moved(pair, original, fork)
        evidence.append(Evidence("rows-found-elsewhere", round(moved, 4), "share of the fork's, equal there"))
        equal = max(equal, moved if after <= before else moved * after / before)
    return (Certainty.PROVED if equal >= ALL else Certainty.CONSISTENT), tuple(evidence)


def _added(rows: torch.Tensor) -> Evidence:
    """What the rows behind the original's last are like."""
    zeros = bool((rows == 0).all().item())
    alike = bool((rows == rows[:1]).all().item())
    note = "all zero: padding" if zeros else "all the same, such as a mean" if alike else "each its own"
    return Evidence("rows-added", len(rows), note)


def common_rows(pair: Pair, original: WeightReader, fork: WeightReader) -> tuple[float, float]:
    """Share of the common rows that are equal as the fork stores them, and share that are nearly the same."""
    rows = min(pair.original.shape[0], pair.fork.shape[0])
    equal, close = 0, 0
    step = _rows_at_a_time(pair.fork.shape)
    for first in range(0, rows, step):
        count = min(step, rows - first)
        left = original.band(pair.original.name, first, count).float()
        right = fork.band(pair.fork.name, first, count).float()
        equal += int((values_as_stored(left, pair.fork.dtype) == right).all(1).sum().item())
        close += int(((right - left).norm(dim=1) <= CLOSE * left.norm(dim=1)).sum().item())
    return equal / max(rows, 1), close / max(rows, 1)


def _permuted(
    pair: Pair, original: WeightReader, fork: WeightReader
) -> tuple[Certainty, tuple[Evidence, ...]] | None:
    """Rows at other places: bit-identical copies first, then rows that were trained on."""
    try:
        moved = _moved(pair, original, fork)
        if moved >= OTHER:
            evidence = Evidence("rows-found-elsewhere", round(moved, 4), "share of all, equal there")
            return (Certainty.PROVED if moved >= ALL else Certainty.CONSISTENT), (evidence,)
        alike = _alike_elsewhere(pair, original, fork)
    except UnreadableTensorError:
        return None
    if alike < OTHER:
        return None
    note = f"share of {PROBES} rows that are like one at another place"
    return Certainty.CONSISTENT, (Evidence("rows-alike-elsewhere", round(alike, 4), note),)


def _moved(pair: Pair, original: WeightReader, fork: WeightReader) -> float:
    """Share of the fork's rows that the original has, bit-identical, at any place if some are elsewhere."""
    places: dict[bytes, list[int]] = {}
    for index, digest in enumerate(_row_digests(pair.original.name, original, pair.fork.dtype)):
        places.setdefault(digest, []).append(index)
    digests = _row_digests(pair.fork.name, fork, pair.fork.dtype)
    found = sum(digest in places for digest in digests)
    elsewhere = sum(digest in places and index not in places[digest] for index, digest in enumerate(digests))
    return found / max(len(digests), 1) if elsewhere else 0.0


def _row_digests(name: str, reader: WeightReader, dtype: str) -> list[bytes]:
    digests = list[bytes]()
    shape = reader.tensors()[name].shape
    step = _rows_at_a_time(shape)
    for first in range(0, shape[0], step):
        band: torch.Tensor = values_as_stored(reader.band(name, first, step).float(), dtype)
        digests.extend(hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in band.numpy())
    return digests


def _rows_at_a_time(shape: tuple[int, ...]) -> int:
    return max(1, ELEMENTS_AT_A_TIME // max(shape[1], 1))


def _alike_elsewhere(pair: Pair, original: WeightReader, fork: WeightReader) -> float:
    """Share of some of the fork's rows whose likeliest counterpart is at another place."""
    import torch

    rows, step = pair.fork.shape[0], _rows_at_a_time(pair.original.shape)
    chosen = torch.arange(0, rows, max(1, rows // PROBES))[:PROBES]
    mine = torch.cat([fork.band(pair.fork.name, int(index), 1).float() for index in chosen])
    mean = original.band(pair.original.name, 0, step).float().mean(0)
    mine = torch.nn.functional.normalize(mine - mean, dim=1)
    best, where = torch.full((len(chosen),), -1.0), torch.zeros(len(chosen), dtype=torch.long)
    for first in range(0, pair.original.shape[0], step):
        band = original.band(pair.original.name, first, step).float() - mean
        value, index = (mine @ torch.nn.functional.normalize(band, dim=1).T).max(1)
        where = torch.where(value > best, index + first, where)
        best = torch.maximum(value, best)
    return ((best >= ALIKE) & (where != chosen)).float().mean().item()
