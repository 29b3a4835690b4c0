"""Weights in one or several safetensors files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from crawler.interface import ByteSource
from detector.formats.dtypes import from_bytes
from detector.formats.names import canonical_names
from detector.formats.safetensors_header import StoredTensor, read_header
from detector.interface import MalformedWeightsError, TensorInfo, UnreadableTensorError

if TYPE_CHECKING:
    import torch

MAX_INDEX = 16 << 20
"""Bytes of `model.safetensors.index.json`."""


class SafetensorsReader:
    """A `WeightReader` over safetensors files: headers are read at once, tensors when they are asked for."""

    format = "safetensors"

    def __init__(self, files: Mapping[str, ByteSource]) -> None:
        """Read and check the headers of `files`.

        Raises:
            MalformedWeightsError: a header is malformed, or two files hold the same tensor.
        """
        self._files = dict(sorted(files.items()))
        self._places: dict[str, tuple[ByteSource, StoredTensor]] = {}
        self._bytes_read = 0
        digests = []
        stored: dict[str, tuple[ByteSource, StoredTensor]] = {}
        for path, source in self._files.items():
            header = read_header(source, path)
            self._bytes_read += header.nbytes
            digests.append(header.digest)
            for tensor in header.tensors:
                if tensor.name in stored:
                    raise MalformedWeightsError(f"{path}: tensor {tensor.name[:120]} is in two files")
                stored[tensor.name] = (source, tensor)
        for name, canonical in canonical_names(stored).items():
            self._places[canonical] = stored[name]
        self._headers = tuple(sorted(digests))
        self._infos = {
            name: TensorInfo(name, place.dtype, place.shape, place.nbytes)
            for name, (_, place) in sorted(self._places.items())
        }

    @property
    def headers(self) -> tuple[str, ...]:
        """SHA-256 of each file's header, sorted."""
        return self._headers

    @property
    def bytes_read(self) -> int:
        """Bytes read so far."""
        return self._bytes_read

    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors, from the headers."""
        return self._infos

    def raw(self, name: str) -> bytes:
        """Stored bytes of one tensor."""
        source, place = self._places[name]
        return self._read(source, place.offset, place.nbytes)

    def values(self, name: str) -> torch.Tensor:
        """Values of one tensor in its stored dtype."""
        place = self._places[name][1]
        return from_bytes(self.raw(name), place.dtype, place.shape)

    def band(self, name: str, first_row: int, rows: int) -> torch.Tensor:
        """Rows of one tensor; row-major storage makes them one range."""
        source, place = self._places[name]
        if not place.shape:
            raise UnreadableTensorError(f"{name} is a scalar")
        first = min(max(first_row, 0), place.shape[0])
        last = min(max(first_row + rows, first), place.shape[0])
        width = place.nbytes // max(place.shape[0], 1)
        if width * place.shape[0] != place.nbytes:
            raise UnreadableTensorError(f"{name}: rows do not end on a byte")
        data = self._read(source, place.offset + first * width, (last - first) * width)
        return from_bytes(data, place.dtype, (last - first, *place.shape[1:]))

    def _read(self, source: ByteSource, offset: int, length: int) -> bytes:
        if length == 0:
            return b""
        data = source.read(offset, length)
        self._bytes_read += length
        return data


def read_index(source: ByteSource, path: str) -> tuple[str, ...]:
    """Shard file names that an index lists, sorted, each once.

    Raises:
        MalformedWeightsError: not an index, or too large.
    """
    if source.size > MAX_INDEX:
        raise MalformedWeightsError(f"{path}: index of {source.size} bytes, more than {MAX_INDEX}")
    try:
        index = json.loads(source.read(0, source.size))
    except (ValueError, RecursionError) as error:
        raise MalformedWeightsError(f"{path}: {error}") from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise MalformedWeightsError(f"{path}: no weight_map")
    shards = {shard for shard in weight_map.values() if isinstance(shard, str)}
    if len(shards) < len(set(map(str, weight_map.values()))):
        raise MalformedWeightsError(f"{path}: weight_map names something else than files")
    return tuple(sorted(shards))


def elements(info: TensorInfo) -> int:
    """Number of elements of a tensor."""
    return math.prod(info.shape)
