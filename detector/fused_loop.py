"""The loop of `fused`, which numba compiles: imported only where its machine code is not kept yet.

Everything goes through bare pointers, so that the code needs neither numba nor Python once it is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from detector.fused import BLOCK, LEVELS

OPTIONS = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "nsz", "contract"},
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
"""Float sums may be reordered within a block, which lets the processor add several at a time."""
LANES = 64
_compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.njit(**OPTIONS)
_EXPONENT = np.uint32(0x7F800000)
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_SMALLEST_NORMAL = np.uint32(0x00800000)
_STEP_OF_BF16 = np.float32(2.0**-7)


def machine_code(width: int) -> tuple[bytes, str]:
    """An object file for this processor, and the name of the function in it.

    Args:
        width: bytes of a value: 2 of bfloat16, 4 of float32.
    """
    pointer, stored = types.CPointer, types.int16 if width == 2 else types.int32
    signature = types.void(
        pointer(stored),
        pointer(stored),
        types.intp,
        types.intp,
        pointer(types.uint32),
        pointer(types.uint8),
        types.intp,
        pointer(types.uint8),
        pointer(types.float64),
        pointer(types.int64),
        pointer(types.int64),
    )
    kept = numba.njit(signature, **OPTIONS)(_measure).overloads[signature.args]
    return bytes(kept.library._get_compiled_object()), str(kept.fndesc.llvm_func_name)  # noqa: SLF001


def _measure(  # noqa: PLR0913  # compiled code takes no objects
    before: Any,
    after: Any,
    rows: int,
    columns: int,
    setting: Any,
    marks: Any,
    marked: int,
    index: Any,
    total: Any,
    levels: Any,
    found: Any,
) -> None:
    """Add up whole rows of two tensors: see `fused.measure`.

    Args:
        before: stored bits of the original.
        after: of the fork.
        rows: of both.
        columns: of both.
        setting: least power, shift of exponents.
        marks: one a column.
        marked: how many; 0 if nobody asks.
        index: room for a block.
        total: Σx², ΣΔ², Σx·Δ, Σpower².
        levels: one a code.
        found: largest |Δ| as bits, moved rows, the first, whether values stay within a step: 1 to be told.
    """
    largest, moved, first, within = np.uint32(0), 0, -1, found[3] != 0
    for row in range(rows):
        top = np.uint32(0)
        for left in range(0, columns, BLOCK):
            width, at = min(BLOCK, columns - left), row * columns + left
            top = max(top, _add(before, after, at, width, setting, index, total))
            _count(index, width, levels)
            if marked > 0:
                _mark(index, marks, left, width)
            if within:
                within = _stays(before, after, at, width)
        if top > 0:
            moved, first = moved + 1, row if first < 0 else first
            largest = max(largest, top)
    found[0], found[1], found[2], found[3] = largest, moved, first, within


@_compiled
def _add(  # noqa: PLR0913
    before: Any, after: Any, at: int, width: int, setting: Any, index: Any, total: Any
) -> np.uint32:
    """Add the sums of a block to `total`, set each value's code in `index`; bits of the largest |Δ|."""
    least, shift = setting[0], setting[1]
    square, change, dot, floor = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    largest = np.uint32(0)
    for i in range(width):
        low, high = np.uint32(_bits(before, at + i)), np.uint32(_bits(after, at + i))
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


@_compiled
def _count(index: Any, width: int, levels: Any) -> None:
    """Count the codes, one level after the other.

    64 comparisons at a time beat a table, where the increment of an entry waits for the one before.
    """
    full = (width + LANES - 1) // LANES * LANES
    for i in range(width, full):
        index[i] = np.uint8(0)
    lowest, highest = np.uint8(255), np.uint8(0)  # of those that are not 0: less one, it is the largest
    for i in range(full):
        lowest = np.uint8(min(lowest, np.uint8(index[i] - np.uint8(1))))
        highest = np.uint8(max(highest, index[i]))
    still = width
    for code in range(np.intp(lowest) + 1, np.intp(highest) + 1):
        count = 0
        for i in range(0, full, LANES):
            count += _equal(index, i, np.uint8(code))
        levels[code] += count
        still -= count
    levels[0] += still


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def _bits(_: Any, stored: Any, _at: Any) -> tuple[Any, Callable[..., Any]]:
    """Of the float32: bfloat16 is the upper half of one."""

    def generate(_: Any, builder: Any, __: Any, arguments: tuple[Any, Any]) -> Any:
        word = ir.IntType(32)
        value = builder.load(builder.gep(arguments[0], [arguments[1]], inbounds=True))
        return value if stored.dtype == types.int32 else builder.shl(builder.zext(value, word), word(16))

    return types.uint32(stored, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def _equal(_: Any, index: Any, _at: Any, _code: Any) -> tuple[Any, Callable[..., Any]]:
    """How many of the 64 bytes from `at` on are `code`: a comparison and a count of bits."""

    def generate(_: Any, builder: Any, __: Any, arguments: tuple[Any, Any, Any]) -> Any:
        pointer, start, value = arguments
        vector, word = ir.VectorType(ir.IntType(8), LANES), ir.IntType(32)
        nothing = ir.Constant(vector, ir.Undefined)
        first = builder.insert_element(nothing, value, word(0))
        wanted = builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(word, LANES), None))
        there = builder.load(builder.bitcast(builder.gep(pointer, [start]), vector.as_pointer()), align=1)
        return builder.ctpop(builder.bitcast(builder.icmp_unsigned("==", there, wanted), ir.IntType(LANES)))

    return types.int64(index, types.intp, types.uint8), generate


@_compiled
def _mark(index: Any, marks: Any, left: int, width: int) -> None:
    for i in range(width):
        marks[left + i] |= index[i]


@_compiled
def _stays(before: Any, after: Any, at: int, width: int) -> bool:
    """No value moved by more than one step of bf16."""
    beyond = np.uint32(0)
    for i in range(width):
        low, high = np.uint32(_bits(before, at + i)), np.uint32(_bits(after, at + i))
        power = np.uint32(max(np.uint32(low & _EXPONENT), _SMALLEST_NORMAL))
        far = abs(np.float32(high.view(np.float32) - low.view(np.float32)))
        beyond = np.uint32(beyond | np.uint32(far > power.view(np.float32) * _STEP_OF_BF16))
    return bool(beyond == np.uint32(0))
