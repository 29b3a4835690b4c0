"""Statistics of a change in one loop over the stored bits, compiled by numba at first use and kept on disk.

`tiles.Meter` does the same with torch, a pass over the tile for each operation; here a value is loaded once
and all sums are updated while it is in a register. Sums are float32 over a block of 4096 elements, float64
beyond. Their order is that of the elements, so that neither threads nor alignment change a bit of the result.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from detector.grid import PRECISION, SMALLEST

Function = TypeVar("Function", bound=Callable[..., object])
Array = npt.NDArray[Any]

BLOCK = 4096
"""Elements that are looked at together: both sides and an index stay in the first cache."""
LEVELS = 32
_CODES = np.uint16(LEVELS + 1)
"""0 is a value that did not move, k + 1 one that moved by level k."""
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


@functools.cache
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
    index, triples = np.empty(BLOCK + 2, np.uint8), np.empty(BLOCK, np.uint16)
    joint = np.zeros((LEVELS + 1) ** 3, np.uint32)
    total = np.zeros(4, np.float64)
    largest, moved, first, padding, highest = np.uint32(0), 0, -1, 0, 0
    for row in range(len(before) // columns):
        top = np.uint32(0)
        for left in range(0, columns, BLOCK):
            width = min(BLOCK, columns - left)
            at = row * columns + left
            x, y = before[at : at + width], after[at : at + width]
            top = max(top, _add(x, y, grid, index, total))
            counted, code = _count(index, width, triples, joint)
            padding, highest = padding + counted - width, max(highest, code)
            if len(marks):
                _mark(index[:width], marks[left : left + width])
            if within:
                within = _stays(x, y)
        if top > 0:
            moved, first = moved + 1, row if first < 0 else first
            largest = max(largest, top)
    bits = np.uint32(largest)
    return total, bits.view(np.float32), (moved, first), within, _unfolded(joint, highest + 1, padding)


@compiled
def _bits(stored: Array, i: int) -> np.uint32:
    """Of the float32: bfloat16 is the upper half of one."""
    if stored.itemsize == 2:
        return np.uint32(np.uint32(np.uint16(stored[i])) * _HALF)
    return np.uint32(stored[i])


@compiled
def _add(before: Array, after: Array, grid: Array, index: Array, total: Array) -> np.uint32:
    """Add the sums of a block to `total`, set each value's code in `index`; bits of the largest |Δ|."""
    least, shift = grid[0], np.uint32((grid[1] + np.uint32(1)) << np.uint32(23))
    square, change, dot, floor = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    largest = np.uint32(0)
    for i in range(len(before)):
        low, high = np.uint32(_bits(before, i)), np.uint32(_bits(after, i))
        x, y = low.view(np.float32), high.view(np.float32)
        delta = np.float32(y - x)
        square += x * x
        change += delta * delta
        dot += x * delta
        power = np.uint32(max(np.uint32(high & _EXPONENT), least))
        step = power.view(np.float32)
        floor += step * step
        size = np.uint32(delta.view(np.uint32) & _MAGNITUDE)
        largest = np.uint32(max(largest, size))
        # the power has no mantissa, so that the difference's exponent field is that of the exponents
        apart = np.int32(np.int32(size - power + shift) >> np.int32(23))
        code = np.int32(min(max(apart, np.int32(1)), np.int32(LEVELS)))
        index[i] = np.uint8(code) if size != np.uint32(0) else np.uint8(0)
    total[0] += square
    total[1] += change
    total[2] += dot
    total[3] += floor
    return np.uint32(largest)


@compiled
def _count(index: Array, width: int, triples: Array, joint: Array) -> tuple[int, int]:
    """Count triples of codes: a third of the steps, and fewer that wait for the one before.

    Returns:
        codes that were counted, zeros behind the last included; the largest.
    """
    third = (width + 2) // 3
    index[width : 3 * third] = 0
    highest = np.uint8(0)
    for i in range(third):
        low, middle, high = index[i], index[i + third], index[i + 2 * third]
        highest = np.uint8(max(highest, low, middle, high))
        upper = np.uint16(np.uint16(middle) + np.uint16(np.uint16(high) * _CODES))
        triples[i] = np.uint16(np.uint16(low) + np.uint16(upper * _CODES))
    for i in range(third):
        joint[triples[i]] += np.uint32(1)
    return 3 * third, int(highest)


@compiled
def _unfolded(joint: Array, codes: int, padding: int) -> Array:
    """Numbers of values from numbers of triples; no code is `codes` or more."""
    levels = np.zeros(LEVELS + 1, np.int64)
    for high in range(codes):
        for middle in range(codes):
            for low in range(codes):
                count = joint[low + (LEVELS + 1) * (middle + (LEVELS + 1) * high)]
                levels[high] += count
                levels[middle] += count
                levels[low] += count
    levels[0] -= padding
    return levels


@compiled
def _mark(index: Array, marks: Array) -> None:
    for i in range(len(index)):
        marks[i] |= index[i]


@compiled
def _stays(before: Array, after: Array) -> bool:
    """No value moved by more than one step of bf16."""
    beyond = np.uint32(0)
    for i in range(len(before)):
        low, high = np.uint32(_bits(before, i)), np.uint32(_bits(after, i))
        power = np.uint32(max(np.uint32(low & _EXPONENT), _SMALLEST_NORMAL))
        far = abs(np.float32(high.view(np.float32) - low.view(np.float32)))
        beyond = np.uint32(beyond | np.uint32(far > power.view(np.float32) * _STEP_OF_BF16))
    return bool(beyond == np.uint32(0))
