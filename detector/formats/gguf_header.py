"""A bounded reader of GGUF headers (versions 2 and 3, little-endian).

Every count, length and offset is checked against a cap and against the file before it is used: a 50-byte file
that announces an array of 2^62 elements costs nothing here, and hangs readers that believe it.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NoReturn

from crawler.interface import ByteSource
from detector.errors import MalformedWeightsError
from detector.formats.names import check_name

MAX_HEADER = 64 << 20
"""Bytes; a vocabulary of 260 000 tokens with its merges takes about 12 MB."""
MAX_KEYS = 1 << 14
MAX_STRING = 1 << 20
"""Bytes; chat templates are the longest real strings, at a tenth of it."""
MAX_KEPT = 8 << 20
"""Bytes of all strings that are kept; those of arrays are not."""
MAX_KEY = (1 << 16) - 1
"""Bytes of a key, by the format."""
MAX_ARRAY = 4 << 20
"""Elements of one array."""
MAX_STRINGS = 2 << 20
"""Strings in all arrays, passed over in 1 s; words and merges of 260 000 tokens are 0.8 million."""
MAX_TENSORS = 40_000
"""Read and named in 1 s; experts are stacked in this format, and real files have below 3 000."""
MAX_DIMS = 4
MAX_ALIGNMENT = 1 << 16
MAX_TYPE = 256
"""Numbers of types: ggml counts them up, and private forks of it go on from where it was. Those that are not
in `BLOCKS` were dropped, or are newer: `GGML-42`."""
_WINDOW = 1 << 20
_MAGIC = b"GGUF"

Scalar = int | float | bool | str

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING = 8
_ARRAY = 9

BLOCKS = MappingProxyType(
    {
        0: ("F32", 1, 4),
        1: ("F16", 1, 2),
        2: ("Q4_0", 32, 18),
        3: ("Q4_1", 32, 20),
        6: ("Q5_0", 32, 22),
        7: ("Q5_1", 32, 24),
        8: ("Q8_0", 32, 34),
        9: ("Q8_1", 32, 40),
        10: ("Q2_K", 256, 84),
        11: ("Q3_K", 256, 110),
        12: ("Q4_K", 256, 144),
        13: ("Q5_K", 256, 176),
        14: ("Q6_K", 256, 210),
        15: ("Q8_K", 256, 292),
        16: ("IQ2_XXS", 256, 66),
        17: ("IQ2_XS", 256, 74),
        18: ("IQ3_XXS", 256, 98),
        19: ("IQ1_S", 256, 50),
        20: ("IQ4_NL", 32, 18),
        21: ("IQ3_S", 256, 110),
        22: ("IQ2_S", 256, 82),
        23: ("IQ4_XS", 256, 136),
        24: ("I8", 1, 1),
        25: ("I16", 1, 2),
        26: ("I32", 1, 4),
        27: ("I64", 1, 8),
        28: ("F64", 1, 8),
        29: ("IQ1_M", 256, 56),
        30: ("BF16", 1, 2),
        34: ("TQ1_0", 256, 54),
        35: ("TQ2_0", 256, 66),
        39: ("MXFP4", 32, 17),
        40: ("NVFP4", 64, 36),
        41: ("Q1_0", 128, 18),
    }
)
"""ggml type number → name, elements a block, bytes a block."""


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where one tensor lies in its file, rows first as torch counts."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of the file."""
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """A checked header. Arrays are skipped over, not kept."""

    metadata: tuple[tuple[str, Scalar], ...]
    tensors: tuple[GgufTensor, ...]
    nbytes: int
    digest: str
    """SHA-256 of the header, hex."""

    def get(self, key: str) -> Scalar | None:
        """The scalar or string stored under `key`."""
        return next((value for name, value in self.metadata if name == key), None)


