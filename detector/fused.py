"""Statistics of a change in one loop over the stored bits, in machine code.

`tiles.Meter` does the same with torch, a pass over the tile for each operation; here a value is loaded once
and all sums are updated while it is in a register. Sums are float32 over a block of 1024 elements, float64
beyond. Their order is that of the elements, so that neither threads nor alignment change a bit of the result.
"""

from __future__ import annotations

import ctypes
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detector.grid import PRECISION, SMALLEST
from detector.machine_code import Kept

Array = npt.NDArray[Any]

BLOCK = 1024
"""Elements that are added, then counted: while a short block is counted, the next one is on its way from
memory; of 4096 elements the loop waited for memory half of its time."""
LEVELS = 32
"""Code 0 is a value that did not move, k + 1 one that moved by level k."""
_ROOM = BLOCK + 64
_LOOP = Path(__file__).with_name("fused_loop.py")


def _make(width: int) -> tuple[bytes, str]:
    from detector.fused_loop import machine_code

    return machine_code(width)


_ARGUMENTS = (
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_ssize_t, ctypes.c_void_p),
    *(ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p),
)
_CODE = {width: Kept(_LOOP, width, functools.partial(_make, width), _ARGUMENTS) for width in (2, 4)}


@functools.cache
def _setting(dtype: str) -> Array:
    """(2) uint32: exponent bits of the smallest normal number, and of one more than bits of a significand."""
    power = math.log2(SMALLEST[dtype]) + PRECISION[dtype] - 1
    return np.array([max(round(power) + 127, 1) << 23, (PRECISION[dtype] + 1) << 23], np.uint32)


def measure(  # noqa: PLR0913
    before: Array,
    after: Array,
    columns: int,
    dtype: str,
    within: bool,  # noqa: FBT001
    marks: Array,
) -> tuple[Array, float, tuple[int, int], bool, Array]:
    """Add up whole rows of two tensors.

    Args:
        before: (rows · columns) stored bits of the original: int16 of bfloat16 or int32 of float32.
        after: of the fork, of the same type.
        columns: elements a row.
        dtype: the fork's type.
        within: whether to look for values that moved by more than one step of bf16.
        marks: (columns) uint8, set where a column has a moved value; empty if nobody asks.

    Returns:
        Σx², ΣΔ², Σx·Δ and Σ(power of two below |y|)², float64, which are not finite, or vanish, where float32
        does not hold the squares; the largest |Δ|; rows with a moved value and the first of them or −1;
        whether no value moved by more than a step of bf16; (33) int64 numbers of values that did not move,
        and that moved by each level.
    """
    index, total = np.empty(_ROOM, np.uint8), np.zeros(4, np.float64)
    levels, found = np.zeros(LEVELS + 1, np.int64), np.array([0, 0, -1, within], np.int64)
    sides = (np.ascontiguousarray(before), np.ascontiguousarray(after))
    _CODE[before.itemsize](
        sides[0].ctypes.data,
        sides[1].ctypes.data,
        len(before) // columns,
        columns,
        _setting(dtype).ctypes.data,
        marks.ctypes.data,
        len(marks),
        index.ctypes.data,
        total.ctypes.data,
        levels.ctypes.data,
        found.ctypes.data,
    )
    largest, moved, first, stays = found.tolist()
    return total, float(np.uint32(largest).view(np.float32)), (moved, first), bool(stays), levels
