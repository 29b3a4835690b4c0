"""Pairing by content, for tensors whose names say nothing: same shape, and sampled rows that are alike.

A wrong pair would be a wrong accusation, so a pair is made only where exactly one counterpart is alike, on
both sides; where two are, or one only halfway, the tensor is unmeasured. Fused projections whose row order
depends on the architecture (`query_key_value`) are read in the one order in which all three parts are alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from detector.errors import UnreadableTensorError
from detector.formats.roles import role_key, split_role
from detector.formats.views import base_name, view
from detector.interface import TensorInfo, WeightReader
from detector.pairing import Pair, Pairing, Unpaired

if TYPE_CHECKING:
    import torch

ROWS = 8
"""Rows of a matrix that are compared: 8 rows of 64 keep unrelated ones under a correlation of 0.25."""
ALIKE = 0.8
"""Correlation from which two bands are one matrix's, trained on or quantised: 4-bit rounding leaves 0.99, a
fine-tune that moves a weight by half of its size 0.89."""
UNLIKE = 0.3
"""Correlation below which they are not; in between nothing is said."""
MAX_GROUP = 512
"""Tensors of one shape on a side; more are left unmeasured, as every one is compared with every other."""
FUSED_MODULES = frozenset({"query_key_value", "qkv", "qkv_proj", "Wqkv", "c_attn"})
PARTS = ("q_proj", "k_proj", "v_proj")
HEAD_SIZES = (16, 32, 48, 64, 80, 96, 128, 160, 192, 256)


def match_by_content(pairing: Pairing, original: WeightReader, fork: WeightReader) -> Pairing:
    """Pair what the names left over; `added` and `missing` shrink, `unmeasured` says what stays open.

    Raises:
        CrawlerError: bytes could not be had.
    """
    pairs = [*_fused(pairing.added, pairing.missing, fork, original, turned=False)]
    pairs += _fused(pairing.missing, pairing.added, original, fork, turned=True)
    pairing = _without(pairing, pairs)
    found, open_ = _alike(pairing, original, fork)
    pairing = _without(pairing, found)
    names = {unpaired.info.name for unpaired in open_}
    added = tuple(info for info in pairing.added if info.name not in names)
    return replace(pairing, added=added, unmeasured=(*pairing.unmeasured, *open_))


def _without(pairing: Pairing, found: list[Pair]) -> Pairing:
    """The pairing with these pairs made."""
    theirs = _used((pair.fork for pair in found), pairing.added)
    ours = _used((pair.original for pair in found), pairing.missing)
    return replace(
        pairing,
        pairs=tuple(sorted((*pairing.pairs, *found), key=lambda pair: pair.name)),
        added=tuple(info for info in pairing.added if info.name not in theirs),
        missing=tuple(info for info in pairing.missing if info.name not in ours),
    )


def _used(infos: Iterable[TensorInfo], stored: tuple[TensorInfo, ...]) -> set[str]:
    """Stored tensors that these tensors or views are made of."""
    names = {info.name for info in stored}
    return {info.name if info.name in names else base_name(info.name) for info in infos}


def _alike(pairing: Pairing, original: WeightReader, fork: WeightReader) -> tuple[list[Pair], list[Unpaired]]:
    found, open_ = list[Pair](), list[Unpaired]()
    for shape in sorted({info.shape for info in pairing.added if _is_matrix(info)}):
        theirs = [info for info in pairing.added if info.shape == shape]
        ours = [info for info in pairing.missing if info.shape == shape]
        if not ours:
            continue
        if max(len(theirs), len(ours)) > MAX_GROUP:
            open_ += [
                Unpaired(info, f"{len(ours)} candidates of its shape are too many to compare")
                for info in theirs
            ]
            continue
        pairs, rest = _match_group(_bands(theirs, fork), _bands(ours, original))
        found += pairs
        open_ += rest
    return found, open_


Band = tuple[TensorInfo, "torch.Tensor"]


def _match_group(theirs: list[Band], ours: list[Band]) -> tuple[list[Pair], list[Unpaired]]:
    """Pairs that are each other's only likeness, and what is in doubt."""
    import torch

    if not theirs or not ours:
        return [], []
    likeness = (torch.stack([band for _, band in theirs]) @ torch.stack([band for _, band in ours]).T).abs()
    pairs, open_ = list[Pair](), list[Unpaired]()
    for index, (info, _) in enumerate(theirs):
        row = likeness[index]
        best = int(row.argmax().item())
        rivals = int((row >= UNLIKE).sum().item()) + int((likeness[:, best] >= UNLIKE).sum().item())
        if row[best] < UNLIKE:
            continue
        if row[best] >= ALIKE and rivals == 2:
            pairs.append(Pair(info.name, ours[best][0], info, "content"))
        else:
            reason = (
                f"its rows are like those of {rivals - 1} tensors"
                if rivals > 2
                else "its rows are only half alike"
            )
            open_.append(Unpaired(info, reason))
    return pairs, open_