class _Cursor:
    """Sequential reads of a header through a window, never beyond the cap or the file."""

    def __init__(self, source: ByteSource, path: str) -> None:
        self._source = source
        self.path = path
        self._buffer = b""
        self._start = 0
        self._limit = min(source.size, MAX_HEADER)
        self._hash = hashlib.sha256()
        self._strings = self._kept = 0
        self.position = 0

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        self.require(length)
        end = self.position + length
        if end > self._start + len(self._buffer):
            self._fill(end)
        data = self._buffer[self.position - self._start : end - self._start]
        self._hash.update(data)
        self.position = end
        return data

    def _fill(self, end: int) -> None:
        """Read on until the buffer reaches `end`, a window at least."""
        rest = self._buffer[self.position - self._start :]
        fetched = self._start + len(self._buffer)
        wanted = min(max(end - fetched, _WINDOW), self._limit - fetched)
        self._buffer = rest + self._source.read(fetched, wanted)
        self._start = self.position

    def skip(self, length: int) -> None:
        """Read and forget `length` bytes."""
        self.require(length)
        for _ in range(length // _WINDOW):
            self.take(_WINDOW)
        self.take(length % _WINDOW)

    def skip_strings(self, count: int) -> None:
        """Pass over `count` strings, of which nothing but the lengths is looked at."""
        self._strings += count
        if self._strings > MAX_STRINGS:
            self.fail(f"more than {MAX_STRINGS} strings in arrays")
        self.require(count * 8)
        length_at = struct.Struct("<Q").unpack_from
        while count:
            window = self._ahead()
            place, last = 0, len(window) - 8
            while count and place <= last:
                length = length_at(window, place)[0]
                if length > MAX_STRING:
                    self.fail(f"string of {length} bytes")
                if place + 8 + length > len(window):
                    break
                place += 8 + length
                count -= 1
            if place == 0 and count:  # longer than what was ahead
                self.take(self.number("Q"))
                count -= 1
            self.take(place)

    def _ahead(self) -> bytes:
        """Bytes from the position on, at least one string's length of them."""
        self.require(8)
        if self.position + 8 > self._start + len(self._buffer):
            self._fill(self.position + 8)
        return self._buffer[self.position - self._start :]

    def require(self, length: int) -> None:
        if length > self._limit - self.position:
            self.fail(f"{length} bytes wanted at {self.position}, the header may end at {self._limit}")

    def number(self, code: str) -> int:
        return int(struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0])

    def string(self, most: int = MAX_STRING) -> str:
        length = self.number("Q")
        if length > most:
            self.fail(f"string of {length} bytes")
        self._kept += length
        if self._kept > MAX_KEPT:
            self.fail(f"more than {MAX_KEPT} bytes of strings")
        return self.take(length).decode("utf-8", "replace")

    def fail(self, reason: str) -> NoReturn:
        raise MalformedWeightsError(f"{self.path}: GGUF: {reason}")

    @property
    def fetched(self) -> int:
        return self._start + len(self._buffer)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def read_gguf_header(source: ByteSource, path: str) -> GgufHeader:
    """Read and check the header of one GGUF file.

    Raises:
        MalformedWeightsError: the file breaks the format, or our limits.
        CrawlerError: the bytes could not be had.
    """
    cursor = _Cursor(source, path)
    if cursor.take(4) != _MAGIC:
        cursor.fail("wrong magic")
    version = cursor.number("I")
    if version not in {2, 3}:
        cursor.fail(f"version {version} is not 2 or 3, little-endian")
    tensor_count, key_count = cursor.number("Q"), cursor.number("Q")
    if tensor_count > MAX_TENSORS or key_count > MAX_KEYS:
        cursor.fail(f"{tensor_count} tensors and {key_count} keys are more than {MAX_TENSORS} and {MAX_KEYS}")
    metadata: dict[str, Scalar] = {}
    keys = set[str]()
    for _ in range(key_count):
        key = cursor.string(MAX_KEY)
        if key in keys:
            cursor.fail("duplicate key")
        keys.add(key)
        value = _value(cursor, cursor.number("I"))
        if value is not None:
            metadata[key] = value
    places = [_tensor(cursor) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        cursor.fail("alignment is not a small power of two")
    start = _aligned(cursor.position, int(alignment))
    tensors = _sized(tuple(_placed(place, start) for place in places), source.size)
    _check_places(tensors, int(alignment), start, source.size, cursor)
    return GgufHeader(tuple(metadata.items()), tensors, cursor.fetched, cursor.digest)


def _value(cursor: _Cursor, kind: int) -> Scalar | None:
    """A scalar or string, or None for an array, which is passed over; the format has none in another."""
    if kind in _SCALARS:
        code = _SCALARS[kind]
        scalar: Scalar = struct.unpack(f"<{code}", cursor.take(struct.calcsize(f"<{code}")))[0]
        return scalar
    if kind == _STRING:
        return cursor.string()
    if kind != _ARRAY:
        cursor.fail(f"value type {kind}")
    inner, count = cursor.number("I"), cursor.number("Q")
    if count > MAX_ARRAY:
        cursor.fail(f"array of {count} elements")
    if inner == _STRING:
        cursor.skip_strings(count)
    elif inner in _SCALARS:
        cursor.skip(count * struct.calcsize(f"<{_SCALARS[inner]}"))
    else:
        cursor.fail(f"array of type {inner}")
    return None


def _tensor(cursor: _Cursor) -> GgufTensor:
    name = check_name(cursor.string())
    rank = cursor.number("I")
    if not 1 <= rank <= MAX_DIMS:
        cursor.fail(f"tensor {name[:120]}: {rank} dimensions")
    dims = [cursor.number("Q") for _ in range(rank)]
    kind, offset = cursor.number("I"), cursor.number("Q")
    if kind not in BLOCKS and kind >= MAX_TYPE:
        cursor.fail(f"tensor {name[:120]}: unknown type {kind}")
    dtype, block, block_bytes = BLOCKS.get(kind, (f"GGML-{kind}", 1, 0))
    if any(not 0 < dim < 1 << 40 for dim in dims) or dims[0] % block:
        cursor.fail(f"tensor {name[:120]}: shape does not fit {dtype}")
    nbytes = math.prod(dims) // block * block_bytes
    return GgufTensor(name, dtype, tuple(reversed(dims)), offset, nbytes)


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _placed(tensor: GgufTensor, start: int) -> GgufTensor:
    return GgufTensor(tensor.name, tensor.dtype, tensor.shape, start + tensor.offset, tensor.nbytes)


def _sized(tensors: tuple[GgufTensor, ...], size: int) -> tuple[GgufTensor, ...]:
    """Tensors of a type whose blocks we do not know end where the next one starts."""
    ends = [*(tensor.offset for tensor in tensors[1:]), size]
    return tuple(
        replace(tensor, nbytes=max(end - tensor.offset, 0)) if tensor.dtype.startswith("GGML-") else tensor
        for tensor, end in zip(tensors, ends, strict=False)  # a file without tensors has an end as well
    )


def _check_places(
    tensors: tuple[GgufTensor, ...], alignment: int, start: int, size: int, cursor: _Cursor
) -> None:
    """One after the other in the order of their names, but for padding, as llama.cpp wants it.

    Bytes after the last one are nobody's: llama.cpp loads such a file, so it must not escape us.
    """
    if len({tensor.name for tensor in tensors}) < len(tensors):
        cursor.fail("two tensors of the same name")
    expected = start
    for tensor in tensors:
        if tensor.offset != expected:
            cursor.fail(f"tensor {tensor.name[:120]}: a hole or an overlap before it")
        end = tensor.offset + tensor.nbytes
        if end > size:
            cursor.fail(f"tensor {tensor.name[:120]}: ends at {end} of {size}: truncated")
        expected = _aligned(end, alignment)
