"""Small safetensors files, written by hand: eight bytes of length, the header's JSON, the data."""

from __future__ import annotations

import json
import random
import struct

TensorPlan = dict[str, int]
"""Bytes by tensor name; all are one-dimensional U8."""


def header(tensors: TensorPlan, padding: int = 0) -> bytes:
    """The header's JSON, padded with spaces as the format allows."""
    entries, offset = {}, 0
    for name, length in tensors.items():
        entries[name] = {"dtype": "U8", "shape": [length], "data_offsets": [offset, offset + length]}
        offset += length
    return json.dumps(entries).encode() + b" " * padding


def safetensors(tensors: TensorPlan, padding: int = 0) -> bytes:
    """A whole file with random data."""
    head = header(tensors, padding)
    return struct.pack("<Q", len(head)) + head + random.Random(len(head)).randbytes(sum(tensors.values()))


def sharded(shards: dict[str, TensorPlan]) -> dict[str, bytes]:
    """All files of a sharded model: the shards and their index."""
    weight_map = {tensor: shard for shard, tensors in shards.items() for tensor in tensors}
    index = json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}).encode()
    files = {shard: safetensors(tensors) for shard, tensors in shards.items()}
    return files | {"model.safetensors.index.json": index}
