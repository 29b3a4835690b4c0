"""Statistics of a change in one loop over the stored bits, compiled by numba at first use and kept on disk.

`tiles.Meter` does the same with torch, a pass over the tile for each operation; here a value is loaded once
and all sums are updated while it is in a register. Sums are float32 over a block of 2048 elements, float64
beyond. Their order is that of the elements, so that neither threads nor alignment change a bit of the result.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from detector.grid import PRECISION, SMALLEST

Function = TypeVar("Function", bound=Callable[..., object])
Array = npt.NDArray[Any]

BLOCK = 2048
"""Elements that are looked at together: two float32 copies and an index stay in the first cache."""
LEVELS = 32
_BYTE = 256
_HALF = np.uint32(1 << 16)
_EXPONENT = np.uint32(0x7F800000)
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_SMALLEST_NORMAL = np.uint32(0x00800000)
_STEP_OF_BF16 = np.float32(2.0**-7)


def compiled(function: Function) -> Function:
    """The function in machine code, which runs without the interpreter's lock.

    Float sums may be reordered within a block, which lets the processor add several at a time.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "nsz", "contract"}}
    try:
        kept: Any = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return cast("Function", numba.njit(**options)(function))
    save = kept._cache.save_overload  # noqa: SLF001 - numba lets nobody say that a cache is not worth an error

    def save_if_there_is_room(*arguments: object) -> None:
        with contextlib.suppress(OSError):
            save(*arguments)

    kept._cache.save_overload = save_if_there_is_room  # noqa: SLF001
    return cast("Function", kept)


def grid(dtype: str) -> Array:
    """(2) uint32 of a float type: exponent bits of its smallest normal number, bits of its significand."""
    power = math.log2(SMALLEST[dtype]) + PRECISION[dtype] - 1
    return np.array([max(round(power) + 127, 1) << 23, PRECISION[dtype]], np.uint32)


@compiled
def measure(  # noqa: PLR0913  # compiled code takes no objects
    before: Array,
    after: Array,
    columns: int,
    grid: Array,
    within: bool,  # noqa: FBT001
    marks: Array,
) -> tuple[Array, np.float32, tuple[int, int], bool, Array]:
    """Add up whole rows of two tensors.

    Args:
        before: (rows · columns) stored bits of the original: int16 of bfloat16 or int32 of float32.
        after: of the fork, of the same type.
        columns: elements a row.
        grid: of the fork's type.
        within: whether to look for values that moved by more than one step of bf16.
        marks: (columns) uint8, set where a column has a moved value; empty if nobody asks.

    Returns:
        Σx², ΣΔ², Σx·Δ and Σ(power of two below |y|)², float64, which are not finite, or vanish, where float32
        does not hold the squares; the largest |Δ|; rows with a moved value and the first of them or −1;
        whether no value moved by more than a step of bf16; (33) int64 numbers of values that did not move,
        and that moved by each level.
    """
    x, y = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    index, joint = np.empty(BLOCK, np.uint8), np.zeros((LEVELS + 1) * _BYTE, np.uint32)
    total = np.zeros(4, np.float64)
    largest, moved, first, padding = np.float32(0), 0, -1, 0
    for row in range(len(before) // columns):
        top = np.float32(0)
        for left in range(0, columns, BLOCK):
            width = min(BLOCK, columns - left)
            at = row * columns + left
            _widen(before[at : at + width], x)
            _widen(after[at : at + width], y)
            top = max(top, _add(x[:width], y[:width], grid, index, total))
            padding += _count(index, width, joint)
            if len(marks):
                _mark(index[:width], marks[left : left + width])
            if within:
                within = _stays(x[:width], y[:width])
        if top > 0:
            moved, first = moved + 1, row if first < 0 else first
            largest = max(largest, top)
    return total, largest, (moved, first), within, _unfolded(joint, padding)


@compiled
def _widen(stored: Array, wide: Array) -> None:
    """bfloat16 is the upper half of a float32."""
    bits = wide.view(np.uint32)
    if stored.itemsize == 2:
        for i in range(len(stored)):
            bits[i] = np.uint32(np.uint16(stored[i])) * _HALF
    else:
        for i in range(len(stored)):
            bits[i] = np.uint32(stored[i])


@compiled
def _add(x: Array, y: Array, grid: Array, index: Array, total: Array) -> np.float32:
    """Add the sums of a block to `total`, set each value's level plus one, or zero; the largest |Δ|."""
    least, precision = grid[0], np.int32(grid[1])
    bits = y.view(np.uint32)
    square, change, dot, floor = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    largest = np.uint32(0)
    for i in range(len(x)):
        delta = np.float32(y[i] - x[i])
        square += x[i] * x[i]
        change += delta * delta
        dot += x[i] * delta
        power = np.uint32(max(np.uint32(bits[i] & _EXPONENT), least))
        step = power.view(np.float32)
        floor += step * step
        size = np.uint32(delta.view(np.uint32) & _MAGNITUDE)
        largest = np.uint32(max(largest, size))
        apart = np.int32(np.int32(size >> np.uint32(23)) - np.int32(power >> np.uint32(23)))
        level = np.int32(min(max(np.int32(apart + precision), np.int32(0)), np.int32(LEVELS - 1)))
        index[i] = np.uint8(level + 1) if size != np.uint32(0) else np.uint8(0)
    total[0] += square
    total[1] += change
    total[2] += dot
    total[3] += floor
    top = np.uint32(largest)
    return top.view(np.float32)


@compiled
def _count(index: Array, width: int, joint: Array) -> int:
    """Count pairs of neighbours: half as many steps as values, and fewer that wait for the one before."""
    odd = width % 2
    if odd:
        index[width] = 0
    pairs = index.view(np.uint16)
    for i in range((width + odd) // 2):
        joint[pairs[i]] += np.uint32(1)
    return odd


@compiled
def _unfolded(joint: Array, padding: int) -> Array:
    """Numbers of values from numbers of pairs."""
    levels = np.zeros(LEVELS + 1, np.int64)
    for high in range(LEVELS + 1):
        for low in range(LEVELS + 1):
            count = joint[high * _BYTE + low]
            levels[high] += count
            levels[low] += count
    levels[0] -= padding
    return levels


@compiled
def _mark(index: Array, marks: Array) -> None:
    for i in range(len(index)):
        marks[i] |= index[i]


@compiled
def _stays(x: Array, y: Array) -> bool:
    """No value moved by more than one step of bf16."""
    bits = x.view(np.uint32)
    beyond = np.uint32(0)
    for i in range(len(x)):
        power = np.uint32(max(np.uint32(bits[i] & _EXPONENT), _SMALLEST_NORMAL))
        far = abs(np.float32(y[i] - x[i])) > power.view(np.float32) * _STEP_OF_BF16
        beyond = np.uint32(beyond | np.uint32(far))
    return bool(beyond == np.uint32(0))
