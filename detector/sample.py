"""The part of a matrix pair that its spectrum is judged on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.grid import effective_dtype, half_step, half_ulp, is_float
from detector.interface import WeightReader
from detector.pairing import EMBEDDING_MODULES, Pair

if TYPE_CHECKING:
    import torch

ELEMENTS = 1 << 20
"""Elements a matrix is cut down to: the rank and the output direction of a change survive in a part of it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A matrix pair, float32. For residual writers the rows are residual-stream dimensions, all of them."""

    weights: torch.Tensor
    """(m, n) of the original."""
    delta: torch.Tensor
    """fork − original."""
    half_fork: torch.Tensor | None
    """Half a rounding step of the fork's values; None when its encoding has no known step."""
    half_original: torch.Tensor


def load_sample(pair: Pair, original: WeightReader, fork: WeightReader, elements: int = ELEMENTS) -> Sample:
    """At most `elements` elements of a matrix pair, evenly spread.

    The embedding is cut by tokens and turned, so that residual dimensions come first; the other residual
    writers are cut by columns; all other matrices by rows.
    """
    rows, columns = pair.fork.shape
    embedding = pair.module in EMBEDDING_MODULES
    by_columns = pair.writes_residual and not embedding
    first, count = 0, rows
    if not by_columns:
        count = min(rows, max(1, elements // columns))
        first = (rows - count) // 2
    left = original.band(pair.original.name, first, count)
    right = fork.band(pair.fork.name, first, count)
    weights, values = _finite(left), _finite(right)
    half_fork = _half(right, values, pair.fork.dtype)
    half_original = _half(left, weights, pair.original.dtype)
    step = -(-rows * columns // elements) if by_columns else 1

    def cut(part: torch.Tensor) -> torch.Tensor:
        part = part[:, ::step]
        return part.T.contiguous() if embedding else part.contiguous()

    return Sample(
        weights=cut(weights),
        delta=cut(values - weights),
        half_fork=None if half_fork is None else cut(half_fork),
        half_original=cut(half_ulp(weights, "BF16") if half_original is None else half_original),
    )


def _half(stored: torch.Tensor, values: torch.Tensor, dtype: str) -> torch.Tensor | None:
    """Half a step of each value; a wide container of narrow numbers has the step of the numbers."""
    effective = effective_dtype(stored, dtype) if is_float(dtype) else dtype
    half = half_step(values, effective)
    if half is None or effective == dtype:
        return half
    return half.maximum(half_ulp(values, dtype))  # subnormals of the container


def _finite(values: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nan_to_num(values.to(torch.float32), nan=0.0, posinf=0.0, neginf=0.0)
