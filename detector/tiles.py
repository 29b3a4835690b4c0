"""Statistics of a change, tile by tile: one pass over two tensors in memory that does not grow with them.

Floats that a cast to the fork's type leaves as they are go through one compiled loop (`fused`). All others,
tiles whose squares float32 does not hold, those of small diffs, and tiles on a GPU are measured with torch:
a dozen operations that cost cache traffic only, for a tile fits the cache of a core. Sums are float32 within
the tile (a relative error of 1e-5) and float64 between tiles, added in tile order whatever thread was first.
Exponents are read off the bits: the step of a float is a power of two, and how many steps a value moved is a
difference of two exponent fields.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from detector.grid import (
    EXPONENT_BITS,
    PRECISION,
    SMALLEST,
    half_step,
    half_ulp,
    is_float,
    values_as_stored,
)

if TYPE_CHECKING:
    import torch

FUSED_ELEMENTS = 1 << 26
"""Elements of a whole diff from which the compiled loop is used: it saves 4 ns each, and takes 2 s of
processor time where its machine code is not kept yet, .03 s where it is."""
LEVELS = 32
"""Entries of `TensorDiff.exponents` at most; the last one counts all that moved farther."""
STORED = {"BF16": np.int16, "F32": np.int32}
"""Types that the compiled loop takes as they are stored, and of what size those are."""
Stored = npt.NDArray[np.int16] | npt.NDArray[np.int32]
_MANTISSA = 7
"""Bits of a bfloat16 below its exponent."""
_BIAS = 127
_WIDENING = {("BF16", "F32"), ("F16", "F32"), ("BF16", "F64"), ("F16", "F64"), ("F32", "F64")}
"""Original and fork: casting changes no value, so that what differs has moved."""
_TINY = 1e-30
"""Squared norm of a tile below which squares may have vanished in float32."""


@dataclass(slots=True)
class Sums:
    """What the tiles of a tensor add up to. Norms are squared."""

    elements: int = 0
    square: float = 0.0
    delta_square: float = 0.0
    dot: float = 0.0
    """Of the original and the change."""
    floor: float | None = 0.0
    """Energy that rounding to the fork's type leaves, Σ step² / 12; None when its step is not known."""
    largest: float = 0.0
    """Largest |fork − original|; of later tiles of one meter only if it beats the earlier ones."""
    unequal: int = 0
    """Values of the fork that differ from the original's."""
    moved: int = 0
    """Values of the fork that differ from the original's after a cast to the fork's type."""
    non_finite: int = 0
    rows: int = 0
    moved_rows: int = 0
    first_moved: int | None = None
    """First row with a moved value in the first tile of a meter that has any; a vector has one row."""
    within_a_step: bool = True
    levels: tuple[int, ...] = field(default=(0,) * LEVELS)

    def add(self, other: Sums) -> None:
        """Add the sums of the next tile."""
        self.elements += other.elements
        self.square += other.square
        self.delta_square += other.delta_square
        self.dot += other.dot
        self.floor = None if self.floor is None or other.floor is None else self.floor + other.floor
        self.largest = max(self.largest, other.largest)
        self.unequal += other.unequal
        self.moved += other.moved
        self.non_finite += other.non_finite
        self.rows += other.rows
        self.moved_rows += other.moved_rows
        if self.first_moved is None or (
            other.first_moved is not None and other.first_moved < self.first_moved
        ):
            self.first_moved = other.first_moved
        self.within_a_step = self.within_a_step and other.within_a_step
        self.levels = tuple(map(operator.add, self.levels, other.levels))

    def exponents(self) -> tuple[int, ...]:
        """`TensorDiff.exponents`: without trailing zeros."""
        last = max((index for index, count in enumerate(self.levels) if count), default=-1)
        return self.levels[: last + 1]

    def cosine(self) -> float | None:
        """Of original and fork as vectors; None when one of them is zero."""
        fork_square = self.square + 2 * self.dot + self.delta_square
        if not (self.square > 0 and 0 < fork_square < math.inf):
            return None
        return max(-1.0, min(1.0, (self.square + self.dot) / math.sqrt(self.square * fork_square)))


