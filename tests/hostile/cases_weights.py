"""Hostile weights: headers that break the format, lie about the file, or are made to be slow and large."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping

from detector.formats import gguf_header, safetensors_header
from tests.hostile.build import entry, gguf, safetensors, string, tensor, value
from tests.hostile.examine import Case

Cases = Mapping[str, Callable[[], Case]]
ONE = entry(shape=(2,))


def _broken(name: str, make: Callable[[], bytes]) -> Callable[[], Case]:
    return lambda: Case("malformed-weights", {name: make()})


def _many(count: int) -> dict[str, object]:
    empty = entry(shape=[0], offsets=[0, 0])
    return {f"model.layers.{at % 80}.mlp.experts.{at // 80}.down_proj.weight": empty for at in range(count)}


def _deep(marks: tuple[bytes, bytes], count: int = 100_000) -> bytes:
    return b'{"a":' + marks[0] * count + b"1" + marks[1] * count + b"}"


SAFETENSORS: Cases = {
    name: _broken("model.safetensors", make)
    for name, make in {
        "shorter than its length field": lambda: b"\0" * 7,
        "header longer than the file": lambda: struct.pack("<Q", 100) + b"{}",
        "header of 2^63 bytes": lambda: struct.pack("<Q", 1 << 63) + b"{}",
        "header of 2^64-1 bytes": lambda: struct.pack("<Q", (1 << 64) - 1) + b"{}",
        "not JSON": lambda: safetensors(b"{nonsense"),
        "not UTF-8": lambda: safetensors(b'{"\xff\xfe": 1}'),
        "lone surrogate in a name": lambda: safetensors(b'{"\\ud800": ' + json.dumps(ONE).encode() + b"}"),
        "leading space": lambda: safetensors(b" {}", b""),
        "deep objects": lambda: safetensors(_deep((b'{"a":', b"}"))),
        "deep lists": lambda: safetensors(_deep((b"[", b"]"), 1_000_000)),
        "an integer of 5000 digits": lambda: safetensors(b'{"a": ' + b"9" * 5000 + b"}"),
        "an exponent of a million": lambda: safetensors(b'{"a": 1e1000000}'),
        "duplicate tensor": lambda: safetensors(
            b'{"a": %s, "a": %s}' % (json.dumps(ONE).encode(), json.dumps(ONE).encode())
        ),
        "duplicate field": lambda: safetensors(
            b'{"a": {"dtype": "F32", "shape": [2], "shape": [2], "data_offsets": [0, 8]}}'
        ),
        "unknown field": lambda: safetensors({"a": ONE | {"code": "x"}}),
        "unknown dtype": lambda: safetensors({"a": entry(dtype="F128")}),
        "negative dimension": lambda: safetensors({"a": entry(shape=(-2,))}),
        "dimension of 2^62": lambda: safetensors({"a": entry(shape=(0, 1 << 62), offsets=(0, 0))}, b""),
        "product of dimensions beyond 2^64": lambda: safetensors({"a": entry(shape=(1 << 33, 1 << 33))}),
        "a hundred dimensions": lambda: safetensors({"a": entry(shape=(1,) * 99 + (2,))}),
        "reversed offsets": lambda: safetensors({"a": entry(offsets=(8, 0))}),
        "offsets beyond the end": lambda: safetensors({"a": entry(shape=(4,), offsets=(0, 16))}),
        "a hole": lambda: safetensors({"a": ONE, "b": entry(offsets=(12, 20))}, b"\0" * 20),
        "an overlap": lambda: safetensors({"a": ONE, "b": entry(offsets=(4, 12))}, b"\0" * 12),
        "trailing bytes": lambda: safetensors({"a": ONE}, b"\0" * 9),
        "control characters in a name": lambda: safetensors({"a\x1b[2J": ONE}),
        "a path as name": lambda: safetensors({"../../x\0": ONE}),
        "a name of a megabyte": lambda: safetensors({"a" * (1 << 20): ONE}),
        "16 MB of empty tensors": lambda: safetensors(_many(150_000), b""),
        "one tensor too many": lambda: safetensors(_many(safetensors_header.MAX_TENSORS + 1), b""),
        "16 MB of empty lists": lambda: safetensors(b'{"a":[' + b"[]," * 5_500_000 + b"[]]}"),
        "16 MB of empty objects": lambda: safetensors(b'{"a":[' + b"{}," * 5_500_000 + b"{}]}"),
        "16 MB of numbers": lambda: safetensors(b'{"a":[' + b"0," * 8_000_000 + b"0]}"),
        "a million keys of metadata": lambda: safetensors(
            b'{"__metadata__":{' + b",".join(b'"%d":""' % at for at in range(1_000_000)) + b"}}", b""
        ),
        "metadata of numbers": lambda: safetensors({"__metadata__": {"a": 1}, "a": ONE}),
    }.items()
}

KEY = "general.name"
GGUF: Cases = {
    name: _broken("model.gguf", make)
    for name, make in {
        "magic alone": lambda: b"GGUF",
        "version 1": lambda: gguf(version=1),
        "version of 2^32-1": lambda: gguf(version=(1 << 32) - 1),
        "big-endian": lambda: b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        "2^62 tensors": lambda: b"GGUF" + struct.pack("<IQQ", 3, 1 << 62, 0),
        "2^62 keys": lambda: b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 62),
        "array of 2^62": lambda: gguf([value(KEY, 9, struct.pack("<IQ", 4, 1 << 62))]),
        "array of 1e8 strings": lambda: gguf([value(KEY, 9, struct.pack("<IQ", 8, 100_000_000))]),
        "four million empty strings": lambda: gguf(
            [value(KEY, 9, struct.pack("<IQ", 8, 4 << 20) + bytes(32 << 20))]
        ),
        "most strings allowed, then cut": lambda: gguf(
            [value(KEY, 9, struct.pack("<IQ", 8, gguf_header.MAX_STRINGS) + bytes(16 << 20)), b"\1"]
        ),
        "array in an array": lambda: gguf([value(KEY, 9, struct.pack("<IQIQ", 9, 1, 4, 0))]),
        "a million arrays in an array": lambda: gguf(
            [value(KEY, 9, struct.pack("<IQ", 9, 1_000_000) + struct.pack("<IQ", 4, 0) * 1_000_000)]
        ),
        "string of 2^63": lambda: gguf([value(KEY, 8, struct.pack("<Q", 1 << 63))]),
        "string of 2 MB": lambda: gguf([value(KEY, 8, string("x" * (2 << 20)))]),
        "sixteen strings of a megabyte": lambda: gguf(
            [value(f"k{at}", 8, string(b"\xff" * (1 << 20))) for at in range(16)]
        ),
        "key of 64 KB": lambda: gguf([value("k" * (1 << 16), 4, b"\0" * 4)]),
        "duplicate key": lambda: gguf([value(KEY, 4, b"\0" * 4)] * 2),
        "duplicate key, an array": lambda: gguf([value(KEY, 9, struct.pack("<IQ", 4, 0))] * 2),
        "unknown value type": lambda: gguf([value(KEY, 99, b"")]),
        "alignment of 3": lambda: gguf([value("general.alignment", 4, struct.pack("<I", 3))]),
        "alignment of 2^31": lambda: gguf([value("general.alignment", 4, struct.pack("<I", 1 << 31))]),
        "alignment as text": lambda: gguf([value("general.alignment", 8, string("32"))]),
        "five dimensions": lambda: gguf((), [tensor("a", (1,) * 5)], b"\0" * 32),
        "2^32-1 dimensions": lambda: gguf((), [string("a") + struct.pack("<I", (1 << 32) - 1)]),
        "zero dimension": lambda: gguf((), [tensor("a", (0,))]),
        "product of dimensions beyond 2^64": lambda: gguf((), [tensor("a", (1 << 39,) * 4)]),
        "dimension of 2^63": lambda: gguf((), [tensor("a", (1 << 63,))]),
        "half a block": lambda: gguf((), [tensor("a", (16,), 8)], b"\0" * 64),
        "tensor beyond the end": lambda: gguf((), [tensor("a", (1 << 20,))], b"\0" * 32),
        "offset of 2^63": lambda: gguf((), [tensor("a", (8,), 0, 1 << 63)], b"\0" * 32),
        "misaligned": lambda: gguf((), [tensor("a", (8,), 0, 4)], b"\0" * 64),
        "overlap": lambda: gguf((), [tensor("a", (16,)), tensor("b", (16,), 0, 32)], b"\0" * 128),
        "hole": lambda: gguf((), [tensor("a", (8,)), tensor("b", (8,), 0, 96)], b"\0" * 128),
        "two tensors of one name": lambda: gguf(
            (), [tensor("a", (8,)), tensor("a", (8,), 0, 32)], b"\0" * 64
        ),
        "control character in a name": lambda: gguf((), [tensor("a\x07", (8,))], b"\0" * 32),
        "40,001 tensors": lambda: gguf((), [tensor(f"t{at}", (8,)) for at in range(40_001)]),
    }.items()
}

SHARD = "model-0000{}-of-00002.safetensors"


def _sharded(weight_map: object, *, shards: int = 2, text: bytes | None = None) -> Callable[[], Case]:
    def make() -> Case:
        files = {SHARD.format(at): safetensors({f"t{at}": ONE}) for at in range(1, shards + 1)}
        index = json.dumps({"weight_map": weight_map}).encode() if text is None else text
        return Case("malformed-weights", {**files, "model.safetensors.index.json": index})

    return make


ADAPTER = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}


def _adapter(**changes: object) -> Callable[[], Case]:
    config = json.dumps(ADAPTER | changes).encode()
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    files = {
        "adapter_config.json": config,
        "adapter_model.safetensors": safetensors({name: entry(shape=(4, 1), offsets=(0, 16))}, b"\0" * 16),
    }
    return lambda: Case("malformed-weights", files)


def _split(number: int, count: int) -> bytes:
    keys = [
        value("split.no", 2, struct.pack("<H", number)),
        value("split.count", 2, struct.pack("<H", count)),
        value("general.architecture", 8, string("llama")),
    ]
    return gguf(keys, [tensor(f"blk.{number}.attn_norm.weight", (8,))], b"\0" * 32)


CHECKPOINTS: Cases = {
    "index with a shard that is missing": _sharded({"t1": SHARD.format(1), "t2": "gone.safetensors"}),
    "index with a path out of the repository": _sharded({"t1": "../../../etc/passwd"}),
    "index with an absolute path": _sharded({"t1": "/etc/passwd"}),
    "index with a tensor in another shard": _sharded({"t1": SHARD.format(2), "t2": SHARD.format(1)}),
    "index with the same tensor twice": _sharded(
        {}, text=b'{"weight_map": {"t1": "%b", "t1": "%b"}}' % (b"x", b"y")
    ),
    "index of lists": _sharded([SHARD.format(1)]),
    "index of numbers": _sharded({"t1": 1}),
    "index without a map": _sharded({}, text=b"{}"),
    "index of 20 MB of lists": _sharded({}, text=b'{"weight_map":[' + b"[]," * 7_000_000 + b"[]]}"),
    "two shards with one tensor": lambda: Case(
        "malformed-weights", {SHARD.format(at): safetensors({"t": ONE}) for at in (1, 2)}
    ),
    "gguf shards of other numbers": lambda: Case(
        "malformed-weights", {f"m-0000{at}-of-00002.gguf": _split(7, 9) for at in (1, 2)}
    ),
    "gguf shard that is missing": lambda: Case("no-weights", {"m-00001-of-00002.gguf": _split(0, 2)}),
    "adapter of rank 2^40": _adapter(r=1 << 40),
    "adapter of rank true": _adapter(r=True),
    "adapter with an infinite alpha": _adapter(lora_alpha=10**400),
    "adapter of no kind": _adapter(peft_type=None),
}
