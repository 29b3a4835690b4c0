"""Safetensors headers, as far as the Hub reads them: parameters by dtype, and the tensors of each shard."""

from __future__ import annotations

import json
import math
import re
import struct
from collections import Counter
from collections.abc import Mapping
from typing import TypeAlias

from forkwatch.demo.hub.blobs import Blob

_HEADER_LIMIT = 25_000_000
"""Bytes; the limit of the safetensors format and of the Hub."""
_BITS: Mapping[str, int] = {
    "F64": 64,
    "F32": 32,
    "I32": 32,
    "BF16": 16,
    "F16": 16,
    "F8_E4M3": 8,
    "U8": 8,
    "I8": 8,
}
_COUNTED = re.compile(r"model(-\d+-of-\d+)?\.safetensors", re.ASCII)

Header: TypeAlias = "dict[str, dict[str, str | list[int]]]"


def header(blob: Blob) -> Header | None:
    """The header of a safetensors file; None when it is not one."""
    prefix = blob.read(0, 8)
    if len(prefix) < 8:
        return None
    (length,) = struct.unpack("<Q", prefix)
    if length > min(_HEADER_LIMIT, blob.size - 8):
        return None
    try:
        parsed = json.loads(blob.read(8, length))
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, dict) or not all(isinstance(entry, dict) for entry in parsed.values()):
        return None
    return parsed


def write(counts: Mapping[str, int]) -> tuple[bytes, int]:
    """The beginning of a safetensors file with so many parameters by dtype, and the size of the whole file.

    Raises:
        KeyError: a dtype that is not in `_BITS`.
    """
    described, end = {}, 0
    for dtype, count in counts.items():
        start, end = end, end + count * _BITS[dtype] // 8
        described[f"weight.{dtype}"] = {"dtype": dtype, "shape": [count], "data_offsets": [start, end]}
    text = json.dumps(described).encode()
    return struct.pack("<Q", len(text)) + text, 8 + len(text) + end


def parameters(files: Mapping[str, Blob]) -> Mapping[str, int] | None:
    """Number of parameters by dtype over `model*.safetensors` at the root; None without a readable one."""
    counts: Counter[str] = Counter()
    for path in sorted(path for path in files if _COUNTED.fullmatch(path)):
        for name, entry in (header(files[path]) or {}).items():
            shape, dtype = entry.get("shape"), entry.get("dtype")
            if name == "__metadata__" or not isinstance(dtype, str) or not isinstance(shape, list):
                continue
            if all(isinstance(side, int) for side in shape):
                counts[dtype] += math.prod(shape)
    return dict(counts) or None
