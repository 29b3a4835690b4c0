"""Two tensors read side by side, in pieces that fit a core's cache, by as many threads as torch has.

(1) The stored bytes of a piece are compared as they are: where they are equal nothing is decoded. (2) Pieces
that differ go through a `Meter`. (3) If any did, the squared norm of the equal pieces is added, reading the
original alone. Pieces are dealt out in turns and added in their order: the result does not depend on threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from detector.formats.dtypes import BITS, torch_dtype
from detector.formats.extent import Extent
from detector.tiles import Meter, Sums

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

CPU_TILE = 1 << 17
"""Elements: three float32 and two 16-bit copies make 2 MB, twice a core's cache; half and twice as many take
a tenth longer."""
GPU_TILE = 1 << 24
GPU_LANES = 2
"""One reads while the other's piece is on its way or computed."""
BYTES = 1 << 19
"""Bytes compared at a time where nothing is decoded."""
MAX_COLUMNS = 1 << 22
"""A wider matrix is measured as a vector, without counting rows and columns."""
BATCH = 256
"""Pieces a thread is given at a time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a pass over two tensors found."""

    sums: Sums
    """Empty when `identical`."""
    identical: bool
    """All bytes are equal, and mean the same."""
    moved_columns: float
    """Share of the columns with a moved value."""


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

    @property
    def pieces(self) -> int:
        return -(-self.elements // self.tile)


class Streams:
    """Threads and memory for comparing one pair of tensors after the other. A context manager."""

    def __init__(self, total: int = 0) -> None:
        """Args: elements of all tensors that will be compared."""
        import torch

        self._total = total
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._threads = torch.get_num_threads()
        self._width = self._threads if self._device.type == "cpu" else GPU_LANES
        self._lanes: list[_Lane] = []
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        import torch

        self._lanes = [_Lane(self._device, self._total) for _ in range(self._width)]
        if self._width > 1:  # each lane computes alone: parallel loops inside of them would compete
            self._pool = ThreadPoolExecutor(self._width, initializer=torch.set_num_threads, initargs=(1,))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import torch

        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._threads)  # what new threads get
            self._pool = None
        self._lanes = []

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
        job = self._job(left, right, types, shape)
        threads = left.shareable and right.shareable
        for lane in self._lanes:
            lane.start(job)
        total, equal = Sums(), list[int]()
        measured = self._run(job.pieces, lambda lane, piece: lane.measure(job, piece), threads=threads)
        for piece, sums in enumerate(measured):
            if sums is None:
                equal.append(piece)
                continue
            if sums.first_moved is not None and job.columns:
                sums.first_moved += piece * (job.tile // job.columns)
            total.add(sums)
        if len(equal) == job.pieces:
            return Outcome(Sums(), identical=True, moved_columns=0.0)
        for sums in self._run(len(equal), lambda lane, at: lane.unchanged(job, equal[at]), threads=threads):
            total.add(sums)
        return Outcome(total, identical=False, moved_columns=_share([lane.meter for lane in self._lanes]))

    def measure_blocks(
        self, blocks: Iterable[tuple[torch.Tensor, torch.Tensor]], types: tuple[str, str]
    ) -> Outcome:
        """Compare two tensors of which decoded rows come block by block: (rows, …) of original and fork.

        Args:
            blocks: both sides, in order.
            types: stored types of the two; equal bits mean equal values only where these are equal.
        """
        import torch

        meter, total, identical = Meter(torch.device("cpu"), self._total), Sums(), types[0] == types[1]
        meter.start(*types, 0)
        for left, right in blocks:
            same = types[0] == types[1] and _same_bits(left, right)
            identical = identical and same
            for first, second in zip(_tiles(left), _tiles(right), strict=True):
                meter.reserve(first.numel())
                sums = meter.unchanged(first) if same else meter.measure(first, second)
                if sums.first_moved is not None:
                    sums.first_moved += total.rows
                total.add(sums)
        return Outcome(Sums() if identical else total, identical, _share([meter]))

    def taken(self) -> tuple[int, int]:
        """Bytes read of original and fork since this was last asked."""
        left, right = (sum(lane.read[side] for lane in self._lanes) for side in (0, 1))
        for lane in self._lanes:
            lane.read = [0, 0]
        return left, right

    def _job(self, left: Extent, right: Extent, types: tuple[str, str], shape: tuple[int, ...]) -> _Job:
        elements = 1
        for size in shape:
            elements *= size
        columns = shape[-1] if len(shape) > 1 and shape[-1] <= MAX_COLUMNS else 0
        tile = CPU_TILE if self._device.type == "cpu" else GPU_TILE
        if columns:
            tile = max(1, tile // columns) * columns
        return _Job(left, right, types, columns, min(tile, max(elements, 1)), elements)

    def _run(self, pieces: int, work: Callable[[_Lane, int], T], *, threads: bool) -> Iterator[T]:
        """`work` on every piece; results in the order of the pieces."""
        lanes = self._lanes if threads else self._lanes[:1]
        for first in range(0, pieces, BATCH * len(lanes)):
            last = min(first + BATCH * len(lanes), pieces)

            def turn(number: int, first: int = first, last: int = last) -> list[T]:
                return [work(lanes[number], piece) for piece in range(first + number, last, len(lanes))]

            spread = map if self._pool is None else self._pool.map
            found = list(spread(turn, range(min(len(lanes), last - first))))
            for place in range(last - first):
                yield found[place % len(lanes)][place // len(lanes)]


class _Lane:
    """One thread's buffers, used again and again: fresh memory costs more than the comparison."""

    def __init__(self, device: torch.device, total: int) -> None:
        self._device = device
        self._bytes = (bytearray(), bytearray())
        self._pinned: tuple[torch.Tensor, ...] = ()
        self.read = [0, 0]
        self.meter = Meter(device, total)

    def start(self, job: _Job) -> None:
        self.meter.start(*job.types, job.tile)

    def equal(self, left: Extent, right: Extent, piece: int) -> bool:
        """Piece number `piece` has the same bytes on both sides."""
        start = piece * BYTES
        first, second = self._filled(left, right, start, min(BYTES, left.nbytes - start))
        return first == second

    def measure(self, job: _Job, piece: int) -> Sums | None:
        """Sums of a piece; None when its bytes are equal."""
        left, right = self._read(job, job.left, 0, piece), self._read(job, job.right, 1, piece)
        if job.left.layout == job.right.layout and left == right:
            return None
        sides = (self._values(job, side, data) for side, data in enumerate((left, right)))
        return self.meter.measure(*sides)

    def unchanged(self, job: _Job, piece: int) -> Sums:
        """Sums of a piece that is equal on both sides."""
        return self.meter.unchanged(self._values(job, 0, self._read(job, job.left, 0, piece)))

    def _read(self, job: _Job, extent: Extent, side: int, piece: int) -> bytearray:
        width = BITS[job.types[side]] // 8
        return self._fill(extent, side, piece * job.tile * width, _count(job, piece) * width)

    def _filled(self, left: Extent, right: Extent, start: int, length: int) -> tuple[bytearray, bytearray]:
        return self._fill(left, 0, start, length), self._fill(right, 1, start, length)

    def _fill(self, extent: Extent, side: int, start: int, length: int) -> bytearray:
        """The buffer of a side with these bytes in it; a shorter last piece gets a shorter buffer."""
        buffer = self._bytes[side]
        if len(buffer) != length:
            buffer = bytearray(length)
            self._bytes = (buffer, self._bytes[1]) if side == 0 else (self._bytes[0], buffer)
        extent.read_into(start, memoryview(buffer))
        self.read[side] += length
        return buffer

    def _values(self, job: _Job, side: int, data: bytearray) -> torch.Tensor:
        import torch

        values = torch.frombuffer(data, dtype=torch_dtype(job.types[side]))
        if self._device.type == "cuda":  # only pinned memory is copied while the processor goes on
            if len(self._pinned) != 2 or self._pinned[side].numel() < len(data):
                size = max(len(data), job.tile * 8)
                self._pinned = tuple(torch.empty(size, dtype=torch.uint8, pin_memory=True) for _ in range(2))
            pinned = self._pinned[side][: len(data)].view(values.dtype)
            values = pinned.copy_(values)
        return values.view(-1, job.columns) if job.columns else values


def _count(job: _Job, piece: int) -> int:
    """Elements of a piece."""
    return min(job.tile, job.elements - piece * job.tile)


def _share(meters: list[Meter]) -> float:
    """Share of the columns that any of these saw a moved value in."""
    import torch

    marks = [meter.columns for meter in meters if meter.columns is not None]
    return torch.stack(marks).any(0).float().mean().item() if marks else 0.0


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
