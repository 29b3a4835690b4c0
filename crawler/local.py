"""A file on this disk, read like one on the Hub."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from pathlib import Path

from crawler.interface import CorruptDownloadError

_AT_ONCE = 1 << 30
"""Bytes of one system call: Linux reads at most 2 GiB (read(2))."""


def check_range(name: str, size: int, offset: int, length: int) -> None:
    """Refuse a read that the file cannot satisfy.

    Raises:
        CorruptDownloadError: it reaches beyond the end, as the offsets of a truncated or hostile file do.
    """
    if offset < 0 or length < 0 or offset + length > size:
        raise CorruptDownloadError(f"{name}: {length} bytes at {offset} asked of a file of {size}")


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

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Each `(offset, length)`, in order. Raises as `read`."""
        return [self.read(offset, length) for offset, length in ranges]
