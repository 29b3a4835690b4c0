"""Weights in one GGUF file, under their transformers names.

Only bytes are handed to gguf-py, and only to be dequantised; its file reader is never used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from crawler.interface import ByteSource
from detector.errors import MalformedWeightsError, UnreadableTensorError
from detector.formats.dtypes import from_bytes
from detector.formats.extent import Extent
from detector.formats.gguf_header import BLOCKS, GgufHeader, GgufTensor, read_gguf_header
from detector.formats.names import canonical_gguf_name, is_buffer, module_of
from detector.formats.views import Views
from detector.interface import TensorInfo
from detector.prefetch import deferred

if TYPE_CHECKING:
    import torch

_PLAIN = frozenset({"F64", "F32", "F16", "BF16", "I8", "I16", "I32", "I64"})
_TYPE_NUMBERS = {name: number for number, (name, _, _) in BLOCKS.items()}
_BLOCK_SHAPES = {name: (block, nbytes) for name, block, nbytes in BLOCKS.values()}

_LATER = re.compile(r"blk\.(\d{1,5})\.nextn\.")
"""Layers that predict later tokens."""

ROTATED_ARCHITECTURES = frozenset(
    {
        *("llama", "granite", "granitemoe", "smollm3", "minicpm", "xverse", "deci", "arcee"),
        *("internlm2", "baichuan", "olmo", "chameleon"),
    }
)
"""Converters of these reorder the rows of q and k: interleaved instead of half-split rotary pairs."""

SHIFTED_ARCHITECTURES = frozenset({"gemma", "gemma2", "gemma3"})
"""Converters of these add one to the gains of every norm."""


class GgufReader:
    """A `WeightReader` over one GGUF file."""

    format = "gguf"

    def __init__(self, path: str, source: ByteSource, first: GgufHeader | None = None) -> None:
        """Read and check the header.

        Args:
            path: name of the file, for messages.
            source: its bytes.
            first: header of the first shard, which alone describes the model; None if this file does.

        Raises:
            MalformedWeightsError: the header is malformed.
        """
        self._source = deferred({path: source})[path]
        self._views = Views(self)
        self.header: GgufHeader = read_gguf_header(self._source, path)
        self._streamed = 0
        self._places: dict[str, GgufTensor] = {}
        self._model = first or self.header
        found = self._model.get("general.architecture")
        self._architecture = found if isinstance(found, str) else ""
        later = {match[1] for tensor in self.header.tensors if (match := _LATER.match(tensor.name))}
        for tensor in self.header.tensors:
            if is_buffer(tensor.name):
                continue
            name = canonical_gguf_name(tensor.name, self._architecture)
            if tensor.name.startswith("blk.") and tensor.name.split(".")[1] in later:
                name = f"mtp.{name.removeprefix('model.layers.').removeprefix('blk.')}"
            if name in self._places:
                raise MalformedWeightsError(f"{path}: two tensors are {name[:120]}")
            self._places[name] = tensor
        self._infos = {
            name: TensorInfo(name, place.dtype, place.shape, place.nbytes)
            for name, place in sorted(self._places.items())
        }

    @property
    def headers(self) -> tuple[str, ...]:
        """SHA-256 of the header."""
        return (self.header.digest,)

    @property
    def bytes_read(self) -> int:
        """Bytes read so far."""
        return self._streamed + self._source.bytes_read

    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors, from the header."""
        return self._infos

    def raw(self, name: str) -> bytes:
        """Stored bytes of one tensor, rows in the file's order."""
        place = self._places[name]
        return self._read(place.offset, place.nbytes)

    def values(self, name: str) -> torch.Tensor:
        """Values of one tensor in transformers' row order, dequantised to float32 if need be."""
        return self.band(name, 0, self._views.shape(name)[0])

    def band(self, name: str, first_row: int, rows: int) -> torch.Tensor:
        """Rows of one tensor in transformers' row order."""
        if name not in self._places:
            return self._views.band(name, first_row, rows)
        place = self._places[name]
        first = min(max(first_row, 0), place.shape[0])
        last = min(max(first_row + rows, first), place.shape[0])
        head = self._rotary_head(name, place)
        if head == 0:
            rows_read = self._rows(place, first, last)
            return rows_read - 1 if self._is_shifted(name) else rows_read
        start, end = first // head * head, -(-last // head) * head
        return _half_split(self._rows(place, start, end), head)[first - start : last - start]

    def band_bytes(self, name: str, rows: int) -> int:
        """Bytes of so many rows, to the nearest row."""
        info = self._infos[name]
        height = info.shape[0] if info.shape else 1
        return info.nbytes * min(rows, height) // max(height, 1)

    def extent(self, name: str) -> Extent | None:
        """Place of a tensor whose rows are in transformers' order."""
        place = self._places.get(name)
        if place is None or self._rotary_head(name, place):
            return None
        shifted = self._is_shifted(name)
        layout = f"{place.dtype} less one" if shifted else place.dtype
        return Extent(
            self._source.source, place.offset, place.nbytes, layout, place.dtype in _PLAIN and not shifted
        )

    def count(self, nbytes: int) -> None:
        """Add to `bytes_read`."""
        self._streamed += nbytes

    def slab(self, name: str, index: int, first_row: int, rows: int) -> torch.Tensor:
        """`values(name)[index, first_row : first_row + rows]` of a stack of matrices."""
        return self.band(name, index, 1)[0, first_row : first_row + rows]

    def _rotary_head(self, name: str, place: GgufTensor) -> int:
        """Rows a rotary head has in a reordered tensor; 0 when its rows are in transformers' order."""
        architecture = self._architecture
        module = module_of(name)
        if architecture not in ROTATED_ARCHITECTURES or module not in {"q_proj", "k_proj"}:
            return 0
        heads = self._model.get(f"{architecture}.attention.head_count")
        if module == "k_proj":
            heads = self._model.get(f"{architecture}.attention.head_count_kv") or heads
        if type(heads) is not int:
            raise UnreadableTensorError(f"{name}: the file does not say how many heads there are")
        if heads <= 0 or place.shape[0] % (2 * heads):
            raise MalformedWeightsError(f"{name}: {place.shape[0]} rows are not {heads} rotary heads")
        return place.shape[0] // heads

    def _is_shifted(self, name: str) -> bool:
        """Gemma's gains are stored as differences from one; its converter adds it."""
        return self._architecture in SHIFTED_ARCHITECTURES and name.endswith("norm.weight")

    def _rows(self, place: GgufTensor, first: int, last: int) -> torch.Tensor:
        if place.dtype not in _BLOCK_SHAPES:
            raise UnreadableTensorError(f"{place.name[:120]}: type {place.dtype} is not decoded")
        width = place.nbytes // place.shape[0]
        if len(place.shape) == 1:
            block, block_bytes = _BLOCK_SHAPES[place.dtype]
            if block > 1:
                return _decode(self._read(place.offset, place.nbytes), place.dtype, place.shape)[first:last]
            width = block_bytes
        data = self._read(place.offset + first * width, (last - first) * width)
        return _decode(data, place.dtype, (last - first, *place.shape[1:]))

    def _read(self, offset: int, length: int) -> bytes:
        return self._source.read(offset, length) if length else b""


def _half_split(rows: torch.Tensor, head: int) -> torch.Tensor:
    """Undo llama.cpp's row order: (heads, d/2, 2) back to (heads, 2, d/2)."""
    split = rows.reshape(rows.shape[0] // head, head // 2, 2, *rows.shape[1:])
    return split.transpose(1, 2).reshape(rows.shape)


def _decode(data: bytes, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    if dtype in _PLAIN:
        return from_bytes(data, dtype, shape)
    import numpy as np
    import torch
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    if not data:
        return torch.empty(shape)
    block, block_bytes = _BLOCK_SHAPES[dtype]
    codes = np.frombuffer(data, dtype=np.uint8).reshape(-1, shape[-1] // block * block_bytes)
    try:
        with np.errstate(all="ignore"):  # hostile scales may be infinite
            values = dequantize(codes, GGMLQuantizationType(_TYPE_NUMBERS[dtype]))
    except (NotImplementedError, KeyError) as error:
        raise UnreadableTensorError(f"GGUF type {dtype} is not decoded") from error
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).reshape(shape)
