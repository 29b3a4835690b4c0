"""GGUF headers, as far as the Hub reads them: architecture, context length and the number of parameters.

Format: ggml docs/gguf.md, versions 2 and 3, little endian.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from forkwatch.demo.hub.blobs import Blob

_HEADER_LIMIT = 32 << 20
"""Bytes; the vocabulary of a large model takes about ten million."""
_MAGIC = int.from_bytes(b"GGUF", "little")
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_SCALARS: Mapping[int, str] = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    _UINT32: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_WANTED = (".context_length", "general.architecture")
_Q4_K = 12


@dataclass(frozen=True, slots=True)
class Gguf:
    """What the Hub shows of a GGUF file."""

    total: int
    """Parameters."""
    architecture: str | None
    context_length: int | None


def summary(files: Mapping[str, Blob]) -> Gguf | None:
    """Of the first GGUF file by path that can be read; None without one."""
    paths = sorted(path for path in files if path.lower().endswith(".gguf"))
    return next((found for path in paths if (found := read(files[path])) is not None), None)


def read(blob: Blob) -> Gguf | None:
    """What a GGUF header says; None when the file is not GGUF or its header is broken or too long."""
    cursor = _Cursor(blob.read(0, _HEADER_LIMIT))
    try:
        magic, version, tensors, pairs = cursor.unpack("<IIQQ")
        if magic != _MAGIC or version not in {2, 3}:
            return None
        found: dict[str, object] = {}
        for _ in range(pairs):
            key = cursor.text()
            value = cursor.value(*cursor.unpack("<I"))
            if key.endswith(_WANTED):
                found[key] = value
        total = sum(cursor.tensor() for _ in range(tensors))
    except (struct.error, ValueError, KeyError, RecursionError):
        return None
    architecture = found.get("general.architecture")
    length = found.get(f"{architecture}.context_length")
    return Gguf(
        total,
        architecture if isinstance(architecture, str) else None,
        length if isinstance(length, int) else None,
    )


def write(about: Gguf) -> bytes:
    """A header of one 4-bit tensor that `read` reads back as `about`."""
    pairs = []
    if about.architecture is not None:
        value = _text(about.architecture)
        pairs.append(_text("general.architecture") + struct.pack("<I", _STRING) + value)
    if about.context_length is not None:
        key = _text(f"{about.architecture}.context_length")
        pairs.append(key + struct.pack("<II", _UINT32, about.context_length))
    tensor = _text("weight") + struct.pack("<IQIQ", 1, about.total, _Q4_K, 0)
    return struct.pack("<IIQQ", _MAGIC, 3, 1, len(pairs)) + b"".join(pairs) + tensor


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


class _Cursor:
    """Reads forward through a header; `struct.error` or ValueError where it ends too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def unpack(self, layout: str) -> tuple[int, ...]:
        values = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return values

    def text(self) -> str:
        (length,) = self.unpack("<Q")
        return self._skip(length).decode(errors="replace")

    def value(self, kind: int) -> object:
        """A value of the metadata; of an array nothing but that it was there."""
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.unpack(f"<{_SCALARS[kind]}")[0]
        inner, count = self.unpack("<IQ")
        if inner in _SCALARS:
            self._skip(count * struct.calcsize(f"<{_SCALARS[inner]}"))
        else:
            for _ in range(count):
                self.value(inner)
        return None

    def tensor(self) -> int:
        """The number of elements of the next tensor."""
        self.text()
        (dimensions,) = self.unpack("<I")
        sides = [self.unpack("<Q")[0] for _ in range(dimensions)]
        self.unpack("<IQ")
        return math.prod(sides)

    def _skip(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._data):
            raise ValueError("the header ends too early")
        piece = self._data[self._at : end]
        self._at = end
        return piece
