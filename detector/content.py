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
from detector.grid import usable
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
PLACES = 17
"""Bands of a part whose order is to be told from others: a group's rows are often in place at its ends."""
FUSED_MODULES = frozenset({"query_key_value", "qkv", "qkv_proj", "Wqkv", "wqkv", "W_pack", "c_attn"})
PARTS = ("q_proj", "k_proj", "v_proj")
HEAD_SIZES = (16, 32, 48, 64, 80, 96, 128, 160, 192, 256)


def match_by_content(pairing: Pairing, original: WeightReader, fork: WeightReader) -> Pairing:
    """Pair what the names left over; `added` and `missing` shrink, `unmeasured` says what stays open.

    Raises:
        CrawlerError: bytes could not be had.
    """
    pairs = [*_fused(pairing.added, pairing.missing, fork, original, turned=False)]
    pairs += _fused(pairing.missing, pairing.added, original, fork, turned=True)
    pairs += _both_fused(_without(pairing, pairs), original, fork)
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
    values = usable(band)
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
    """Pairs of the parts of fused attention inputs with split ones, biases in the order of their matrix.

    Args:
        fused: unpaired tensors of one side.
        split: unpaired tensors of the other.
        fused_reader: reader of the first side.
        split_reader: reader of the second.
        turned: the first side is the original.
    """
    by_role, wholes = {role_key(info.name): info for info in split}, _by_stem(fused)
    pairs: list[Pair] = []
    for (stem, leaf), whole in wholes.items():
        parts = [by_role[role] for part in PARTS if (role := f"{stem}.{part}.{leaf}") in by_role]
        if len(parts) < len(PARTS) or not _is_matrix(whole):
            continue
        orders = [
            order
            for order in _orders(whole, [part.shape[0] for part in parts])
            if all(part.shape[1:] == whole.shape[1:] for part in parts)
            and _fits(_cuts(whole, order), parts, fused_reader, split_reader)
        ]
        if len(orders) != 1:
            continue
        pairs += _as_pairs(_cuts(whole, orders[0]), parts, turned=turned)
        bias = wholes.get((stem, "bias"))
        biases = [by_role[role] for part in PARTS if (role := f"{stem}.{part}.bias") in by_role]
        if bias is not None and bias.shape == whole.shape[:1] and len(biases) == len(PARTS):
            cuts = _cuts(bias, orders[0])
            if all(cut.shape == part.shape for cut, part in zip(cuts, biases, strict=True)):
                pairs += _as_pairs(cuts, biases, turned=turned)
    return pairs


def _both_fused(pairing: Pairing, original: WeightReader, fork: WeightReader) -> list[Pair]:
    """Parts of attention inputs that both sides fuse, one of them by head: GPT-NeoX and its GGUF files."""
    ours, theirs = _by_stem(pairing.missing), _by_stem(pairing.added)
    pairs: list[Pair] = []
    for (stem, leaf), whole in theirs.items():
        other = ours.get((stem, leaf))
        if other is None or other.shape != whole.shape or not _is_matrix(whole):
            continue
        if _fits([other], [whole], original, fork):
            same = ((ours.get((stem, kind)), theirs.get((stem, kind))) for kind in (leaf, "bias"))
            pairs += (Pair(b.name, a, b, "content") for a, b in same if a and b and a.shape == b.shape)
            continue
        found = [
            orders
            for orders in _common_orders(whole)
            if _fits(_cuts(other, orders[0]), _cuts(whole, orders[1]), original, fork)
        ]
        if len(found) != 1:
            continue
        module = split_role(whole.name)[1]
        for kind in (leaf, "bias"):
            left, right = ours.get((stem, kind)), theirs.get((stem, kind))
            if (
                left is None
                or right is None
                or left.shape[:1] != whole.shape[:1]
                or left.shape != right.shape
            ):
                continue
            cuts = zip(_cuts(left, found[0][0]), _cuts(right, found[0][1]), strict=True)
            for part, (ours_cut, theirs_cut) in zip(PARTS, cuts, strict=True):
                name = right.name.replace(f".{module}.", f".{part}.")
                pairs.append(Pair(name, ours_cut, theirs_cut, "content"))
    return pairs


def _by_stem(infos: Iterable[TensorInfo]) -> dict[tuple[str, str], TensorInfo]:
    """Fused attention inputs by where they are and what: `layers.0.self_attn` and `weight`."""
    found = {}
    for info in infos:
        stem, module, leaf = split_role(role_key(info.name))
        if module in FUSED_MODULES and leaf in {"weight", "bias"}:
            found[stem, leaf] = info
    return found


def _as_pairs(cuts: list[TensorInfo], parts: list[TensorInfo], *, turned: bool) -> list[Pair]:
    return [
        Pair(part.name, cut, part, "content") if turned else Pair(part.name, part, cut, "content")
        for cut, part in zip(cuts, parts, strict=True)
    ]


Order = tuple[str, ...]
"""An operation for each of q, k and v that takes its rows out of the fused ones."""


def _orders(whole: TensorInfo, heights: list[int]) -> Iterable[Order]:
    """Row orders that the heights of q, k and v allow: one after the other, by head, or by group of heads."""
    queries, keys, values = heights
    if sum(heights) != whole.shape[0] or 0 in heights:
        return
    yield f"rows:0:{queries}", f"rows:{queries}:{queries + keys}", f"rows:{queries + keys}:{sum(heights)}"
    for size in HEAD_SIZES:
        groups, rest = divmod(keys, size)
        if keys != values or rest or groups < 2 or queries % keys:
            continue
        each = queries // keys
        if each == 1:
            yield tuple(f"heads:{groups}:3:{index}" for index in range(3))
        else:
            ends = ((0, each), (each, each + 1), (each + 1, each + 2))
            yield tuple(f"groups:{groups}:{each + 2}:{start}:{end}" for start, end in ends)


def _common_orders(whole: TensorInfo) -> Iterable[tuple[Order, Order]]:
    """Orders of both sides, of which one is one part after the other and the other is not.

    The heights are not stated anywhere: queries have as many rows as the residual stream is wide, or a third.
    """
    height, width = whole.shape
    for queries in sorted({width, height // 3}):
        keys = (height - queries) // 2
        if keys <= 0 or queries + 2 * keys != height:
            continue
        plain, *grouped = _orders(whole, [queries, keys, keys])
        for order in grouped:
            yield order, plain
            yield plain, order


def _cuts(whole: TensorInfo, order: Order) -> list[TensorInfo]:
    return [view(whole, operation) for operation in order]


def _fits(
    cuts: list[TensorInfo], parts: list[TensorInfo], fused_reader: WeightReader, split_reader: WeightReader
) -> bool:
    """Sampled rows of every part are alike, all over it: orders may agree on its first and last rows."""
    for cut, part in zip(cuts, parts, strict=True):
        last = part.shape[0] - ROWS
        for first in sorted({last * place // (PLACES - 1) for place in range(PLACES)}):
            try:
                left = _signature(fused_reader.band(cut.name, first, ROWS))
                right = _signature(split_reader.band(part.name, first, ROWS))
            except UnreadableTensorError:
                return False
            if (left @ right).item() < ALIKE:
                return False
    return True
