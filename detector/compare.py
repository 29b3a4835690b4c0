"""Comparison of one tensor with its counterpart, block by block."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.errors import UnreadableTensorError
from detector.grid import LEGACY, half_ulp, is_float, quantise
from detector.interface import TensorDiff, TensorStatus, WeightReader
from detector.pairing import Pair, blocks

if TYPE_CHECKING:
    import torch

VIA = ("F16", *LEGACY)
"""Narrower types that a fork may have passed through before it was stored as it is now."""
PREFILTER_ROWS = 8
EXACT = 0.9999
"""Share of equal values from which a quantised tensor counts as re-created; ties may break otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One tensor's `TensorDiff` before its spectrum, and what the edits need besides."""

    pair: Pair
    status: TensorStatus
    relative_norm: float
    fraction_changed: float
    scheme: str
    """Type that reproduces the fork's values from the original's; empty if none does."""
    agreement: float
    """Share of values equal to the original's after a round trip through the fork's own type."""
    within_a_step: bool
    """No value moved by more than one unit in the last place."""
    moved_rows: float
    """Share of rows with a moved value."""
    moved_columns: float
    non_finite: int
    """Values of the fork that are not numbers."""

    def as_diff(self, rank: int | None = None, energy: tuple[float, ...] = ()) -> TensorDiff:
        """The public form."""
        return TensorDiff(
            name=self.pair.name,
            status=self.status,
            layer=self.pair.layer,
            module=self.pair.module,
            relative_norm=self.relative_norm,
            fraction_changed=self.fraction_changed,
            rank=rank,
            energy=energy,
        )


class _Tally:
    """Sums over the blocks of one tensor."""

    def __init__(self) -> None:
        self.elements = 0
        self.unequal = 0
        self.changed = 0
        self.delta_square = 0.0
        self.square = 0.0
        self.steps = 0.0
        self.rows = 0
        self.moved_rows = 0
        self.non_finite = 0
        self.columns: torch.Tensor | None = None

    def add(self, original: torch.Tensor, fork: torch.Tensor, expected: torch.Tensor) -> None:
        """Add a block: original, fork, and the original in the fork's type; all float32."""
        import torch

        finite = torch.isfinite(fork)
        self.non_finite += int((~finite).sum().item())
        fork = torch.where(finite, fork, torch.zeros_like(fork))
        delta = fork - torch.nan_to_num(original)
        moved = fork != expected
        self.elements += fork.numel()
        self.unequal += int((fork != original).sum().item())
        self.changed += int(moved.sum().item())
        self.delta_square += delta.square().sum(dtype=torch.float64).item()
        self.square += torch.nan_to_num(original).square().sum(dtype=torch.float64).item()
        self.rows += len(fork) if fork.dim() else 1
        if moved.any():
            steps = (fork - expected).abs() / (2 * half_ulp(expected, "BF16"))
            self.steps = max(self.steps, steps[moved].max().item())
        if moved.dim() == 2:
            self.moved_rows += int(moved.any(1).sum().item())
            columns = moved.any(0)
            self.columns = columns if self.columns is None else self.columns | columns


def compare_pair(
    pair: Pair,
    original: WeightReader,
    fork: WeightReader,
    via: tuple[str, ...] = VIA,
    advance: Callable[[int], None] = lambda _: None,
) -> Comparison:
    """Compare two tensors of the same shape.

    Args:
        pair: the two tensors.
        original: reader of the original.
        fork: reader of the fork.
        via: intermediate types to try.
        advance: told the fork's elements as they are done.
    """
    same_type = pair.original.dtype == pair.fork.dtype
    try:
        candidates = _plausible(pair, original, fork, via) if is_float(pair.fork.dtype) else ()
        tally = _Tally()
        identical = same_type
        for left, right in blocks(pair, original, fork):
            identical = identical and _same_bits(left, right)
            first, second = left.float(), right.float()
            tally.add(first, second, first if same_type else values_as_stored(first, pair.fork.dtype))
            candidates = tuple(c for c in candidates if _passed_through(first, right, c))
            advance(right.numel())
    except UnreadableTensorError:
        return _unreadable(pair)
    return _conclude(pair, tally, candidates, identical=identical)


def _conclude(pair: Pair, tally: _Tally, candidates: tuple[str, ...], *, identical: bool) -> Comparison:
    agreement = 1 - tally.changed / max(tally.elements, 1)
    scheme = ""
    if identical or tally.unequal == 0:
        status = TensorStatus.IDENTICAL if pair.original.dtype == pair.fork.dtype else TensorStatus.CAST
        scheme = pair.fork.dtype
    elif agreement >= (1.0 if is_float(pair.fork.dtype) else EXACT):
        status, scheme = TensorStatus.CAST, pair.fork.dtype
    elif candidates:
        status, scheme = TensorStatus.CAST, candidates[0]
    else:
        status = TensorStatus.CHANGED
    changed = status is TensorStatus.CHANGED
    columns = tally.columns
    return Comparison(
        pair=pair,
        status=status,
        relative_norm=math.sqrt(tally.delta_square / max(tally.square, 1e-300)) if changed else 0.0,
        fraction_changed=tally.changed / max(tally.elements, 1) if changed else 0.0,
        scheme=scheme,
        agreement=agreement,
        within_a_step=tally.steps <= 1.0,
        moved_rows=tally.moved_rows / max(tally.rows, 1),
        moved_columns=0.0 if columns is None else columns.float().mean().item(),
        non_finite=tally.non_finite,
    )


def _unreadable(pair: Pair) -> Comparison:
    return Comparison(
        pair=pair,
        status=TensorStatus.UNREADABLE,
        relative_norm=0.0,
        fraction_changed=0.0,
        scheme="",
        agreement=0.0,
        within_a_step=False,
        moved_rows=0.0,
        moved_columns=0.0,
        non_finite=0,
    )


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    import torch

    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    width = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}[left.element_size()]
    return torch.equal(left.contiguous().view(width), right.contiguous().view(width))


def values_as_stored(values: torch.Tensor, dtype: str) -> torch.Tensor:
    """float32 values after rounding to a container's type; unchanged if we cannot write that type."""
    if is_float(dtype):
        return _cast(values, dtype)
    if dtype in LEGACY and values.shape[-1] % LEGACY[dtype] == 0:
        return quantise(values, dtype)
    return values


def _plausible(
    pair: Pair, original: WeightReader, fork: WeightReader, via: tuple[str, ...]
) -> tuple[str, ...]:
    """Intermediate types that explain the first few rows, and are not the fork's own type."""
    if not pair.is_matrix:
        return ()
    left = original.band(pair.original.name, 0, PREFILTER_ROWS).float()
    right = fork.band(pair.fork.name, 0, PREFILTER_ROWS)
    return tuple(name for name in via if name != pair.fork.dtype and _passed_through(left, right, name))


def _passed_through(values: torch.Tensor, fork: torch.Tensor, via: str) -> bool:
    import torch

    if via in LEGACY:
        if values.dim() != 2 or values.shape[-1] % LEGACY[via]:
            return False
        narrowed = quantise(values, via)
    else:
        narrowed = _cast(values, via)
    return torch.equal(narrowed.to(fork.dtype).float(), fork.float())


def _cast(values: torch.Tensor, dtype: str) -> torch.Tensor:
    from detector.formats.dtypes import torch_dtype

    return values.to(torch_dtype(dtype)).float()
