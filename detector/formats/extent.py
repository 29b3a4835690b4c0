"""Where a tensor's stored bytes lie, for readers of files that store it plainly, row after row.

Two such tensors can be compared byte by byte, in pieces of any size, before anything is decoded.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

from crawler.interface import ByteSource
from detector.errors import MalformedWeightsError
from detector.interface import WeightReader

ALIGNED = 8
"""Bytes of the widest element: compiled loops take no address between two of them."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The contiguous bytes of one tensor."""

    source: ByteSource
    offset: int
    nbytes: int
    layout: str
    """What the bytes mean: two extents with equal layouts and equal bytes hold equal values."""
    plain: bool
    """Elements of a type that torch has, little-endian, in the order of the shape."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset` on; safe in several threads if the source is.

        Raises:
            MalformedWeightsError: the tensor has no such bytes.
            CrawlerError: the bytes could not be had.
        """
        if offset < 0 or offset + len(buffer) > self.nbytes:
            raise MalformedWeightsError(f"{len(buffer)} bytes at {offset} of {self.nbytes}")
        if self.shareable:
            cast("_Filling", self.source).read_into(self.offset + offset, buffer)
        else:
            buffer[:] = self.source.read(self.offset + offset, len(buffer))

    def window(self, offset: int, length: int) -> Window | None:
        """The same bytes where they lie in memory; None where they have to be read. Raises as `read_into`."""
        if offset < 0 or offset + length > self.nbytes or (self.offset + offset) % ALIGNED:
            return None
        if not _is(type(self.source), _Mapping):
            return None
        return cast("_Mapping", self.source).window(self.offset + offset, length)

    @property
    def shareable(self) -> bool:
        """Several threads may read at once; only local files are known to allow it."""
        return _is(type(self.source), _Filling)


class Window(Protocol):
    """Bytes that need not be copied."""

    def view(self, offset: int, length: int) -> memoryview:
        """These of the window's bytes, which may be written to: that changes nothing but the view."""
        ...


@runtime_checkable
class _Mapping(Protocol):
    def window(self, offset: int, length: int) -> Window | None: ...


@runtime_checkable
class _Filling(Protocol):
    def read_into(self, offset: int, buffer: memoryview) -> None: ...


@functools.cache
def _is(kind: type, protocol: type) -> bool:
    """The check of a protocol takes longer than the comparison of a piece."""
    return issubclass(kind, protocol)


@runtime_checkable
class ExtentReader(Protocol):
    """A `WeightReader` that knows where its tensors lie."""

    def extent(self, name: str) -> Extent | None:
        """Place of a stored tensor; None if its rows are encoded, reordered or part of another tensor."""
        ...

    def count(self, nbytes: int) -> None:
        """Add to `bytes_read` what was read through an extent."""
        ...


def extent_of(reader: WeightReader, name: str) -> Extent | None:
    """Place of a tensor, if the reader can tell."""
    return cast("ExtentReader", reader).extent(name) if _is(type(reader), ExtentReader) else None


def count_read(reader: WeightReader, nbytes: int) -> None:
    """Tell a reader that so many bytes were read through its extents."""
    if _is(type(reader), ExtentReader):
        cast("ExtentReader", reader).count(nbytes)
