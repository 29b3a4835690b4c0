"""A file on this disk, read like one on the Hub."""

from __future__ import annotations

from pathlib import Path

from crawler.interface import CorruptDownloadError


def check_range(name: str, size: int, offset: int, length: int) -> None:
    """Refuse a read that the file cannot satisfy.

    Raises:
        CorruptDownloadError: it reaches beyond the end, as the offsets of a truncated or hostile file do.
    """
    if offset < 0 or length < 0 or offset + length > size:
        raise CorruptDownloadError(f"{name}: {length} bytes at {offset} asked of a file of {size}")


class LocalFile:
    """A `ByteSource` over a local file. Opened for each read, so it holds nothing and is safe to share."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size

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
        with self._path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(length)
        if len(data) != length:
            raise CorruptDownloadError(f"{self._path.name}: shrank while it was read")
        return data
