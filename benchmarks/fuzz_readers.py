"""Fuzzes everything that parses hostile bytes: nothing may crash, hang, or take more memory than its cap.

    python benchmarks/fuzz_readers.py --seconds 60

Inputs are mutations of valid and hostile seeds: bits, extreme integers, cuts, copies, splices, changed leaves
of JSON. Each target runs in a process of its own whose address space is limited; an input that takes more
than `CPU_SECONDS` of CPU time is stopped by a signal. Prints one line of JSON a target, and ends with 1 if
anything went wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import random
import resource
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from crawler.interface import parse_repo_id
from crawler.parse import repo_info
from crawler.paths import sift_paths
from detector.errors import DetectorError
from detector.files import inspect_files
from detector.formats import open_weights
from detector.formats.gguf_header import read_gguf_header
from detector.formats.safetensors_header import read_header
from detector.pickles import inspect_stream
from detector.templates import hazards
from tests.hostile.build import (
    array,
    entry,
    gguf,
    imports,
    safetensors,
    string,
    tar,
    tensor,
    torch_zip,
    value,
)
from tests.hostile.examine import TEMPLATE, Memory

CPU_SECONDS = 2.0
MEGABYTES = 300
"""Of address space beyond what the process has before its first input."""
MAX_INPUT = 1 << 16
_EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40)
_EXTREMES_64 = (*_EXTREMES, (1 << 62), (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_TOKENS = (
    *(b'{"', b'"}', b"[", b"]", b",", b":", b"null", b"1e999", b"-1", b"\\ud800", b'"dtype"', b'"shape"'),
    *(b'"data_offsets"', b"{%", b"%}", b"{{", b"}}", b"{#", b"#}", b" for ", b" if ", b"'", b"|", b"(", b")"),
    *(b"__class__", b"PK\x03\x04", b"PK\x05\x06", b"\x80\x04", b"cos\nsystem\n", b"\x93", b"\x94", b"."),
)


class HangError(BaseException):
    """An input took too long; no `except Exception` of a reader may swallow it."""


@dataclass(frozen=True)
class Target:
    """Something that reads bytes: seeds, and what to do with an input."""

    seeds: tuple[bytes, ...]
    read: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...] = (DetectorError,)
    """What it may raise; anything else is a crash."""


@dataclass
class Report:
    """What happened to one target."""

    target: str
    inputs: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    most_seconds: float = 0.0
    peak_mb: int = 0
    failures: list[str] = field(default_factory=list)
    """Class and message of each crash or hang, with the input's hash and its first bytes."""


def _inspect(name: str) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        listing = {"rfilename": name, "size": len(data), "blobId": "0" * 40}
        answer = {"id": "a/b", "sha": "0" * 40, "siblings": [listing]}
        return inspect_files(repo_info(answer, parse_repo_id("a/b")), lambda _: Memory(data))

    return read


def _index(data: bytes) -> object:
    shard = safetensors({"a": entry()})
    return open_weights({"model.safetensors.index.json": Memory(data), "x.safetensors": Memory(shard)})


def _paths(data: bytes) -> object:
    return sift_paths(data.decode("utf-8", "surrogateescape").split("\n"))


