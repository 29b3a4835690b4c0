"""A `ByteSource` as a file object, for libraries that read through one."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from crawler.interface import ByteSource

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class SourceStream(io.RawIOBase):
    """Buffers nothing: for small reads it belongs under a `BufferedReader`."""

    def __init__(self, source: ByteSource) -> None:
        super().__init__()
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Bytes from the start."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """As `io.IOBase`.

        Raises:
            ValueError: before the start.
        """
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise ValueError("negative position")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """As `io.RawIOBase`: as many bytes as there are, at most.

        Raises:
            CrawlerError: they could not be had.
        """
        view = memoryview(buffer).cast("B")
        length = max(0, min(len(view), self._source.size - self._position))
        if length:
            view[:length] = self._source.read(self._position, length)
        self._position += length
        return length
