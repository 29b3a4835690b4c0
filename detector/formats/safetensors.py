"""Weights in one or several safetensors files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from crawler.interface import ByteSource
from detector.errors import MalformedWeightsError
from detector.formats.awq import Awq
from detector.formats.encoded import Encoded
from detector.formats.encodings import find_encoded
from detector.formats.extent import Extent
from detector.formats.gptq import Gptq
from detector.formats.hints import NO_HINTS, Hints
from detector.formats.hqq import Hqq
from detector.formats.names import canonical_names
from detector.formats.safetensors_header import StoredTensor, unique
from detector.formats.stored import MAX_TENSORS, StoredFiles
from detector.formats.views import Views
from detector.interface import TensorInfo

if TYPE_CHECKING:
    import torch

MAX_INDEX = 32 << 20
"""Bytes of `model.safetensors.index.json`; 140 000 tensors take about 14 MB."""
_MARKS = {b"{": 64, b"[": 64, b",": 2 * MAX_TENSORS}
"""How often each may occur in an index before a parser sees it."""


class SafetensorsReader:
    """A `WeightReader` over safetensors files: headers are read at once, tensors when they are asked for.

    Tensors that a quantisation layout stores in parts appear once, under the name and with the shape of the
    tensor they stand for.
    """

    format = "safetensors"

    def __init__(
        self,
        files: Mapping[str, ByteSource],
        hints: Hints = NO_HINTS,
        places: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Read and check the headers of `files`.

        Args:
            files: path → bytes.
            hints: what the configuration says of a quantisation.
            places: tensor → path by the index. A tensor that no file holds is no contradiction: exporters
                list a tied head and do not store it.

        Raises:
            MalformedWeightsError: a header is malformed, two files hold the same tensor, the index has one in
                another file, or the parts of a quantised tensor contradict each other.
        """
        self._files = StoredFiles(files)
        for name, holder in self._files.holders().items() if places else ():
            if places.get(name, holder) != holder:
                raise MalformedWeightsError(
                    f"{holder}: tensor {name[:120]} is in {places[name][:120]!a} by the index"
                )
        self._views = Views(self)
        encoded, used = find_encoded(self._files, hints)
        plain = self._files.tensors.keys() - used
        self._plain: dict[str, StoredTensor] = {}
        self._encoded: dict[str, Encoded] = {}
        for name, canonical in canonical_names(sorted({*plain, *encoded})).items():
            if name in encoded:
                self._encoded[canonical] = encoded[name]
            else:
                self._plain[canonical] = self._files.tensors[name]
        self._infos = {name: self._info(name) for name in sorted({*self._plain, *self._encoded})}

    def _info(self, name: str) -> TensorInfo:
        if name in self._plain:
            place = self._plain[name]
            return TensorInfo(name, place.dtype, place.shape, place.nbytes)
        encoded = self._encoded[name]
        nbytes = sum(self._files.tensors[part].nbytes for part in encoded.parts)
        return TensorInfo(name, encoded.dtype, encoded.shape, nbytes)

    @property
    def headers(self) -> tuple[str, ...]:
        """SHA-256 of each file's header, sorted."""
        return self._files.headers

    @property
    def bytes_read(self) -> int:
        """Bytes read so far."""
        return self._files.bytes_read

    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors, from the headers."""
        return self._infos

    def raw(self, name: str) -> bytes:
        """Stored bytes of one tensor; of a quantised one, its parts one after the other."""
        if name in self._encoded:
            return b"".join(self._files.raw(part) for part in self._encoded[name].parts)
        return self._files.raw(self._plain[name].name)

    def values(self, name: str) -> torch.Tensor:
        """Values of one tensor in its stored dtype, float32 if it is quantised."""
        if name in self._plain:
            return self._files.tensor(self._plain[name].name)
        return self.band(name, 0, self._views.shape(name)[0])

    def band(self, name: str, first_row: int, rows: int) -> torch.Tensor:
        """Rows of one tensor: one range, but for GPTQ and AWQ, which pack across rows and are read whole."""
        if name in self._plain:
            return self._files.band(self._plain[name].name, first_row, first_row + rows)
        if name not in self._encoded:
            return self._views.band(name, first_row, rows)
        encoded = self._encoded[name]
        first = min(max(first_row, 0), encoded.shape[0])
        last = min(max(first_row + rows, first), encoded.shape[0])
        return encoded.rows(self._files, first, last)

    def band_bytes(self, name: str, rows: int) -> int:
        """Bytes that a band of so many rows costs: all of the tensor where a layout packs across rows."""
        info = self._infos[name]
        encoded = self._encoded.get(name)
        if isinstance(encoded, Gptq | Awq) or (isinstance(encoded, Hqq) and encoded.axis == 0):
            return info.nbytes
        return info.nbytes * min(rows, info.shape[0]) // max(info.shape[0], 1) if info.shape else info.nbytes

    def extent(self, name: str) -> Extent | None:
        """Place of a tensor that is stored plainly."""
        return self._files.extent(self._plain[name].name) if name in self._plain else None

    def count(self, nbytes: int) -> None:
        """Add to `bytes_read`."""
        self._files.streamed += nbytes

    def slab(self, name: str, index: int, first_row: int, rows: int) -> torch.Tensor:
        """`values(name)[index, first_row : first_row + rows]` of a stack of matrices."""
        if name in self._plain:
            return self._files.slab(self._plain[name].name, index, first_row, first_row + rows)
        return self.band(name, index, 1)[0, first_row : first_row + rows]


def read_index(source: ByteSource, path: str) -> dict[str, str]:
    """Tensor → file name, as an index lists them.

    Raises:
        MalformedWeightsError: not an index, too large, or a tensor in two files.
    """
    if source.size > MAX_INDEX:
        raise MalformedWeightsError(f"{path}: index of {source.size} bytes, more than {MAX_INDEX}")
    text = source.read(0, source.size)
    if any(text.count(mark) > most for mark, most in _MARKS.items()):
        raise MalformedWeightsError(f"{path}: more entries than any checkpoint has")
    try:
        index = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise MalformedWeightsError(f"{path}: {error}") from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise MalformedWeightsError(f"{path}: no weight_map")
    found = {name: shard for name, shard in weight_map.items() if isinstance(shard, str)}
    if len(found) < len(weight_map):
        raise MalformedWeightsError(f"{path}: weight_map names something else than files")
    return found


def elements(info: TensorInfo) -> int:
    """Number of elements of a tensor."""
    return math.prod(info.shape)
