"""What a sketch of a remote fork costs, and what it names: 1B-, 8B- and 70B-shaped models over HTTP.

    python benchmarks/bench_sketch.py [--shapes 1B,8B,70B] [--json FILE]

Headers, shards and ranged reads are real; tensors are a function of their place (bf16, normal, a
pseudo-random table lookup), so that nothing lies on disk. The original is the same function, read locally;
a fork adds its change to the rows it is asked for: a merged LoRA of rank 16 on all linear layers, a
direction projected out of the outputs of a quarter of the layers, or nothing in other shards. One process
is the Hub, one sketches.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from forkwatch.demo.hub.blobs import Hollow

SHARD = 5_000_000_000
"""Bytes a shard, as transformers cuts them."""
RANK, RELATIVE = 16, 0.01
STD = 0.02
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PIECE = 1 << 22


@dataclass(frozen=True)
class Llama:
    """Sizes of a model."""

    hidden: int
    inter: int
    layers: int
    kv: int
    vocab: int = 128_256
    tied: bool = False

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield "model.embed_tokens.weight", (self.vocab, self.hidden)
        for layer in range(self.layers):
            stem = f"model.layers.{layer}"
            yield f"{stem}.input_layernorm.weight", (self.hidden,)
            yield f"{stem}.mlp.down_proj.weight", (self.hidden, self.inter)
            yield f"{stem}.mlp.gate_proj.weight", (self.inter, self.hidden)
            yield f"{stem}.mlp.up_proj.weight", (self.inter, self.hidden)
            yield f"{stem}.post_attention_layernorm.weight", (self.hidden,)
            yield f"{stem}.self_attn.k_proj.weight", (self.kv, self.hidden)
            yield f"{stem}.self_attn.o_proj.weight", (self.hidden, self.hidden)
            yield f"{stem}.self_attn.q_proj.weight", (self.hidden, self.hidden)
            yield f"{stem}.self_attn.v_proj.weight", (self.kv, self.hidden)
        yield "model.norm.weight", (self.hidden,)
        if not self.tied:
            yield "lm_head.weight", (self.vocab, self.hidden)


SHAPES = {
    "1B": Llama(2048, 8192, 16, 512, tied=True),
    "8B": Llama(4096, 14336, 32, 1024),
    "70B": Llama(8192, 28672, 80, 1024),
}


@lru_cache(1)
def normal_table() -> np.ndarray:
    """bf16 bits of 65 536 normal quantiles, standard deviation `STD`."""
    from scipy.stats import norm

    values = (norm.ppf((np.arange(65536) + 0.5) / 65536) * STD).astype(np.float32)
    return ((values.view(np.uint32) + 0x8000) >> 16).astype(np.uint16)


def noise(seed: int, first: int, count: int) -> np.ndarray:
    """bf16 bits of elements `first` to `first + count` of a stream: splitmix64, four values a word."""
    start, end = first // 4, -(-(first + count) // 4)
    word = np.arange(start, end, dtype=np.uint64)
    with np.errstate(over="ignore"):
        word = (word + np.uint64(seed * 0x632BE59BD9B4E019 % 2**64)) * np.uint64(0x9E3779B97F4A7C15)
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        word ^= word >> np.uint64(31)
    picked = normal_table()[word.view(np.uint16)]
    return picked[first - 4 * start : first - 4 * start + count]


def floats(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def bits(values: np.ndarray) -> np.ndarray:
    """Round float32 to bf16, to nearest and ties to even."""
    raw = values.astype(np.float32).view(np.uint32)
    return ((raw + 0x7FFF + ((raw >> 16) & 1)) >> 16).astype(np.uint16)


@dataclass(frozen=True)
class Tensor:
    """One synthetic tensor."""

    name: str
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of its file."""
    seed: int

    @property
    def nbytes(self) -> int:
        return 2 * int(np.prod(self.shape))

    @property
    def module(self) -> str:
        return self.name.split(".")[-2]

    @property
    def layer(self) -> int:
        return int(self.name.split(".")[2]) if ".layers." in self.name else -1

    def rows(self, first: int, count: int) -> np.ndarray:
        width = self.shape[-1] if len(self.shape) > 1 else 1
        found = noise(self.seed, first * width, count * width).reshape(count, width)
        return found if len(self.shape) > 1 else bits(1 + 5 * floats(found))


