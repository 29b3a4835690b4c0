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
