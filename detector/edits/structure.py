"""Edits of the shape: layers dropped, repeated or reordered, and vocabularies that grew, shrank or moved."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from detector.edits.context import Context
from detector.errors import UnreadableTensorError
from detector.interface import Certainty, Edit, EditDetail, EditKind, Evidence, TensorStatus, WeightReader
from detector.pairing import EMBEDDING, HEAD, Pair

if TYPE_CHECKING:
    import torch

ROWS_AT_A_TIME = 4096
TOKEN_MODULES = frozenset({EMBEDDING, HEAD})
CLOSE = 0.2
"""Relative distance of two rows below which they are the same token's, trained on or rounded."""


def find_layer_surgery(layers: Mapping[int, int], original: int, fork: int) -> tuple[Edit, ...]:
    """Compare the layer order.

    Args:
        layers: layer of the fork → layer of the original it is a copy of.
        original: number of layers of the original.
        fork: number of layers of the fork.
    """
    in_place = all(source == layer for layer, source in layers.items())
    if original == fork and in_place:
        return ()
    unmatched = fork - len(layers)
    sources = tuple(layers.get(layer, -1) for layer in range(fork))
    evidence = (
        Evidence("layers", fork, f"the original has {original}"),
        Evidence("source-layers", _runs(sources), "by neuron correlation"),
        Evidence("new-layers", unmatched, "like no layer of the original"),
    )
    proved = Certainty.PROVED if unmatched == 0 else Certainty.CONSISTENT
    moved = [layer for layer, source in sorted(layers.items()) if layer != source]
    span = (moved[0], moved[-1]) if moved else None
    return (Edit(EditKind.LAYER_SURGERY, proved, EditDetail(layers=span, sources=sources), evidence),)


def find_vocabulary_change(context: Context) -> tuple[Edit, ...]:
    """Rows added to, removed from or permuted in the embedding and the head."""
    edits = [
        _resized(pair, context.original, context.fork)
        for pair in context.pairing.reshaped
        if pair.name in TOKEN_MODULES and pair.original.shape[1:] == pair.fork.shape[1:]
    ]
    for comparison in context.comparisons:
        token_rows = comparison.pair.name in TOKEN_MODULES and comparison.status is TensorStatus.CHANGED
        if token_rows and comparison.relative_norm > 0.5:
            edits.extend(_permuted(comparison.pair, context.original, context.fork))
    return tuple(edits[:1])


def common_rows_close(pair: Pair, original: WeightReader, fork: WeightReader) -> float:
    """Share of the rows that both have, at the same place, with nearly the same values."""
    rows = min(pair.original.shape[0], pair.fork.shape[0])
    close = 0
    for first in range(0, rows, ROWS_AT_A_TIME):
        count = min(ROWS_AT_A_TIME, rows - first)
        left = original.band(pair.original.name, first, count).float()
        right = fork.band(pair.fork.name, first, count).float()
        distance = (right - left).norm(dim=1)
        close += int((distance <= CLOSE * left.norm(dim=1)).sum().item())
    return close / max(rows, 1)


def _resized(pair: Pair, original: WeightReader, fork: WeightReader) -> Edit:
    before, after = pair.original.shape[0], pair.fork.shape[0]
    kept = common_rows_close(pair, original, fork)
    evidence = (
        Evidence("rows", after, f"the original has {before}"),
        Evidence("rows-kept-in-place", round(kept, 4), "share of the common rows"),
    )
    certainty = Certainty.PROVED if kept >= 0.99 else Certainty.CONSISTENT
    return Edit(EditKind.VOCABULARY_CHANGE, certainty, EditDetail(modules=(pair.module,)), evidence)


def _permuted(pair: Pair, original: WeightReader, fork: WeightReader) -> tuple[Edit, ...]:
    """Equal rows at other places; only exact copies are looked for."""
    try:
        before = _row_digests(pair.original.name, original)
        after = _row_digests(pair.fork.name, fork)
    except UnreadableTensorError:
        return ()
    places = {digest: index for index, digest in enumerate(before)}
    moved = sum(digest in places and places[digest] != index for index, digest in enumerate(after))
    if 2 * moved < len(after):
        return ()
    evidence = (Evidence("rows-moved", moved, f"of {len(after)}, bit-identical at another place"),)
    return (Edit(EditKind.VOCABULARY_CHANGE, Certainty.PROVED, EditDetail(modules=(pair.module,)), evidence),)


def _row_digests(name: str, reader: WeightReader) -> list[bytes]:
    digests = list[bytes]()
    rows = reader.tensors()[name].shape[0]
    for first in range(0, rows, ROWS_AT_A_TIME):
        band: torch.Tensor = reader.band(name, first, ROWS_AT_A_TIME).float()
        digests.extend(hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in band.numpy())
    return digests


def _runs(sources: tuple[int, ...]) -> str:
    """`[0, 1, 2, 2, 3, -1]` as `0-2 2-3 new`."""
    parts: list[list[int]] = []
    for source in sources:
        if parts and source >= 0 and parts[-1][-1] == source - 1:
            parts[-1].append(source)
        else:
            parts.append([source])
    return " ".join(
        "new" if run[0] < 0 else (f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0])) for run in parts
    )
