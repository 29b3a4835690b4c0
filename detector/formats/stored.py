"""The tensors that safetensors files store, under the names they have there: below every encoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from crawler.interface import ByteSource
from detector.errors import MalformedWeightsError, UnreadableTensorError
from detector.formats.dtypes import BITS, from_bytes
from detector.formats.extent import Extent
from detector.formats.safetensors_header import StoredTensor, read_header
from detector.prefetch import Deferred, deferred, read_together

if TYPE_CHECKING:
    import torch

MAX_KEPT = 256 << 20
"""Bytes of the one tensor that `whole` keeps."""
MAX_TENSORS = 1 << 18
"""In all files of a checkpoint; the most seen, experts one by one with a scale each, are 140 000."""
MAX_PREFETCHED = 4096
"""Bytes of a tensor that `prefetch` takes: quantisation states and shapes have at most a few hundred."""


class StoredFiles:
    """Random access to stored tensors. Headers are read at once, tensors when they are asked for."""

    def __init__(self, files: Mapping[str, ByteSource]) -> None:
        """Read and check the headers of `files`.

        Raises:
            MalformedWeightsError: a header is malformed, or two files hold the same tensor.
        """
        self._files = deferred(files)
        self.tensors: dict[str, StoredTensor] = {}
        self._sources: dict[str, Deferred] = {}
        self._kept: tuple[str, torch.Tensor] | None = None
        self.streamed = 0
        """Bytes that were read through extents."""
        self._prefetched: dict[str, bytes] = {}
        digests = []
        ordered = sorted(self._files.items())
        headers = read_together([partial(read_header, source, path) for path, source in ordered])
        for (path, source), header in zip(ordered, headers, strict=True):
            digests.append(header.digest)
            if len(self.tensors) + len(header.tensors) > MAX_TENSORS:
                raise MalformedWeightsError(f"{path}: more than {MAX_TENSORS} tensors in all files")
            for tensor in header.tensors:
                if tensor.name in self.tensors:
                    raise MalformedWeightsError(f"{path}: tensor {tensor.name[:120]} is in two files")
                self.tensors[tensor.name] = tensor
                self._sources[tensor.name] = source
        self.headers = tuple(sorted(digests))
        """SHA-256 of each file's header, sorted."""

    @property
    def bytes_read(self) -> int:
        """Bytes asked of the files so far."""
        return self.streamed + sum(source.bytes_read for source in self._files.values())

    def holders(self) -> dict[str, str]:
        """Tensor → path of the file that holds it."""
        paths = {id(source): path for path, source in self._files.items()}
        return {name: paths[id(source)] for name, source in self._sources.items()}

    def raw(self, name: str) -> bytes:
        """All bytes of one tensor."""
        return self.piece(name, 0, self.tensors[name].nbytes)

    def piece(self, name: str, offset: int, length: int) -> bytes:
        """`length` bytes of one tensor, `offset` bytes into it.

        Raises:
            MalformedWeightsError: the tensor has no such bytes.
        """
        place = self.tensors[name]
        if offset < 0 or length < 0 or offset + length > place.nbytes:
            raise MalformedWeightsError(f"{name[:120]}: {length} bytes at {offset} of {place.nbytes}")
        if length == 0:
            return b""
        if name in self._prefetched:
            return self._prefetched[name][offset : offset + length]
        return self._sources[name].read(place.offset + offset, length)

    def extent(self, name: str) -> Extent:
        """Where the tensor lies."""
        place = self.tensors[name]
        plain = BITS[place.dtype] % 8 == 0
        return Extent(self._sources[name].source, place.offset, place.nbytes, place.dtype, plain)

    def prefetch(self, names: Sequence[str]) -> None:
        """Read these small tensors at once and keep them; larger ones are left alone.

        A quantised checkpoint has several for each layer; a request for each would cost more than the rest.
        """
        small = [name for name in names if 0 < self.tensors[name].nbytes <= MAX_PREFETCHED]
        by_source: dict[int, list[str]] = {}
        for name in small:
            by_source.setdefault(id(self._sources[name]), []).append(name)
        for group in by_source.values():
            places = [(self.tensors[name].offset, self.tensors[name].nbytes) for name in group]
            found = self._sources[group[0]].read_many(places)
            self._prefetched.update(zip(group, found, strict=True))

    def tensor(self, name: str) -> torch.Tensor:
        """All values of one tensor, in its stored dtype."""
        place = self.tensors[name]
        return from_bytes(self.raw(name), place.dtype, place.shape)

    def whole(self, name: str) -> torch.Tensor:
        """`tensor(name)`, kept until another is asked for: what is packed across rows is needed again."""
        if self._kept is None or self._kept[0] != name:
            self._kept = None  # the old one is freed before the new one is read
            tensor = self.tensor(name)
            if self.tensors[name].nbytes > MAX_KEPT:
                return tensor
            self._kept = (name, tensor)
        return self._kept[1]

    def band(self, name: str, first: int, last: int) -> torch.Tensor:
        """Rows `first` to `last` of one tensor, clamped to its height: one range, as storage is row-major.

        Raises:
            UnreadableTensorError: a scalar, or an element type whose rows do not end on a byte.
        """
        place = self.tensors[name]
        if not place.shape:
            raise UnreadableTensorError(f"{name[:120]} is a scalar")
        height = place.shape[0]
        first = min(max(first, 0), height)
        last = min(max(last, first), height)
        width = place.nbytes // max(height, 1)
        if width * height != place.nbytes or (BITS[place.dtype] % 8 and len(place.shape) < 2):
            raise UnreadableTensorError(f"{name[:120]}: rows do not end on a byte")
        data = self.piece(name, first * width, (last - first) * width)
        return from_bytes(data, place.dtype, (last - first, *place.shape[1:]))

    def slab(self, name: str, index: int, first: int, last: int) -> torch.Tensor:
        """Rows `first` to `last` of matrix `index` of a stack; the caller has checked them against its shape.

        Raises:
            UnreadableTensorError: an element type whose rows do not end on a byte.
        """
        place = self.tensors[name]
        count, height, *rest = place.shape
        width = place.nbytes // max(count * height, 1)
        if width * count * height != place.nbytes:
            raise UnreadableTensorError(f"{name[:120]}: rows do not end on a byte")
        data = self.piece(name, (index * height + first) * width, (last - first) * width)
        return from_bytes(data, place.dtype, (last - first, *rest))