def _targets() -> dict[str, Target]:
    plain = safetensors({"model.norm.weight": entry(), "b": entry("BF16", (2, 2), (8, 16))}, bytes(16))
    keys = [
        value("general.architecture", 8, string("llama")),
        value("general.alignment", 4, struct.pack("<I", 32)),
        value("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 3) + string("a") + string("b") + string("")),
        value("tokenizer.ggml.scores", 9, struct.pack("<IQff", 6, 2, 0.0, 1.0)),
        value("tokenizer.chat_template", 8, string(TEMPLATE)),
    ]
    tensors = [tensor("output_norm.weight", (8,)), tensor("blk.0.attn_q.weight", (32, 2), 8, 32)]
    model = gguf(keys, tensors, bytes(32 + 96))
    pickled = imports("collections", "OrderedDict")
    index = json.dumps({"metadata": {}, "weight_map": {"a": "x.safetensors"}}).encode()
    template = (
        TEMPLATE + "{% if 'x' in messages[-1].content %}{{ ''.__class__|attr('a') ~ 'b' * 9 }}{% endif %}"
    )
    return {
        "safetensors-header": Target((plain, safetensors({}, b"")), lambda d: read_header(Memory(d), "x")),
        "safetensors-weights": Target((plain,), lambda d: open_weights({"model.safetensors": Memory(d)})),
        "gguf-header": Target((model, gguf()), lambda d: read_gguf_header(Memory(d), "x")),
        "gguf-weights": Target((model,), lambda d: open_weights({"model.gguf": Memory(d)})),
        "index": Target((index,), _index),
        "pickle": Target((pickled, b"\x80\x02cos\nsystem\nX\1\0\0\0x\x85R."), _pickle),
        "zip": Target((torch_zip(pickled), torch_zip(pickled, code__x=b"a")), _inspect("model.bin")),
        "tar": Target((tar([("a.ckpt", b"0", pickled), ("b", b"2", b"")]),), _inspect("m.nemo")),
        "array": Target((array("|O", pickled), array("<f4", bytes(4))), _inspect("a.npy")),
        "config": Target((b'{"auto_map": {"A": "m.M"}, "a": [1, {"b": null}]}',), _inspect("config.json")),
        "template": Target((template.encode(),), _template),
        "paths": Target((b"config.json\na/b.txt\nA/b.txt\n../x",), _paths),
    }


def _pickle(data: bytes) -> object:
    return inspect_stream(data, complete=True)


def _template(data: bytes) -> object:
    return hazards(data.decode("utf-8", "replace"), (TEMPLATE,))


_LEAVES = (
    None,
    True,
    -1,
    0,
    1,
    7,
    8,
    1 << 31,
    1 << 63,
    1 << 70,
    1e308,
    "",
    "F32",
    "F4",
    "I64",
    "../x",
    [],
    {},
    [[0]],
)


def _leaf_changed(data: bytes, draw: random.Random) -> bytes:
    """A JSON text, or a safetensors file, with one value, key or row replaced, dropped or copied."""
    start, end = (8, data.rfind(b"}}") + 2) if data[8:9] == b"{" else (0, len(data))
    try:
        whole = json.loads(data[start:end])
    except ValueError:
        return data
    node, parent = whole, whole
    for _ in range(draw.randrange(1, 5)):
        if not isinstance(node, dict | list) or not node:
            break
        parent, key = node, draw.choice(list(node) if isinstance(node, dict) else range(len(node)))
        node = parent[key]
    if isinstance(parent, dict) and parent:
        key = draw.choice(list(parent))
        parent[draw.choice((key, key, "a", "__metadata__"))] = draw.choice((*_LEAVES, node))
        if draw.random() < 0.2:
            del parent[key]
    elif isinstance(parent, list):
        parent[draw.randrange(len(parent) + 1) :] = [draw.choice((*_LEAVES, node))]
    try:
        text = json.dumps(whole).encode()
    except ValueError:  # an object within itself
        return data
    return (struct.pack("<Q", len(text)) if start else b"") + text + data[end:]


def mutated(seeds: tuple[bytes, ...], draw: random.Random) -> bytes:
    """The next input: one to eight changes of a seed."""
    data = bytearray(draw.choice(seeds))
    if data[:1] == b"{" or data[8:9] == b"{":
        while draw.random() < 0.6:
            data = bytearray(_leaf_changed(bytes(data), draw))
        if draw.random() < 0.6:
            return bytes(data)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        place = draw.randrange(len(data) + 1)
        (_spoil if draw.random() < 0.5 else _rearrange)(data, place, seeds, draw)
    return _relengthed(bytes(data[:MAX_INPUT]), draw)


def _spoil(data: bytearray, place: int, _seeds: tuple[bytes, ...], draw: random.Random) -> None:
    """Other bytes in one place."""
    match draw.randrange(4):
        case 0 if data:
            data[place % len(data)] ^= 1 << draw.randrange(8)
        case 1:
            data[place : place + 8] = draw.randbytes(8)
        case 2:
            data[place:place] = draw.randbytes(draw.randrange(1, 16))
        case _:
            width = draw.choice((1, 2, 4, 8))
            number = draw.choice(_EXTREMES_64) & ((1 << 8 * width) - 1)
            data[place : place + width] = number.to_bytes(width, draw.choice(("little", "big")))


def _rearrange(data: bytearray, place: int, seeds: tuple[bytes, ...], draw: random.Random) -> None:
    """Cuts, copies, splices, and words that parsers know."""
    match draw.randrange(5):
        case 0:
            del data[place:]
        case 1:
            del data[place : place + draw.randrange(1, 32)]
        case 2:
            data[place:place] = data[place : place + draw.randrange(1, 64)] * draw.choice((1, 2, 100, 1000))
        case 3:
            other = draw.choice(seeds)
            data[place:] = other[draw.randrange(len(other) + 1) :]
        case _:
            data[place:place] = draw.choice(_TOKENS) * draw.choice((1, 1, 3, 2000))


def _relengthed(data: bytes, draw: random.Random) -> bytes:
    """A safetensors file whose length field fits again, half of the time, so that its header is parsed."""
    end = data.rfind(b"}}")
    if data[8:9] == b"{" and end > 8 and draw.random() < 0.5:
        return struct.pack("<Q", end + 2 - 8) + data[8:]
    return data


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise HangError


@contextmanager
def _limited() -> Iterator[None]:
    """No more memory than now and `MEGABYTES`; a signal after `CPU_SECONDS`, set for each input."""
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    handler = signal.signal(signal.SIGVTALRM, _stop)
    resource.setrlimit(resource.RLIMIT_AS, (size + (MEGABYTES << 20), hard))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
        signal.signal(signal.SIGVTALRM, handler)


def fuzz(name: str, *, seed: int, seconds: float | None = None, inputs: int | None = None) -> Report:
    """Fuzz one target, in this process, for a time or a number of inputs."""
    target, report, draw = _targets()[name], Report(name), random.Random(f"{name}:{seed}")
    end = time.monotonic() + (seconds or 1e9)
    with _limited():
        while time.monotonic() < end and report.inputs != inputs:
            data = mutated(target.seeds, draw)
            report.inputs += 1
            start = time.process_time()
            signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
            try:
                target.read(data)
                report.accepted += 1
            except target.refusals as error:
                report.refused[type(error).__name__] += 1
            except BaseException as error:  # noqa: BLE001 - a crash is what we look for
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
                digest = hashlib.sha256(data).hexdigest()[:12]
                report.failures.append(
                    f"{type(error).__name__}: {str(error)[:80]} {digest} {data[:200].hex()}"
                )
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            report.most_seconds = max(report.most_seconds, time.process_time() - start)
    report.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return report


def _run(name: str, seed: int, seconds: float | None, inputs: int | None = None) -> dict[str, Any]:
    report = fuzz(name, seed=seed, seconds=seconds, inputs=inputs)
    return {
        **vars(report),
        "refused": dict(report.refused),
        "failures": report.failures[:5],
        "failed": len(report.failures),
        "most_seconds": round(report.most_seconds, 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of each target")
    parser.add_argument("--inputs", type=int, help="of each target, instead of a time; all in one process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=sorted(_targets()), action="append")
    options = parser.parse_args()
    failed = 0
    for name in options.target or _targets():
        if options.inputs is not None:
            row = _run(name, options.seed, None, options.inputs)
        else:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row = pool.apply(_run, (name, options.seed, options.seconds))
        failed += row["failed"]
        print(json.dumps(row), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
