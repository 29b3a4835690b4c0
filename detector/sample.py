"""The part of a matrix pair that its spectrum is judged on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.formats.views import view_cost
from detector.grid import effective_dtype, half_step, half_ulp, is_float, usable
from detector.interface import TensorInfo, WeightReader
from detector.pairing import EMBEDDING_MODULES, Pair

if TYPE_CHECKING:
    import torch

READ_ELEMENTS = 1 << 18
"""Elements decoded at a time."""
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
    first, last, step = 0, rows, 1
    if by_columns:
        step = -(-rows * columns // elements)
    else:
        count = min(rows, max(1, elements // columns))
        first = (rows - count) // 2
        last = first + count
    ours = _cut(original, pair.original, first, last, step)
    theirs = _cut(fork, pair.fork, first, last, step)
    half_fork = _half(theirs, pair.fork.dtype)
    half_original = _half(ours, pair.original.dtype)
    if half_original is None:
        half_original = half_ulp(ours.values, "BF16")

    def turned(part: torch.Tensor) -> torch.Tensor:
        return part.T.contiguous() if embedding else part

    return Sample(
        weights=turned(ours.values),
        delta=turned(theirs.values - ours.values),
        half_fork=None if half_fork is None else turned(half_fork),
        half_original=turned(half_original),
    )


@dataclass(frozen=True, slots=True)
class _Cut:
    """Every so many columns of some rows, float32."""

    values: torch.Tensor
    half: torch.Tensor | None
    """Half a step of values whose step follows from their whole row; None for plain and unknown types."""


def _cut(reader: WeightReader, info: TensorInfo, first: int, last: int, step: int) -> _Cut:
    """Read rows `first` to `last`, some at a time, and keep every `step`-th column.

    A down projection of a large model has a gigabyte of values, of which a few megabytes are kept.
    """
    import torch

    at_once = max(1, READ_ELEMENTS // info.shape[1]) if view_cost(reader, info, 1) < info.nbytes else last
    values, halves = [], []
    for row in range(first, last, at_once):
        stored = reader.band(info.name, row, min(at_once, last - row))
        if is_float(info.dtype):
            values.append(usable(stored[:, ::step]))
            continue
        whole = usable(stored)
        values.append(whole[:, ::step])
        half = half_step(whole, info.dtype)
        if half is not None:
            halves.append(half[:, ::step])
    return _Cut(torch.cat(values), torch.cat(halves) if halves else None)


def _half(cut: _Cut, dtype: str) -> torch.Tensor | None:
    """Half a step of each value; a wide container of narrow numbers has the step of the numbers."""
    if not is_float(dtype):
        return cut.half
    half, effective = half_ulp(cut.values, dtype), effective_dtype(cut.values, dtype)
    return half if effective == dtype else half_ulp(cut.values, effective).maximum(half)  # its subnormals
