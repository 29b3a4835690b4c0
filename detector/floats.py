"""Values of plain floats as numpy arrays: torch, which the encodings need, takes a second to import."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import numpy.typing as npt

from detector.errors import MalformedWeightsError
from detector.formats.extent import Extent, count_read, extent_of
from detector.grid import ABSURD, EXPONENT_BITS, PRECISION, SMALLEST
from detector.interface import TensorInfo, WeightReader

Floats = npt.NDArray[np.float32]

_BITS: dict[str, type[np.generic]] = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32}
"""Stored types that numpy can widen, and what they are read as."""


def read_floats(reader: WeightReader, info: TensorInfo, first: int, rows: int, step: int = 1) -> Floats:
    """`grid.usable` of some rows of a tensor, of a matrix every `step`-th column.

    Args:
        reader: holds the tensor.
        info: of a tensor, or of a view of one.
        first: row.
        rows: how many, if there are as many; all elements of a vector count as rows.
        step: of the columns.

    Raises:
        UnreadableTensorError: the encoding is not decoded.
        CrawlerError: bytes could not be had.
    """
    extent = extent_of(reader, info.name)
    if extent is None or not (extent.plain and extent.shareable and extent.layout in _BITS and info.shape):
        from detector.grid import usable

        values = usable(reader.band(info.name, first, rows))
        return np.ascontiguousarray((values[:, ::step] if step > 1 else values).numpy())
    height, *rest = info.shape
    first = min(max(first, 0), height)
    count = min(max(rows, 0), height - first)
    width = extent.nbytes // max(height, 1)
    stored = _stored(extent, first * width, count * width)
    count_read(reader, count * width)
    bits = np.frombuffer(stored, _BITS[extent.layout]).reshape(count, *rest)
    return usable_floats(widened(bits[:, ::step] if step > 1 else bits))


def _stored(extent: Extent, offset: int, length: int) -> memoryview | bytearray:
    """These bytes where they lie in memory, else a copy."""
    if length:
        with contextlib.suppress(MalformedWeightsError):
            window = extent.window(offset, length)
            if window is not None:
                return window.view(0, length)
    buffer = bytearray(length)
    extent.read_into(offset, memoryview(buffer))
    return buffer


def widened(bits: npt.NDArray[Any]) -> Floats:
    """A float32 copy of stored values; uint16 stands for bfloat16, which is the upper half of a float32."""
    if bits.dtype != np.uint16:
        return bits.astype(np.float32, order="C")
    wide = bits.astype(np.uint32, order="C")
    wide <<= 16
    return wide.view(np.float32)


def usable_floats(values: Floats) -> Floats:
    """The same with zero for infinities, for what is no number, and for what is `ABSURD`; may be in place."""
    if values.size and not (values.max() <= ABSURD and values.min() >= -ABSURD):
        values[~(np.abs(values) <= ABSURD)] = 0
    return values


def half_ulp_of(values: Floats, dtype: str) -> Floats:
    """`grid.half_ulp`: half a unit in the last place of values, had they been stored as `dtype`."""
    power = (values.view(np.uint32) & np.uint32(EXPONENT_BITS)).view(np.float32)
    power *= np.float32(2.0 ** (1 - PRECISION[dtype]))
    np.maximum(power, np.float32(SMALLEST[dtype]), out=power)
    power /= 2
    return power


def half_step_of(values: Floats, dtype: str) -> Floats | None:
    """`grid.half_step`: half a rounding step of values in an encoding; None when the step is not known."""
    if dtype in PRECISION:
        return half_ulp_of(values, dtype)
    import torch

    from detector.grid import half_step

    half = half_step(torch.from_numpy(values), dtype)
    return None if half is None else np.ascontiguousarray(half.numpy())


def as_bf16(values: Floats) -> Floats:
    """Finite values rounded to the nearest bfloat16, ties to even."""
    bits = values.view(np.uint32)
    rounded = bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))
    rounded &= np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def effective_dtype_of(values: Floats, dtype: str) -> str:
    """`grid.effective_dtype`: `BF16` when at least 99 % of the values of a wider type fit it."""
    if dtype not in {"F32", "F16"}:
        return dtype
    fits = np.count_nonzero(as_bf16(values) == values) / max(values.size, 1)
    return "BF16" if fits >= 0.99 else dtype


def square_sum(values: Floats) -> float:
    """Squared norm."""
    flat = values.ravel()
    return float(np.dot(flat, flat))
