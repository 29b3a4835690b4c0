"""Files of a repository, opened for a sketch: small ones are read whole, once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from crawler.interface import ByteSource, Hub, Snapshot
from crawler.local import check_range
from forkwatch.pipeline.budget import sketch_budget


class Whole:
    """A file that is fetched as a whole when its first byte is read, and kept in memory."""

    def __init__(self, source: ByteSource) -> None:
        """Read nothing yet."""
        self._source = source
        self._content: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return self._source.size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises:
            CrawlerError: the file could not be had, or is too short.
        """
        if self._content is None:
            self._content = self._source.read(0, self.size)
        check_range("a small file", self.size, offset, length)
        return self._content[offset : offset + length]

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Each `(offset, length)`, in order. Raises as `read`."""
        return [self.read(offset, length) for offset, length in ranges]


def open_for_sketch(hub: Hub, snapshot: Snapshot, paths: Iterable[str]) -> dict[str, ByteSource]:
    """Path → bytes. Where the budget of a sketch reaches for everything, its rounds would read rows twice."""
    sources: dict[str, ByteSource] = {path: hub.open(snapshot, path) for path in paths}
    size = sum(source.size for source in sources.values())
    if size > sketch_budget(size):
        return sources
    return {path: Whole(source) for path, source in sources.items()}