def _is_matrix(info: TensorInfo) -> bool:
    return len(info.shape) == 2 and min(info.shape) >= ROWS


def _bands(infos: Iterable[TensorInfo], reader: WeightReader) -> list[Band]:
    found = []
    for info in infos:
        try:
            found.append((info, _signature(reader.band(info.name, info.shape[0] // 4, ROWS))))
        except UnreadableTensorError:
            continue
    return found


def _signature(band: torch.Tensor) -> torch.Tensor:
    """A band as a vector of unit length, what its rows and columns share taken out."""
    import torch

    values = torch.nan_to_num(band.to(torch.float32), posinf=0.0, neginf=0.0)
    values = values - values.mean(1, keepdim=True)
    flat = (values - values.mean(0, keepdim=True)).flatten()
    unit: torch.Tensor = flat / flat.norm().clamp_min(1e-30)
    return unit


def _fused(
    fused: tuple[TensorInfo, ...],
    split: tuple[TensorInfo, ...],
    fused_reader: WeightReader,
    split_reader: WeightReader,
    *,
    turned: bool,
) -> list[Pair]:
    """Pairs of the parts of fused attention inputs with split ones.

    Args:
        fused: unpaired tensors of one side.
        split: unpaired tensors of the other.
        fused_reader: reader of the first side.
        split_reader: reader of the second.
        turned: the first side is the original.
    """
    by_role = {role_key(info.name): info for info in split}
    pairs: list[Pair] = []
    for whole in fused:
        stem, module, leaf = split_role(role_key(whole.name))
        parts = [by_role[role] for part in PARTS if (role := f"{stem}.{part}.{leaf}") in by_role]
        if module not in FUSED_MODULES or len(parts) < len(PARTS) or not _is_matrix(whole):
            continue
        readings = [
            cuts for cuts in _readings(whole, parts) if _fits(cuts, parts, fused_reader, split_reader)
        ]
        if len(readings) != 1:
            continue
        for cut, part in zip(readings[0], parts, strict=True):
            pairs.append(
                Pair(part.name, cut, part, "content") if turned else Pair(part.name, part, cut, "content")
            )
    return pairs


def _readings(whole: TensorInfo, parts: list[TensorInfo]) -> Iterable[list[TensorInfo]]:
    """Row orders that the shapes allow: one part after the other, or by head."""
    heights = [part.shape[0] for part in parts]
    if sum(heights) != whole.shape[0] or any(part.shape[1:] != whole.shape[1:] for part in parts):
        return
    starts = [sum(heights[:index]) for index in range(len(parts))]
    yield [
        view(whole, f"rows:{start}:{start + height}") for start, height in zip(starts, heights, strict=True)
    ]
    if len(set(heights)) == 1:
        for size in HEAD_SIZES:
            if heights[0] % size == 0 and heights[0] > size:
                yield [
                    view(whole, f"heads:{heights[0] // size}:{len(parts)}:{index}")
                    for index in range(len(parts))
                ]


def _fits(
    cuts: list[TensorInfo], parts: list[TensorInfo], fused_reader: WeightReader, split_reader: WeightReader
) -> bool:
    """Sampled rows of every part are alike; the last ones tell head sizes apart that agree on the first."""
    for cut, part in zip(cuts, parts, strict=True):
        for first in (0, part.shape[0] // 4, part.shape[0] - ROWS):
            try:
                left = _signature(fused_reader.band(cut.name, first, ROWS))
                right = _signature(split_reader.band(part.name, first, ROWS))
            except UnreadableTensorError:
                return False
            if (left @ right).item() < ALIKE:
                return False
    return True
