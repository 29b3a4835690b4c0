"""A PEFT adapter shipped alone: its rank, scale and reach are stated by its own factors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.adapted import pair_adapter
from detector.compare import compare_pair
from detector.edits.context import layer_range, module_names
from detector.edits.direction import ALIGNED
from detector.errors import UnreadableTensorError
from detector.formats.names import layer_of
from detector.formats.peft import PeftReader
from detector.interface import (
    Certainty,
    Edit,
    EditDetail,
    EditKind,
    Evidence,
    Lineage,
    LineageStatus,
    TensorDiff,
    TensorStatus,
    WeightReader,
)
from detector.pairing import EMBEDDING_MODULES, EMBEDDINGS, HEADS, Pair
from detector.roster import layer_numbers

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class _Applied:
    """One adapted matrix."""

    pair: Pair
    rank: int
    relative_norm: float
    alignment: float
    """Of the leading direction, for residual writers; 0 for other matrices."""
    direction: torch.Tensor | None


def adapter_lineage(original: WeightReader, adapter: PeftReader) -> Lineage:
    """Whether the factors fit the original's matrices; shapes are all that an adapter says about its base."""
    found = pair_adapter(original.tensors(), adapter)
    fitting = len(adapter.targets) - len(found.unfitting)
    evidence = (
        Evidence("fitting-factors", fitting, f"of {len(adapter.targets)} adapted matrices"),
        Evidence("shapes-only", value=True, note="another model of the same shape fits as well"),
    )
    if any(_contradicts(target, original, adapter) for target in found.unfitting):
        return Lineage(LineageStatus.UNRELATED, evidence)
    some = (fitting or found.saved) and not found.unfitting
    return Lineage(LineageStatus.CONSISTENT if some else LineageStatus.UNKNOWN, evidence)


def _contradicts(target: str, original: WeightReader, adapter: PeftReader) -> bool:
    """The original has this matrix, in another shape, or has no such layer; vocabularies may grow.

    A target that it has under no name that we know says nothing: libraries rename modules, and stack them.
    """
    info = original.tensors().get(target)
    if info is not None:
        elements = math.prod(adapter.shape(target))
        return target not in {*EMBEDDINGS, *HEADS} and math.prod(info.shape) != elements
    layer = layer_of(target)
    return layer is not None and layer not in layer_numbers(original)


def find_adapter(
    original: WeightReader, adapter: PeftReader
) -> tuple[tuple[Edit, ...], tuple[TensorDiff, ...]]:
    """The adapter as an edit, a directional edit if it amounts to one, and the tensors it changes."""
    found = pair_adapter(original.tensors(), adapter)
    applied, unread = [], []
    for pair in found.adapted:
        try:
            applied.append(_apply(pair, original, adapter))
        except UnreadableTensorError:
            unread.append(pair)
    saved = [compare_pair(pair, original, adapter) for pair in found.saved]
    replaced = sum(comparison.status is TensorStatus.CHANGED for comparison in saved) + len(found.resized)
    edits = [_edit(adapter, [one.pair for one in applied] + unread, Certainty.PROVED, replaced)]
    if directional := _directional(applied):
        edits.append(directional)
    diffs = [*(_diff(one) for one in applied), *(comparison.as_diff() for comparison in saved)]
    return tuple(edits), (*diffs, *(_resized(pair) for pair in found.resized))