@dataclass(frozen=True)
class Change:
    """What a fork does to the rows of a tensor."""

    kind: str
    hidden: int
    layers: tuple[int, int] = (0, 1 << 30)
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    """Of a directional edit: rᵀW of each edited matrix."""

    def touches(self, tensor: Tensor) -> bool:
        inside = self.layers[0] <= tensor.layer < self.layers[1]
        modules = LINEARS if self.kind == "lora" else ("o_proj", "down_proj")
        return self.kind != "none" and inside and tensor.module in modules

    def direction(self) -> np.ndarray:
        r = floats(noise(999, 0, self.hidden)).astype(np.float32)
        return r / np.linalg.norm(r)

    def prepare(self, tensors: list[Tensor]) -> None:
        """Compute rᵀW of the edited matrices: that takes every row of them, but only once."""
        if self.kind != "directional":
            return
        r = self.direction()
        for tensor in filter(self.touches, tensors):
            step = max(1, PIECE // tensor.shape[1])
            total = np.zeros(tensor.shape[1], np.float32)
            for first in range(0, tensor.shape[0], step):
                rows = floats(tensor.rows(first, min(step, tensor.shape[0] - first)))
                total += r[first : first + len(rows)] @ rows
            self.inputs[tensor.name] = total

    def rows(self, tensor: Tensor, first: int, count: int) -> np.ndarray:
        stored = tensor.rows(first, count)
        if not self.touches(tensor):
            return stored
        if self.kind == "lora":
            left = (
                floats(noise(tensor.seed + 1_000_000, first * RANK, count * RANK)).reshape(count, RANK) / STD
            )
            right = floats(noise(tensor.seed + 2_000_000, 0, RANK * tensor.shape[1])).reshape(RANK, -1)
            delta = left @ right * (RELATIVE / RANK**0.5)
        else:
            delta = -np.outer(self.direction()[first : first + count], self.inputs[tensor.name])
        return bits(floats(stored) + delta)


@dataclass(frozen=True, slots=True)
class Synthetic(Hollow):
    """A safetensors file whose tensors are computed when they are read; also a `ByteSource`."""

    tensors: tuple[Tensor, ...] = ()
    change: Change = field(default_factory=lambda: Change("none", 1))

    def __repr__(self) -> str:  # the blob's identity is a hash of this
        return f"Synthetic({self.salt})"

    def chunks(self, start: int, length: int) -> Iterator[bytes]:
        yield self.read(start, min(length, self.size - start))

    def read(self, offset: int, length: int) -> bytes:
        end = offset + length
        pieces = [self.header[offset:end]]
        for tensor in self.tensors:
            low, high = max(offset, tensor.offset), min(end, tensor.offset + tensor.nbytes)
            if low >= high:
                continue
            width = 2 * tensor.shape[-1] if len(tensor.shape) > 1 else 2
            first, last = (low - tensor.offset) // width, -(-(high - tensor.offset) // width)
            raw = self.change.rows(tensor, first, last - first).tobytes()
            begin = low - tensor.offset - first * width
            pieces.append(raw[begin : begin + high - low])
        return b"".join(pieces)


def files_of(shape: Llama, change: Change, shard: int = SHARD) -> dict[str, Synthetic | bytes]:
    """The files of a checkpoint."""
    groups: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    size = 0
    for name, dims in shape.tensors():
        nbytes = 2 * int(np.prod(dims))
        if size + nbytes > shard and groups[-1]:
            groups.append([])
            size = 0
        groups[-1].append((name, dims))
        size += nbytes
    seeds = {name: 17 * number + 1 for number, (name, _) in enumerate(shape.tensors())}
    files: dict[str, Synthetic | bytes] = {}
    weight_map: dict[str, str] = {}
    everything: list[Tensor] = []
    for number, group in enumerate(groups, start=1):
        path = (
            f"model-{number:05d}-of-{len(groups):05d}.safetensors" if len(groups) > 1 else "model.safetensors"
        )
        header, tensors, total = _header(group, seeds)
        everything += tensors
        weight_map |= dict.fromkeys((name for name, _ in group), path)
        files[path] = Synthetic(header, total, f"{path} {shape} {change.kind}", tuple(tensors), change)
    change.prepare(everything)
    if len(groups) > 1:
        files["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    return files


def _header(
    group: list[tuple[str, tuple[int, ...]]], seeds: Mapping[str, int]
) -> tuple[bytes, list[Tensor], int]:
    entries: dict[str, dict[str, Any]] = {}
    at = 0
    for name, dims in group:
        end = at + 2 * int(np.prod(dims))
        entries[name] = {"dtype": "BF16", "shape": list(dims), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries).encode()
    header = len(text).to_bytes(8, "little") + text
    tensors = [
        Tensor(name, dims, len(header) + entries[name]["data_offsets"][0], seeds[name])
        for name, dims in group
    ]
    return header, tensors, len(header) + at


def changes(shape: Llama) -> dict[str, tuple[Change, int]]:
    """The forks: kind → change and bytes a shard."""
    middle = (shape.layers // 2, shape.layers // 2 + max(4, shape.layers // 4))
    return {
        "resharded": (Change("none", shape.hidden), SHARD // 4),
        "lora": (Change("lora", shape.hidden), SHARD),
        "directional": (Change("directional", shape.hidden, middle), SHARD),
    }


def serve(shape: str, kind: str, pipe: Connection) -> None:
    """The Hub's process."""
    from forkwatch.demo.hub import LoopbackHub

    hub = LoopbackHub()
    change, shard = changes(SHAPES[shape])[kind]
    files: Any = files_of(SHAPES[shape], change, shard)
    hub.create_repo("bench/fork")
    hub.commit("bench/fork", files)
    with hub:
        pipe.send(hub.endpoint)
        pipe.recv()


def sketch(shape: str, endpoint: str, pipe: Connection) -> None:
    """The process that sketches: figures of the reads, and what was named."""
    from crawler.client import HubClient
    from crawler.interface import RepoId
    from detector.formats import open_weights
    from detector.sketch import sketch_weights
    from forkwatch.pipeline.budget import sketch_budget

    files: Any = files_of(SHAPES[shape], Change("none", SHAPES[shape].hidden))
    local: Any = {path: Bytes(file) if isinstance(file, bytes) else file for path, file in files.items()}
    original = open_weights(local)
    with (
        tempfile.TemporaryDirectory() as cache,
        HubClient(endpoint=endpoint, token=None, cache=Path(cache)) as hub,
    ):
        snapshot = hub.snapshot(RepoId("bench/fork"))
        before, began, cpu = hub.cost, time.monotonic(), time.process_time()
        fork = open_weights({file.path: hub.open(snapshot, file.path) for file in snapshot.files})
        opened = hub.cost - before
        found = sketch_weights(original, fork, budget_bytes=sketch_budget(snapshot.total_bytes))
        cost = hub.cost - before
        seconds = time.monotonic() - began
    pipe.send(
        {
            "bytes": cost.bytes_downloaded,
            "share": cost.bytes_downloaded / snapshot.total_bytes,
            "gigabytes": snapshot.total_bytes / 1e9,
            "requests": cost.requests,
            "header_requests": opened.requests,
            "seconds": seconds,
            "cpu_seconds": time.process_time() - cpu,
            "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "tensors": len(found.tensors),
            "named": sorted(
                f"{edit.kind}" + (f" rank {edit.detail.rank}" if edit.detail.rank else "")
                for edit in found.edits
            ),
            "lineage": str(found.lineage.status),
        }
    )


@dataclass(frozen=True)
class Bytes:
    """A small file."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


def measure(shape: str, kind: str) -> dict[str, Any]:
    """One sketch, in processes of its own."""
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    hub = context.Process(target=serve, args=(shape, kind, theirs))
    hub.start()
    endpoint = ours.recv()
    reader, writer = context.Pipe()
    child = context.Process(target=sketch, args=(shape, endpoint, writer))
    child.start()
    result: dict[str, Any] = {"shape": shape, "fork": kind} | reader.recv()
    child.join()
    ours.send(None)
    hub.join()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default="1B,8B,70B")
    parser.add_argument("--forks", default="resharded,lora,directional")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    print("shape fork          GB      MB read  share     requests  s      CPU s  RSS MB  named")
    for shape in options.shapes.split(","):
        for kind in options.forks.split(","):
            row = measure(shape, kind)
            rows.append(row)
            print(
                f"{shape:5} {kind:12} {row['gigabytes']:6.1f} {row['bytes'] / 1e6:9.2f}  {row['share']:.4%}"
                f"  {row['requests']:7}  {row['seconds']:6.1f} {row['cpu_seconds']:6.1f} {row['rss_mb']:6.0f}"
                f"  {', '.join(row['named'])}; {row['lineage']}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
