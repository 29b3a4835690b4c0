"""A strict, bounded reader of safetensors headers.

Stricter than the reference implementation where leniency helps only an attacker: duplicate keys, leading
white space, unprintable names, huge headers and absurd dimensions are refused before anything is allocated.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass

from crawler.interface import ByteSource
from detector.errors import MalformedWeightsError
from detector.formats.dtypes import BITS
from detector.formats.names import check_name

MAX_HEADER = 16 << 20
"""Bytes. 40 000 tensors take about 5 MB; the rest is for metadata, where trainers leave logs."""
MAX_TENSORS = 40_000
"""In one file, read and named in 1.2 s; the fullest shards seen hold a tenth of it (experts one by one)."""
MAX_DIMS = 8
MAX_DIM = 1 << 40
_FIELDS = {"dtype", "shape", "data_offsets"}
_MARKS = {b"{": 4 * MAX_TENSORS, b"[": 4 * MAX_TENSORS, b",": 16 * MAX_TENSORS}
"""How often each may occur, in metadata as well, before a parser sees the text: 16 MB of `[],` takes 4 s and
700 MB otherwise. A tensor of four dimensions has 1, 2 and 7 of them."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies in its file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of the file."""
    nbytes: int


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """A checked header: tensors in file order, contiguous, ending where the file ends."""

    tensors: tuple[StoredTensor, ...]
    metadata: tuple[tuple[str, str], ...]
    nbytes: int
    """Bytes of the header with its length field."""
    digest: str
    """SHA-256 of those bytes, hex."""


def read_header(source: ByteSource, path: str) -> SafetensorsHeader:
    """Read and check the header of one file.

    Raises:
        MalformedWeightsError: the file breaks the format, or our limits.
        CrawlerError: the bytes could not be had.
    """
    if source.size < 8:
        raise MalformedWeightsError(f"{path}: {source.size} bytes are too few for a safetensors file")
    prefix = source.read(0, 8)
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER:
        raise MalformedWeightsError(f"{path}: header of {length} bytes, more than {MAX_HEADER}")
    if length > source.size - 8:
        raise MalformedWeightsError(f"{path}: header of {length} bytes in a file of {source.size}: truncated")
    text = source.read(8, length)
    entries = _parse(text, path)
    metadata = _metadata(entries.pop("__metadata__", {}), path)
    if len(entries) > MAX_TENSORS:
        raise MalformedWeightsError(f"{path}: {len(entries)} tensors, more than {MAX_TENSORS}")
    tensors = sorted(
        (_tensor(name, entry, 8 + length, path) for name, entry in entries.items()),
        key=lambda tensor: (tensor.offset, tensor.nbytes),
    )
    _check_contiguous(tensors, 8 + length, source.size, path)
    digest = hashlib.sha256(prefix + text).hexdigest()
    return SafetensorsHeader(tuple(tensors), metadata, 8 + length, digest)


def _parse(text: bytes, path: str) -> dict[str, object]:
    if not text.startswith(b"{"):
        raise MalformedWeightsError(f"{path}: the header does not start with an object")
    for mark, most in _MARKS.items():
        if (count := text.count(mark)) > most:
            raise MalformedWeightsError(f"{path}: {count} times {mark.decode()!r} in the header, not {most}")
    try:
        parsed = json.loads(text, object_pairs_hook=unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:  # json's own, bad UTF-8, huge integers, deep nesting
        raise MalformedWeightsError(f"{path}: header: {error}") from error
    if not isinstance(parsed, dict):  # json promises no such thing
        raise MalformedWeightsError(f"{path}: the header is not an object")
    return parsed


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An `object_pairs_hook` that refuses a key which comes twice: readers disagree about which one counts.

    Raises:
        ValueError: it does.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("duplicate key")
    return found


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def _metadata(value: object, path: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise MalformedWeightsError(f"{path}: metadata is not an object")
    pairs = tuple((key, text) for key, text in value.items() if isinstance(text, str))
    if len(pairs) < len(value):
        raise MalformedWeightsError(f"{path}: metadata holds something else than strings")
    return pairs


def _tensor(name: str, entry: object, data_start: int, path: str) -> StoredTensor:
    check_name(name)
    where = f"{path}: tensor {name[:120]}"
    if not isinstance(entry, dict) or set(entry) != _FIELDS:
        raise MalformedWeightsError(f"{where}: fields are not dtype, shape and data_offsets")
    dtype = entry["dtype"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise MalformedWeightsError(f"{where}: unknown dtype {str(dtype)[:40]!a}")
    shape = _naturals(entry["shape"], where)
    offsets = _naturals(entry["data_offsets"], where)
    if len(shape) > MAX_DIMS or any(dim > MAX_DIM for dim in shape):
        raise MalformedWeightsError(f"{where}: shape out of bounds")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise MalformedWeightsError(f"{where}: data_offsets are not a range")
    begin, end = offsets
    bits = math.prod(shape) * BITS[dtype]
    if bits % 8 or bits // 8 != end - begin:
        raise MalformedWeightsError(f"{where}: {end - begin} bytes do not hold its shape and dtype")
    return StoredTensor(name, dtype, shape, data_start + begin, end - begin)


def _naturals(value: object, where: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise MalformedWeightsError(f"{where}: not a list of integers")
    numbers = tuple(number for number in value if type(number) is int and number >= 0)
    if len(numbers) < len(value):
        raise MalformedWeightsError(f"{where}: not a list of natural numbers")
    return numbers


def _check_contiguous(tensors: list[StoredTensor], start: int, size: int, path: str) -> None:
    position = start
    for tensor in tensors:
        if tensor.offset != position:
            raise MalformedWeightsError(f"{path}: tensor {tensor.name[:120]}: a hole or an overlap before it")
        position += tensor.nbytes
    if position != size:
        raise MalformedWeightsError(f"{path}: {size} bytes, the header describes {position}: truncated")