def _apply(pair: Pair, original: WeightReader, adapter: PeftReader) -> _Applied:
    import torch

    weights = original.values(pair.original.name).to(torch.float32)
    if weights.dim() < 2:
        size = adapter.delta(pair.fork.name).norm().item() / max(weights.norm().item(), 1e-30)
        return _Applied(pair, 0, size, 0.0, None)
    turned = pair.module in EMBEDDING_MODULES
    if adapter.is_dora(pair.fork.name):  # lengths of rows change too, so that the change has full rank
        change = adapter.delta(pair.fork.name, weights)
        basis, triangle = torch.linalg.qr(change.T if turned else change)
        right = torch.eye(triangle.shape[1])
    else:
        left, right = adapter.factors(pair.fork.name)
        if turned:
            left, right = right.T, left.T
        basis, triangle = torch.linalg.qr(left)
    if turned:
        weights = weights.T
    inner, values, outer = torch.linalg.svd(triangle @ right, full_matrices=False)
    norm = values.norm().item()
    alignment, direction = 0.0, None
    if pair.writes_residual and norm > 0:
        direction = basis @ inner[:, 0]
        alignment = torch.cosine_similarity(outer[0], direction @ weights, dim=0).abs().item()
    rank = int((values > 1e-5 * values[0]).sum().item()) if norm > 0 else 0
    return _Applied(pair, rank, norm / max(weights.norm().item(), 1e-30), alignment, direction)


def find_adapter_claim(original: WeightReader, adapter: PeftReader) -> Edit:
    """The adapter as its headers and configuration describe it."""
    found = pair_adapter(original.tensors(), adapter)
    return _edit(adapter, list(found.adapted), Certainty.CONSISTENT)


def _edit(adapter: PeftReader, pairs: list[Pair], certainty: Certainty, replaced: int | None = None) -> Edit:
    matrices = [target for target in adapter.targets if adapter.rank(target)]
    ranks = [adapter.rank(target) for target in matrices]
    scales = sorted({adapter.scale(target) for target in matrices})
    changed = "" if replaced is None else f"; {replaced} of them differ from the original's"
    evidence = [
        Evidence("adapted-matrices", len(matrices), "low-rank factors, shipped without the base"),
        Evidence("scale", ", ".join(f"{scale:g}" for scale in scales), "factor of B·A"),
        Evidence("saved-modules", len(adapter.saved), f"tensors shipped whole{changed}"),
        Evidence("dora", adapter.config.dora),
    ]
    if adapter.config.doubt:
        evidence.append(Evidence("factors-in-doubt", value=True, note=adapter.config.doubt))
    if foreign := adapter.foreign:
        evidence.append(Evidence("undecoded-tensors", len(foreign), f"such as {foreign[0][:120]}"))
    detail = EditDetail(rank=max(ranks, default=None), modules=module_names(pairs), layers=layer_range(pairs))
    return Edit(EditKind.ADAPTER, certainty, detail, tuple(evidence))


def _directional(applied: list[_Applied]) -> Edit | None:
    """Every adapted residual writer changes along Wᵀu for its own output direction u."""
    writers = [one for one in applied if one.direction is not None]
    aligned = [one for one in writers if one.alignment >= ALIGNED]
    if len(aligned) < 2 or 2 * len(aligned) < len(writers):
        return None
    pairs = [one.pair for one in aligned]
    alignments = sorted(one.alignment for one in aligned)
    evidence = (
        Evidence("aligned-matrices", len(aligned), f"of {len(writers)} adapted residual writers"),
        Evidence(
            "alignment", round(alignments[len(alignments) // 2], 4), "median cosine of input vector and Wᵀu"
        ),
    )
    detail = EditDetail(
        rank=max(one.rank for one in aligned), modules=module_names(pairs), layers=layer_range(pairs)
    )
    return Edit(EditKind.DIRECTIONAL_EDIT, Certainty.CONSISTENT, detail, evidence)


def _diff(one: _Applied) -> TensorDiff:
    return TensorDiff(
        name=one.pair.name,
        status=TensorStatus.CHANGED,
        layer=one.pair.layer,
        module=one.pair.module,
        relative_norm=one.relative_norm,
        fraction_changed=1.0,
        rank=one.rank or None,
    )


def _resized(pair: Pair) -> TensorDiff:
    return TensorDiff(
        name=pair.name,
        status=TensorStatus.RESHAPED,
        layer=pair.layer,
        module=pair.module,
        relative_norm=0.0,
        fraction_changed=0.0,
        rank=None,
    )
