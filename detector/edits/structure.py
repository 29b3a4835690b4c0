"""Edits of the shape: layers dropped, repeated or reordered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from detector.edits.context import Context
from detector.interface import (
    VALUE_PRESERVING,
    Certainty,
    Edit,
    EditDetail,
    EditKind,
    Evidence,
    TensorStatus,
)

HARMLESS = VALUE_PRESERVING | {EditKind.VOCABULARY_CHANGE}
"""Kinds that leave the values of the layers as they are."""


def find_layer_surgery(layers: Mapping[int, int], original: int, fork: tuple[int, ...]) -> tuple[Edit, ...]:
    """Compare the layer order.

    Args:
        layers: layer of the fork → layer of the original it is a copy of.
        original: number of layers of the original.
        fork: numbers of the layers of the fork.
    """
    in_place = all(source == layer for layer, source in layers.items())
    if original == len(fork) and in_place:
        return ()
    unmatched = len(fork) - len(layers)
    sources = tuple(layers.get(layer, -1) for layer in fork)
    evidence = (
        Evidence("layers", len(fork), f"the original has {original}"),
        Evidence("source-layers", _runs(sources), "by neuron correlation"),
        Evidence("new-layers", unmatched, "like no layer of the original"),
    )
    proved = Certainty.PROVED if unmatched == 0 else Certainty.CONSISTENT
    moved = [layer for layer, source in sorted(layers.items()) if layer != source]
    span = (moved[0], moved[-1]) if moved else None
    return (Edit(EditKind.LAYER_SURGERY, proved, EditDetail(layers=span, sources=sources), evidence),)


def confirm_surgery(
    surgery: tuple[Edit, ...], context: Context, others: tuple[Edit, ...]
) -> tuple[Edit, ...]:
    """The surgery, proved only if the layers are their sources', or follow from them by proved edits.

    Args:
        surgery: what `find_layer_surgery` said.
        context: the comparison with the sources.
        others: the other edits.
    """
    layers = [c for c in context.comparisons if c.pair.is_matrix and c.pair.layer is not None]
    equal = [c for c in layers if c.status in {TensorStatus.IDENTICAL, TensorStatus.CAST}]
    proved = len(equal) == len(layers) or all(
        edit.certainty is Certainty.PROVED for edit in others if edit.kind not in HARMLESS
    )
    evidence = Evidence("equal-matrices", len(equal), f"of {len(layers)} in the layers, with their sources'")
    return tuple(
        replace(
            edit,
            certainty=edit.certainty if proved else Certainty.CONSISTENT,
            evidence=(*edit.evidence, evidence),
        )
        for edit in surgery
    )


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
