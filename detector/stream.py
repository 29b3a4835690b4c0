"""Two tensors read side by side, in pieces that fit a core's cache, by as many threads as torch has.

(1) The stored bytes of a piece are compared as they are, where they lie in the page cache if the file is on
this disk: where they are equal nothing is decoded. (2) Pieces that differ go through a `Meter`. (3) If any
did, the squared norm of the equal pieces is added, reading the original alone. Pieces are added in their
order: the result does not depend on threads. torch is imported when the first piece needs it: bytes that are
equal do not, nor does the compiled loop.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from detector.formats.dtypes import BITS, torch_dtype
from detector.formats.extent import Extent, Window
from detector.parallel import thread_count
from detector.tiles import STORED, Meter, Sums

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

CPU_TILE = 1 << 17
"""Elements: three float32 and two 16-bit copies make 2 MB, twice a core's cache; half and twice as many take
a tenth longer."""
STORED_TILE = 1 << 19
"""Where values are measured as they are stored, without copies; what any piece costs is a fiftieth then."""
GPU_TILE = 1 << 24
GPU_LANES = 2
"""One reads while the other's piece is on its way or computed."""
BYTES = 1 << 19
"""Bytes compared at a time where nothing is decoded."""
WINDOW = 1 << 23
"""Bytes of a file that a thread sees at a time: they count as its memory while it does."""
MAX_COLUMNS = 1 << 22
"""A wider matrix is measured as a vector, without counting rows and columns."""
BATCH = 64
"""Neighbouring pieces a thread is given at a time."""
_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a pass over two tensors found."""

    sums: Sums
    """Empty when `identical`."""
    identical: bool
    """All bytes are equal, and mean the same."""
    moved_columns: float
    """Share of the columns with a moved value."""


class _Piece(Enum):
    """What is left to do for a piece."""

    EQUAL = "its squares are those of the original"
    HARD = "float32 does not hold its squares: torch does it with care"


@dataclass(frozen=True, slots=True)
class _Job:
    """Two plainly stored tensors of one shape."""

    left: Extent
    right: Extent
    types: tuple[str, str]
    columns: int
    """0 for a vector."""
    tile: int
    """Elements."""
    elements: int
    is_stored: bool
    """Measured as it lies there, without torch."""

    @property
    def pieces(self) -> int:
        return -(-self.elements // self.tile)


class Streams:
    """Threads and memory for comparing one pair of tensors after the other. A context manager."""

    def __init__(self, total: int = 0) -> None:
        """Args: elements of all tensors that will be compared."""
        self._total = total
        self._device = _device()
        self._threads = thread_count()
        self._width = self._threads if self._device == "cpu" else GPU_LANES
        self._lanes: list[_Lane] = []
        self._pool: ThreadPoolExecutor | None = None
        self._torch_threads: int | None = None
        """How many torch had when it was first needed."""

    def __enter__(self) -> Self:
        self._lanes = [_Lane(self._device, self._total) for _ in range(self._width)]
        if self._width > 1:
            self._pool = ThreadPoolExecutor(self._width)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        if self._torch_threads is not None:
            import torch

            torch.set_num_threads(self._torch_threads)  # what new threads get
        self._lanes = []

    def _use_torch(self) -> None:
        """Each lane computes alone from now on: parallel loops inside of them would compete."""
        import torch

        if self._pool is not None and self._torch_threads is None:
            self._torch_threads = torch.get_num_threads()
            self._pool.shutdown()
            self._pool = ThreadPoolExecutor(self._width, initializer=torch.set_num_threads, initargs=(1,))

    def equal(self, left: Extent, right: Extent) -> bool:
        """Both tensors have the same bytes."""
        if left.nbytes != right.nbytes:
            return False
        found = self._run(
            -(-left.nbytes // BYTES),
            lambda lane, piece: lane.equal(left, right, piece),
            threads=left.shareable and right.shareable,
        )
        return all(found)

    def measure(self, left: Extent, right: Extent, types: tuple[str, str], shape: tuple[int, ...]) -> Outcome:
        """Compare two plainly stored tensors.

        Args:
            left: of the original.
            right: of the fork.
            types: stored types of the two.
            shape: of both.

        Raises:
            UnreadableTensorError: torch has no such type.
            CrawlerError: bytes could not be had.
        """
        for lane in self._lanes:
            lane.meter.start(*types)
        job = self._job(left, right, types, shape)
        if not job.is_stored:
            self._use_torch()
        threads = left.shareable and right.shareable
        total = Sums()
        rest: dict[_Piece, list[int]] = {_Piece.EQUAL: [], _Piece.HARD: []}

        def take(pieces: Sequence[int], work: Callable[[_Lane, int], Sums | _Piece]) -> None:
            found = self._run(len(pieces), lambda lane, at: work(lane, pieces[at]), threads=threads)
            for piece, sums in zip(pieces, found, strict=True):
                if isinstance(sums, _Piece):
                    rest[sums].append(piece)
                    continue
                if sums.first_moved is not None and job.columns:
                    sums.first_moved += piece * (job.tile // job.columns)
                total.add(sums)

        take(range(job.pieces), lambda lane, piece: lane.measure(job, piece))
        if len(rest[_Piece.EQUAL]) == job.pieces:
            return Outcome(Sums(), identical=True, moved_columns=0.0)
        take(tuple(rest[_Piece.EQUAL]), lambda lane, piece: lane.unchanged(job, piece))
        if rest[_Piece.HARD]:
            self._use_torch()
        take(tuple(rest[_Piece.HARD]), lambda lane, piece: lane.with_care(job, piece))
        return Outcome(total, identical=False, moved_columns=_share([lane.meter for lane in self._lanes]))

    def measure_blocks(
        self, blocks: Iterable[tuple[torch.Tensor, torch.Tensor]], types: tuple[str, str]
    ) -> Outcome:
        """Compare two tensors of which decoded rows come block by block: (rows, …) of original and fork.

        Args:
            blocks: both sides, in order.
            types: stored types of the two; equal bits mean equal values only where these are equal.
        """
        meter, total, identical = Meter("cpu", self._total), Sums(), types[0] == types[1]
        meter.start(*types)
        for left, right in blocks:
            same = types[0] == types[1] and _same_bits(left, right)
            identical = identical and same
            for first, second in zip(_tiles(left), _tiles(right), strict=True):
                sums = meter.unchanged(first) if same else meter.measure(first, second)
                if sums.first_moved is not None:
                    sums.first_moved += total.rows
                total.add(sums)
        return Outcome(Sums() if identical else total, identical, _share([meter]))

    def taken(self) -> tuple[int, int]:
        """Bytes read of original and fork since this was last asked."""
        left, right = (sum(lane.sides[side].taken() for lane in self._lanes) for side in (0, 1))
        return left, right

    def _job(self, left: Extent, right: Extent, types: tuple[str, str], shape: tuple[int, ...]) -> _Job:
        elements = 1
        for size in shape:
            elements *= size
        columns = shape[-1] if len(shape) > 1 and shape[-1] <= MAX_COLUMNS else 0
        tile = CPU_TILE if self._device == "cpu" else GPU_TILE
        is_stored = self._lanes[0].meter.takes_stored
        if is_stored:
            tile = STORED_TILE
        if columns:
            tile = max(1, tile // columns) * columns
        return _Job(left, right, types, columns, min(tile, max(elements, 1)), elements, is_stored)

    def _run(self, pieces: int, work: Callable[[_Lane, int], T], *, threads: bool) -> Iterator[T]:
        """`work` on every piece; results in the order of the pieces."""
        lanes = self._lanes if threads else self._lanes[:1]
        for first in range(0, pieces, BATCH * len(lanes)):
            last = min(first + BATCH * len(lanes), pieces)
            share = -(-(last - first) // len(lanes))

            def turn(number: int, first: int = first, last: int = last, share: int = share) -> list[T]:
                start = first + number * share
                return [work(lanes[number], piece) for piece in range(start, min(start + share, last))]

            if self._pool is None:
                yield from turn(0)
                continue
            turns = [self._pool.submit(turn, number) for number in range(len(lanes))]
            wait(turns)  # no lane works on when another failed, or nobody asks for more
            for one in turns:
                yield from one.result()


class _Side:
    """What a thread sees of one side: mapped bytes, or read ones in memory that is used again."""

    def __init__(self) -> None:
        self._extent: Extent | None = None
        self._window: Window | None = None
        self._reach = range(0)
        self._buffer = bytearray()
        self._read = 0

    def taken(self) -> int:
        """Bytes that were asked for since this was last asked."""
        read, self._read = self._read, 0
        return read

    def view(self, extent: Extent, start: int, length: int) -> memoryview:
        """These bytes, until the next ones are asked for."""
        self._read += length
        if extent is not self._extent or start < self._reach.start or start + length > self._reach.stop:
            self._extent = extent
            self._reach = range(start, start + max(length, min(WINDOW, extent.nbytes - start)))
            self._window = extent.window(start, len(self._reach))
        if self._window is not None:
            return self._window.view(start - self._reach.start, length)
        if len(self._buffer) != length:  # fresh memory costs more than the comparison
            self._buffer = bytearray(length)
        view = memoryview(self._buffer)
        extent.read_into(start, view)
        return view


class _Lane:
    """One thread's memory, used again and again."""

    def __init__(self, device: str, total: int) -> None:
        self._device = device
        self._pinned: tuple[torch.Tensor, ...] = ()
        self.sides = (_Side(), _Side())
        self.meter = Meter(device, total)

    def equal(self, left: Extent, right: Extent, piece: int) -> bool:
        """Piece number `piece` has the same bytes on both sides."""
        start = piece * BYTES
        length = min(BYTES, left.nbytes - start)
        return _equal(self.sides[0].view(left, start, length), self.sides[1].view(right, start, length))

    def measure(self, job: _Job, piece: int) -> Sums | _Piece:
        """Sums of a piece, unless its bytes are equal."""
        left, right = self._read(job, 0, piece), self._read(job, 1, piece)
        if job.left.layout == job.right.layout and _equal(left, right):
            return _Piece.EQUAL
        if job.is_stored:
            return self._stored(job, left, right)
        return self.meter.measure(self._values(job, 0, left), self._values(job, 1, right))

    def unchanged(self, job: _Job, piece: int) -> Sums | _Piece:
        """Sums of a piece that is equal on both sides."""
        data = self._read(job, 0, piece)
        return (
            self._stored(job, data, data)
            if job.is_stored
            else self.meter.unchanged(self._values(job, 0, data))
        )

    def with_care(self, job: _Job, piece: int) -> Sums:
        """Sums of a piece whose squares float32 does not hold."""
        left, right = self._read(job, 0, piece), self._read(job, 1, piece)
        return self.meter.measure(self._values(job, 0, left), self._values(job, 1, right))

    def _stored(self, job: _Job, left: memoryview, right: memoryview) -> Sums | _Piece:
        bits = STORED[job.types[0]]
        return (
            self.meter.measure_stored(np.frombuffer(left, bits), np.frombuffer(right, bits), job.columns)
            or _Piece.HARD
        )

    def _read(self, job: _Job, side: int, piece: int) -> memoryview:
        width = BITS[job.types[side]] // 8
        extent = job.right if side else job.left
        return self.sides[side].view(extent, piece * job.tile * width, _count(job, piece) * width)

    def _values(self, job: _Job, side: int, data: memoryview) -> torch.Tensor:
        import torch

        values = torch.frombuffer(data, dtype=torch_dtype(job.types[side]))
        if self._device == "cuda":  # only pinned memory is copied while the processor goes on
            if len(self._pinned) != 2 or self._pinned[side].numel() < len(data):
                size = max(len(data), job.tile * 8)
                self._pinned = tuple(torch.empty(size, dtype=torch.uint8, pin_memory=True) for _ in range(2))
            pinned = self._pinned[side][: len(data)].view(values.dtype)
            values = pinned.copy_(values)
        return values.view(-1, job.columns) if job.columns else values