class Meter:
    """Measures the tiles of one pair of tensors after the other, in memory of its own: one a thread."""

    def __init__(self, device: str = "cpu", total: int = 0) -> None:
        """Make one.

        Args:
            device: where to compute: cpu or cuda.
            total: elements of all tensors that will be measured.
        """
        self._device = device
        self._compiles = total >= FUSED_ELEMENTS and device == "cpu"
        self._floats: list[torch.Tensor] = []
        self._codes: list[torch.Tensor] = []
        self.start("F32", "F32")

    def start(self, original: str, fork: str) -> None:
        """Begin another pair.

        Args:
            original: stored type of the original.
            fork: stored type of the fork.
        """
        self._fork = fork
        self.takes_stored = self._compiles and original == fork and fork in STORED
        """Tiles of these types are measured without torch, and without a copy in memory of the meter's."""
        self._cast_is_exact = original == fork or (original, fork) in _WIDENING
        self._is_fused = self._compiles and self._cast_is_exact and is_float(fork) and fork != "F64"
        self._largest_code = 0
        self._within = True
        self._all_columns = False
        self.columns: npt.NDArray[np.bool_] | None = None
        """Columns with a moved value so far."""

    def _reserve(self, elements: int) -> None:
        """Make room for tiles of so many elements."""
        import torch

        if not self._floats or len(self._floats[0]) < elements:
            self._floats = [torch.empty(elements, device=self._device) for _ in range(3)]
            self._codes = [torch.empty(elements, device=self._device, dtype=torch.int16) for _ in range(2)]

    def unchanged(self, original: torch.Tensor) -> Sums:
        """Sums of a tile that is the same on both sides."""
        if self._is_fused and (fused := self._measure_decoded(original, original)):
            return fused
        count, columns = original.numel(), original.shape[-1] if original.dim() > 1 else 0
        self._reserve(count)
        stored = original.to(self._device, non_blocking=True).reshape(-1)
        x = self._floats[0][:count].copy_(stored)
        sums = Sums(count, _square(x), rows=count // columns if columns else 0)
        if is_float(self._fork):
            self._float_steps(sums, self._floats[1][:count].copy_(x), stored)
        else:
            self._coded_steps(sums, x, columns)
        return sums

    def measure(self, original: torch.Tensor, fork: torch.Tensor) -> Sums:
        """Sums of a tile: (rows, columns) or a vector of both sides, in their stored types or decoded."""
        import torch

        if self._is_fused and (fused := self._measure_decoded(original, fork)):
            return fused
        count, columns = fork.numel(), fork.shape[-1] if fork.dim() > 1 else 0
        self._reserve(count)
        stored = fork.to(self._device, non_blocking=True).reshape(-1)
        x, y, delta = (buffer[:count] for buffer in self._floats)
        x.copy_(original.to(self._device, non_blocking=True).reshape(-1))
        y.copy_(stored)
        torch.sub(y, x, out=delta)
        norms = torch.stack((torch.dot(x, x), torch.dot(delta, delta), torch.dot(x, delta))).tolist()
        sums = Sums(count, *norms)
        expected = x if self._cast_is_exact else self._as_stored(x, columns)
        moved = None if self._cast_is_exact else y.ne(expected)
        if not all(map(math.isfinite, norms)) or norms[0] < _TINY:
            moved = _with_care(sums, x, y, delta, expected)
            stored = y
        code = self._codes[0][:count]
        code.copy_(delta.view(torch.int16)[1::2])  # the upper half: |Δ| is never rounded up to the next level
        code.bitwise_and_(0x7FFF)
        if moved is not None:
            code.mul_(moved)
            sums.unequal = sums.unequal or int(torch.count_nonzero(delta).item())
        by_row = self._places(sums, code, columns)
        top = int(by_row.amax().item())
        if top and not self._largest_code:
            sums.first_moved = int(by_row.ne(0).int().argmax().item()) if columns else 0
        if moved is not None or 0 < top >= self._largest_code:  # equal codes may stand for unequal changes
            low, high = torch.aminmax(delta)
            sums.largest = max(float(high.item()), -float(low.item()))
        self._largest_code = max(self._largest_code, top)
        if self._within:
            self._within = sums.within_a_step = _within_a_step(y, expected, moved)
        if is_float(self._fork):
            self._float_levels(sums, code, self._float_steps(sums, y, stored), moved)
        else:
            half = self._coded_steps(sums, y, columns)
            _coded_levels(sums, code, half, code.ne(0) if moved is None else moved)
        if moved is None:
            sums.unequal = sums.moved
        return sums

    def _measure_decoded(self, original: torch.Tensor, fork: torch.Tensor) -> Sums | None:
        """Sums of a tile by the compiled loop; None if float32 does not hold its squares."""
        import torch

        count, columns = fork.numel(), fork.shape[-1] if fork.dim() > 1 else 0
        sides = (original.reshape(-1), fork.reshape(-1))
        if not original.dtype == fork.dtype in {torch.bfloat16, torch.float32}:
            self._reserve(count)
            sides = (self._floats[0][:count].copy_(sides[0]), self._floats[1][:count].copy_(sides[1]))
        stored = torch.int16 if sides[1].dtype is torch.bfloat16 else torch.int32
        return self.measure_stored(sides[0].view(stored).numpy(), sides[1].view(stored).numpy(), columns)

    def measure_stored(self, original: Stored, fork: Stored, columns: int) -> Sums | None:
        """Sums of a tile by the compiled loop, without torch.

        Args:
            original: stored bits, int16 of bfloat16 or int32 of float32.
            fork: of the same type.
            columns: of the matrix; 0 of a vector.

        Returns:
            None if float32 does not hold the squares: then `measure` does.
        """
        from detector import fused

        count = len(fork)
        marks = np.zeros(0 if self._all_columns else columns, np.uint8)
        norms, largest, (rows, first), within, levels = fused.measure(
            original, fork, columns or count, self._fork, self._within, marks
        )
        square, change, dot, floor = norms.tolist()
        if not (min(square, floor) > _TINY and max(square, floor, change) < math.inf):
            return None
        if len(marks):
            self._mark(marks > 0)
        self._within = within
        still, *moved = levels.tolist()
        return Sums(
            elements=count,
            square=square,
            delta_square=change,
            dot=dot,
            floor=floor * 4.0 ** (1 - PRECISION[self._fork]) / 12,
            largest=largest,
            unequal=count - still,
            moved=count - still,
            rows=count // columns if columns else 0,
            moved_rows=rows if columns else 0,
            first_moved=max(first, 0) if still < count else None,
            within_a_step=within,
            levels=tuple(moved),
        )

    def _mark(self, marks: npt.NDArray[np.bool_]) -> None:
        """Columns with a moved value, these too."""
        self.columns = marks if self.columns is None else self.columns | marks
        self._all_columns = bool(self.columns.all())

    def _as_stored(self, values: torch.Tensor, columns: int) -> torch.Tensor:
        """The original's values in the fork's type."""
        return values_as_stored(values.view(-1, columns) if columns else values, self._fork).reshape(-1)

    def _places(self, sums: Sums, code: torch.Tensor, columns: int) -> torch.Tensor:
        """Mark rows and columns in which something moved; the largest code of each row."""
        import torch

        if not columns:
            return code
        table = code.view(-1, columns)
        by_row = table.amax(1)
        sums.rows, sums.moved_rows = len(table), int(torch.count_nonzero(by_row).item())
        if not self._all_columns:
            self._mark((table.amax(0) > 0).cpu().numpy())
        return by_row

    def _float_steps(self, sums: Sums, y: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
        """Exponents of the fork's values as bits of a bfloat16; the energy of rounding. Uses up `y`."""
        import torch

        precision, steps = PRECISION[self._fork], self._codes[1][: len(y)]
        if stored.dtype is torch.bfloat16:
            torch.bitwise_and(stored.view(torch.int16), EXPONENT_BITS >> 16, out=steps)
        else:
            steps.copy_((y.view(torch.int32) & EXPONENT_BITS) >> 16)
            normal = round(math.log2(SMALLEST[self._fork])) + precision - 1 + _BIAS
            steps.clamp_min_(max(normal, 0) << _MANTISSA)
        sums.floor = _square(y.copy_(steps.view(torch.bfloat16))) * 4.0 ** (1 - precision) / 12
        return steps

    def _float_levels(
        self, sums: Sums, code: torch.Tensor, steps: torch.Tensor, moved: torch.Tensor | None
    ) -> None:
        """How many values moved, and by how many steps."""
        import torch

        # Where |Δ| is zero, the difference below is negative, as long as the exponent is above the precision.
        least = (PRECISION[self._fork] + 1) << _MANTISSA
        normal = int(steps.amin().item()) >= least
        if not normal:
            steps.clamp_min_(least)
        torch.sub(code, steps, out=steps)
        _histogram(sums, steps.add_(least), moved)
        if not normal and moved is None:  # changes below the normal numbers were taken for none
            sums.moved = int(torch.count_nonzero(code).item())
            first, *rest = sums.levels
            sums.levels = (first + sums.moved - sum(sums.levels), *rest)

    def _coded_steps(self, sums: Sums, y: torch.Tensor, columns: int) -> torch.Tensor | None:
        """Half a step of each value of a type whose step follows from a block of values."""
        half = half_step(y.view(-1, columns) if columns else y, self._fork)
        sums.floor = None if half is None else float(half.double().square().sum().item()) / 3
        return None if half is None else half.reshape(-1)


def _with_care(
    sums: Sums, x: torch.Tensor, y: torch.Tensor, delta: torch.Tensor, expected: torch.Tensor
) -> torch.Tensor:
    """Infinities, no numbers, or squares that float32 cannot hold: clear them, and say what moved."""
    import torch

    finite = torch.isfinite(y)
    sums.non_finite = int((~finite).sum().item())
    y.masked_fill_(~finite, 0.0)
    sums.unequal = int(y.ne(x).sum().item())
    moved = y.ne(expected)
    torch.nan_to_num(x, out=x)
    torch.sub(y, x, out=delta)
    wide, change = x.double(), delta.double()
    sums.square = float(torch.dot(wide, wide).item())
    sums.delta_square = float(torch.dot(change, change).item())
    sums.dot = float(torch.dot(wide, change).item())
    return moved


def _coded_levels(sums: Sums, code: torch.Tensor, half: torch.Tensor | None, moved: torch.Tensor) -> None:
    """How many values moved, and by how many steps, if those are known."""
    import torch

    sums.moved = int(moved.sum().item())
    if half is not None:
        quotient = code.view(torch.bfloat16).float() / (2 * half)
        code.view(torch.bfloat16).copy_(quotient.nan_to_num_(0.0))
        _histogram(sums, code.sub_((_BIAS - 2) << _MANTISSA), moved)


def _histogram(sums: Sums, index: torch.Tensor, moved: torch.Tensor | None) -> None:
    """Count `index` >> 7: 0 or less is what did not move, k + 1 the level k."""
    import torch

    index.clamp_(0, ((LEVELS + 1) << _MANTISSA) - 1)
    if moved is not None:
        index.clamp_min_(1 << _MANTISSA).mul_(moved)
    counts = torch.bincount(index, minlength=(LEVELS + 1) << _MANTISSA)
    still, *levels = counts.view(LEVELS + 1, -1).sum(1).tolist()
    sums.moved, sums.levels = index.numel() - still, tuple(levels)


def _within_a_step(y: torch.Tensor, expected: torch.Tensor, moved: torch.Tensor | None) -> bool:
    """No value moved by more than one step of bf16."""
    steps = (y - expected).abs().div_(half_ulp(expected, "BF16").mul_(2))
    # 0 / 0 where a zero stayed
    steps = steps.nan_to_num_(0.0) if moved is None else steps[moved]
    return bool((steps <= 1.0).all().item())


def _square(values: torch.Tensor) -> float:
    """Squared norm; in float64 where float32 does not hold it."""
    import torch

    square = float(torch.dot(values, values).item())
    if _TINY < square < math.inf or not (square or values.any()):
        return square
    wide = torch.nan_to_num(values).double()
    return float(torch.dot(wide, wide).item())
