"""Many small reads of a checkpoint in few requests, whatever its format.

A reader knows which bytes it needs only while it decodes: the codes of a band, then their scales, then a
table that the scales point into. So nobody plans ranges. `read_together` runs the reads; each stops at its
first byte that is not here; what all of them miss is fetched at once (`RangeSource.read_many`, the files in
parallel), and the reads are run again. As many rounds are needed as an encoding has parts that depend on
each other: one for plain tensors and GGUF, two to four for packed ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from threading import Event
from typing import TypeVar

from crawler.interface import ByteSource
from crawler.ranges import in_parallel

HEAD = 100_000
"""Bytes read of a file when its first eight are asked for: 97 % of all safetensors headers fit
(huggingface_hub, `parse_safetensors_file_metadata`), and a request costs more than the rest of them."""
FILES_AT_ONCE = 4
"""Files that are read at a time, each with as many requests as its source makes of one call."""

T = TypeVar("T")

_GATHERING: ContextVar[bool] = ContextVar("gathering", default=False)


class _MissingError(Exception):
    """A read needs bytes that are not here yet; never leaves `read_together`."""

    def __init__(self, source: Deferred, offset: int, length: int) -> None:
        super().__init__(offset, length)
        self.source, self.range = source, (offset, length)


class Deferred:
    """A `RangeSource` that can hold ranges, and that asks for many at once inside `read_together`."""

    def __init__(self, source: ByteSource) -> None:
        """Read nothing yet."""
        self.source = source
        """What it reads from; who reads that directly counts for himself."""
        self._head = b""
        self._held: dict[tuple[int, int], bytes] = {}
        self.bytes_read = 0
        """Bytes asked of the source; each once, however often it was needed."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.source.size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`. Raises as the source's `read`."""
        if offset >= 0 and 0 < length <= len(self._head) - offset:
            return self._head[offset : offset + length]
        if (held := self._held.get((offset, length))) is not None:
            return held
        if _GATHERING.get() and length:
            raise _MissingError(self, offset, length)
        self.bytes_read += length
        return self.source.read(offset, length)

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Each `(offset, length)`, in order. Raises as the source's `read_many`."""
        self.bytes_read += sum(length for _, length in ranges)
        if hasattr(self.source, "read_many"):
            return list[bytes](self.source.read_many(ranges))
        return [self.source.read(offset, length) for offset, length in ranges]

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Hold these ranges until `release`."""
        wanted = [(0, min(HEAD, self.size)) if _is_head(place) else place for place in ranges]
        for place, data in zip(ranges, self.read_many(wanted), strict=True):
            if _is_head(place):
                self._head = data
            else:
                self._held[place] = data

    def release(self) -> None:
        """Forget the held ranges."""
        self._held.clear()
        self._head = b""


def deferred(files: Mapping[str, ByteSource]) -> dict[str, Deferred]:
    """These files, each able to take part in `read_together`."""
    return {
        path: source if isinstance(source, Deferred) else Deferred(source) for path, source in files.items()
    }


def read_together(reads: Sequence[Callable[[], T]]) -> list[T]:
    """The results of `reads`, in order, with the ranges that they need fetched together.

    Args:
        reads: each may be run several times, until every byte it needs is here. What it raises is raised.

    Raises:
        CrawlerError: bytes could not be had.
    """
    results: dict[int, T] = {}
    touched: dict[int, Deferred] = {}
    try:
        pending = list(range(len(reads)))
        while pending:
            wanted: dict[int, dict[tuple[int, int], None]] = {}
            for index in pending:
                token = _GATHERING.set(True)
                try:
                    results[index] = reads[index]()
                except _MissingError as missing:
                    touched[id(missing.source)] = missing.source
                    wanted.setdefault(id(missing.source), {})[missing.range] = None
                finally:
                    _GATHERING.reset(token)
            _fetch([(touched[key], list(ranges)) for key, ranges in wanted.items()])
            pending = [index for index in pending if index not in results]
    finally:
        for source in touched.values():
            source.release()
    return [results[index] for index in range(len(reads))]


def _fetch(wanted: list[tuple[Deferred, list[tuple[int, int]]]]) -> None:
    def work(item: tuple[Deferred, list[tuple[int, int]]], _: Event) -> None:
        item[0].fetch(item[1])

    in_parallel(work, wanted, FILES_AT_ONCE)


def _is_head(place: tuple[int, int]) -> bool:
    return place[0] == 0 and 0 < place[1] <= 8
