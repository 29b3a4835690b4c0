"""A PEFT adapter shipped alone: its rank, scale and reach are stated by its own factors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.edits.context import layer_range, module_names
from detector.edits.directional import ALIGNED
from detector.errors import UnreadableTensorError
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
    TensorInfo,
    TensorStatus,
    WeightReader,
)
from detector.pairing import EMBEDDING_MODULES, Pair

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
    infos = original.tensors()
    fitting = [target for target in adapter.targets if _fits(infos, target, adapter.shape(target))]
    evidence = (
        Evidence("fitting-factors", len(fitting), f"of {len(adapter.targets)} adapted matrices"),
        Evidence("shapes-only", value=True, note="another model of the same shape fits as well"),
    )
    every = bool(fitting) and len(fitting) == len(adapter.targets)
    return Lineage(LineageStatus.CONSISTENT if every else LineageStatus.UNRELATED, evidence)


def find_adapter(
    original: WeightReader, adapter: PeftReader
) -> tuple[tuple[Edit, ...], tuple[TensorDiff, ...]]:
    """The adapter as an edit, a directional edit if it amounts to one, and the tensors it changes."""
    infos = original.tensors()
    applied, unread = [], []
    for target in adapter.targets:
        if not _fits(infos, target, adapter.shape(target)):
            continue
        pair = Pair(target, infos[target], infos[target])
        try:
            applied.append(_apply(pair, original, adapter))
        except UnreadableTensorError:
            unread.append(pair)
    edits = [_edit(adapter, [one.pair for one in applied] + unread, Certainty.PROVED)]
    if directional := _directional(applied):
        edits.append(directional)
    return tuple(edits), tuple(_diff(one) for one in applied)


def _fits(infos: Mapping[str, TensorInfo], target: str, shape: tuple[int, int]) -> bool:
    return target in infos and infos[target].shape == shape


def _apply(pair: Pair, original: WeightReader, adapter: PeftReader) -> _Applied:
    import torch

    weights = original.values(pair.original.name).to(torch.float32)
    turned = pair.module in EMBEDDING_MODULES
    if adapter.is_dora(pair.name):  # lengths of rows change too, so that the change has full rank
        change = adapter.delta(pair.name, weights)
        basis, triangle = torch.linalg.qr(change.T if turned else change)
        right = torch.eye(triangle.shape[1])
    else:
        left, right = adapter.factors(pair.name)
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
    infos = original.tensors()
    fitting = [target for target in adapter.targets if _fits(infos, target, adapter.shape(target))]
    return _edit(
        adapter, [Pair(target, infos[target], infos[target]) for target in fitting], Certainty.CONSISTENT
    )


def _edit(adapter: PeftReader, pairs: list[Pair], certainty: Certainty) -> Edit:
    ranks = [adapter.rank(target) for target in adapter.targets]
    scales = sorted(
        {adapter.config.scale(t.removesuffix(".weight"), adapter.rank(t)) for t in adapter.targets}
    )
    evidence = (
        Evidence("adapted-matrices", len(adapter.targets), "low-rank factors, shipped without the base"),
        Evidence("scale", ", ".join(f"{scale:g}" for scale in scales), "factor of B·A"),
        Evidence("saved-modules", len(adapter.saved), "tensors shipped whole"),
        Evidence("dora", adapter.config.dora),
    )
    detail = EditDetail(rank=max(ranks, default=None), modules=module_names(pairs), layers=layer_range(pairs))
    return Edit(EditKind.ADAPTER, certainty, detail, evidence)


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
        rank=one.rank,
    )
