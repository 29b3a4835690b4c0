"""A file on this disk, read like one on the Hub."""

from __future__ import annotations

import contextlib
import mmap
import os
import weakref
from collections.abc import Sequence
from pathlib import Path

from crawler.interface import CorruptDownloadError

_AT_ONCE = 1 << 30
"""Bytes of one system call: Linux reads at most 2 GiB (read(2))."""
_POPULATE_READ = 22
"""MADV_POPULATE_READ of madvise(2), Linux 5.14: map the pages, or say why not."""


def check_range(name: str, size: int, offset: int, length: int) -> None:
    """Refuse a read that the file cannot satisfy.

    Raises:
        CorruptDownloadError: it reaches beyond the end, as the offsets of a truncated or hostile file do.
    """
    if offset < 0 or length < 0 or offset + length > size:
        raise CorruptDownloadError(f"{name}: {length} bytes at {offset} asked of a file of {size}")


class Window:
    """Bytes of a file where they lie in the page cache: copying them costs as much as comparing them.

    What is written to them stays in this process. A page that is asked for and is not there raises; if the
    file is cut short between that and its use, the kernel ends the process (SIGBUS).
    """

    def __init__(self, name: str, descriptor: int, offset: int, length: int) -> None:
        """Args: name and open file; the first byte, and how many.

        Raises:
            OSError: this file or this system cannot do it.
            ValueError: the file is not that long.
        """
        self._name = name
        self._skipped = offset % mmap.ALLOCATIONGRANULARITY
        self._map = mmap.mmap(
            descriptor,
            self._skipped + length,
            mmap.MAP_PRIVATE,
            mmap.PROT_READ | mmap.PROT_WRITE,
            offset=offset - self._skipped,
        )
        self._map.madvise(_POPULATE_READ, 0, 1)

    def view(self, offset: int, length: int) -> memoryview:
        """These bytes; the window stays open as long as there is a view.

        Raises:
            CorruptDownloadError: the file became too short, or its disk fails.
        """
        start = self._skipped + offset
        first = start - start % mmap.PAGESIZE
        try:
            self._map.madvise(_POPULATE_READ, first, start + length - first)
        except OSError as error:
            raise CorruptDownloadError(
                f"{self._name}: shrank while it was read, or cannot be read"
            ) from error
        return memoryview(self._map)[start : start + length]


class LocalFile:
    """A `RangeSource` over a local file, opened once: it stays readable when the cache evicts its name.

    Safe to share between threads; closed when nobody refers to it any more.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            OSError: it cannot be opened.
        """
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self._size = os.fstat(self._descriptor).st_size

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises:
            CorruptDownloadError: the file is too short, or became so.
        """
        check_range(self._path.name, self._size, offset, length)
        pieces = []
        while length > 0:
            piece = os.pread(self._descriptor, min(length, _AT_ONCE), offset)
            if not piece:
                raise CorruptDownloadError(f"{self._path.name}: shrank while it was read")
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`: memory that is used again needs no new pages. Raises as `read`."""
        check_range(self._path.name, self._size, offset, len(buffer))
        while len(buffer) > 0:
            count = os.preadv(self._descriptor, [buffer[:_AT_ONCE]], offset)
            if count == 0:
                raise CorruptDownloadError(f"{self._path.name}: shrank while it was read")
            offset, buffer = offset + count, buffer[count:]

    def window(self, offset: int, length: int) -> Window | None:
        """The same bytes without copying them; None where that cannot be done. Raises as `read`."""
        check_range(self._path.name, self._size, offset, length)
        with contextlib.suppress(OSError, ValueError):  # `read` says what is wrong
            return Window(self._path.name, self._descriptor, offset, length)
        return None

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Each `(offset, length)`, in order. Raises as `read`."""
        return [self.read(offset, length) for offset, length in ranges]