def _equal(left: memoryview, right: memoryview) -> bool:
    """The same bytes; by the C library, as a memoryview compares one at a time."""
    if len(left) != len(right):
        return False
    first, second = (ctypes.addressof(ctypes.c_char.from_buffer(view)) for view in (left, right))
    return bool(_memcmp(first, second, len(left)) == 0)


def _count(job: _Job, piece: int) -> int:
    """Elements of a piece."""
    return min(job.tile, job.elements - piece * job.tile)


def _share(meters: list[Meter]) -> float:
    """Share of the columns that any of these saw a moved value in."""
    marks = [meter.columns for meter in meters if meter.columns is not None]
    return float(np.stack(marks).any(0).mean()) if marks else 0.0


def _device() -> str:
    """Where to compute; torch is asked only if it is there already, or the machine has a device for it."""
    drivers = ("nvidiactl", "kfd", "dxg")
    if "torch" not in sys.modules and not any(Path("/dev", driver).exists() for driver in drivers):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _tiles(block: torch.Tensor) -> Iterable[torch.Tensor]:
    """Whole rows of a block, as many as fit a tile; the rows of a stack of matrices one after the other."""
    if block.dim() < 2:
        return (block.reshape(-1),)
    rows = block.reshape(-1, block.shape[-1])
    step = max(1, CPU_TILE // max(rows.shape[1], 1))
    return (rows[first : first + step] for first in range(0, len(rows), step))


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    import torch

    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    width = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}[left.element_size()]
    return torch.equal(left.contiguous().view(width), right.contiguous().view(width))
