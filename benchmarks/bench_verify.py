"""Verifying a checkpoint on the disk: `python -m benchmarks.bench_verify --folder /tmp/verify`.

A signed checkpoint of two safetensors shards and some small files (2 GB in all by default) is made in the
folder if it is not there. It is then verified, each time by a process of its own, with

    floor               `hashlib.file_digest` of one file after another: what one core needs at least
    model_signing       `model_signing verify key …`, the reference implementation's command line
    verify_checkpoint   forkwatch's check for applications, everything read
    forkwatch verify    the command, everything read, and again with what it remembers

in turns, `--rounds` times. Printed are the best wall time of each, its processor time, and the median of the
ratios to `model_signing` within the same round: a machine that is busy for a while is busy for both.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from detector.provenance.sign import generate_key, sign_release

FLOOR = """
import hashlib, sys
from pathlib import Path
for path in sorted(Path(sys.argv[1]).rglob("*")):
    if path.is_file():
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")
"""
APP = """
import sys
from pathlib import Path
from detector.provenance.checkpoint import verify_checkpoint
from detector.provenance.interface import KeyTrust, Trust
verify_checkpoint(Path(sys.argv[1]), Trust((KeyTrust(Path(sys.argv[2]).read_bytes()),)))
"""
REFERENCE = "model_signing"
WORDS = {
    "floor": "hashlib.file_digest, one core",
    REFERENCE: "model_signing verify key",
    "app": "verify_checkpoint, all read",
    "command": "forkwatch verify, all read",
    "cached": "forkwatch verify, remembered",
}


@dataclass
class Runs:
    """Seconds of every round, in order."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, required=True, help="where the checkpoint is, or is to be made"
    )
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    model = make_checkpoint(arguments.folder, int(arguments.gigabytes * 1e9))
    commands = all_commands(model, arguments.folder)
    runs = {name: Runs() for name in commands}
    load = os.getloadavg()
    run(commands["cached"], runs["cached"])  # learns the digests
    runs["cached"] = Runs()
    for _ in range(arguments.rounds):
        for name, command in commands.items():
            run(command, runs[name])
    size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    found = figures(runs, size, (load, os.getloadavg()))
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        report(found)


def make_checkpoint(folder: Path, size: int) -> Path:
    """A signed checkpoint of about `size` bytes; its bytes are random, but for the headers."""
    model = folder / f"model-{size}"
    if (model / "model.sig").exists():
        return model
    model.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        (model / name).write_text(json.dumps({"name": name}))
    (model / "tokenizer.json").write_bytes(b"[" + b"0," * (4 << 20) + b"0]")
    for number in (1, 2):
        write_shard(model / f"model-{number:05}-of-00002.safetensors", size // 2)
    if not (folder / "release.key").exists():
        generate_key(folder)
    sign_release(model, folder / "release.key")
    time.sleep(3)  # what was written a moment ago is not remembered
    return model


def write_shard(path: Path, size: int) -> None:
    count = size // 2
    tensor = {"dtype": "F16", "shape": [count], "data_offsets": [0, count * 2]}
    header = json.dumps({"model.weight": tensor}).encode()
    block = os.urandom(8 << 20)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        left = count * 2
        while left > 0:
            left -= file.write(block[: min(left, len(block))])


def all_commands(model: Path, folder: Path) -> dict[str, list[str]]:
    """What is run, by name."""
    key = str(folder / "release.pub")
    tool = Path(sys.executable).with_name("model_signing")
    verify = [sys.executable, "-m", "forkwatch", "verify", str(model), "--public-key", key]
    signed = ["--signature", str(model / "model.sig"), "--public_key", key]
    return {
        "floor": [sys.executable, "-c", FLOOR, str(model)],
        REFERENCE: [str(tool), "verify", "key", str(model), *signed],
        "app": [sys.executable, "-c", APP, str(model), key],
        "command": [*verify, "--no-cache"],
        "cached": verify,
    }


def run(command: list[str], runs: Runs) -> None:
    """Once, in a process of its own, which must succeed."""
    state = str(Path(command[-1] if command[-1] != "--no-cache" else command[-2]).parent / "state")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    environment = {**os.environ, "FORKWATCH_STATE_DIR": state}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    runs.wall.append(time.perf_counter() - began)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    runs.processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def figures(runs: dict[str, Runs], size: int, loads: tuple[tuple[float, ...], ...]) -> dict[str, object]:
    """Best times, and the median of the ratios to the reference, round by round."""
    reference = runs[REFERENCE].wall
    tools = {
        name: {
            "seconds": min(done.wall),
            "processor_seconds": min(done.processor),
            "times_faster": statistics.median(
                theirs / ours for theirs, ours in zip(reference, done.wall, strict=True)
            ),
        }
        for name, done in runs.items()
    }
    cores = len(os.sched_getaffinity(0))
    return {"bytes": size, "rounds": len(reference), "cores": cores, "load": loads, "tools": tools}


def report(found: dict[str, object]) -> None:
    """A table, and one line to quote."""
    tools = found["tools"]
    assert isinstance(tools, dict)
    size = found["bytes"]
    assert isinstance(size, int)
    print(f"{size / 1e9:.2f} GB, {found['cores']} cores, {found['rounds']} rounds, load {found['load']}")
    print(f"  {'tool':<32}{'s':>8}{'CPU s':>8}{'GB/s':>8}{'times faster':>14}")
    for name, row in tools.items():
        speed = size / row["seconds"] / 1e9
        numbers = f"{row['seconds']:>8.2f}{row['processor_seconds']:>8.2f}{speed:>8.2f}"
        print(f"  {WORDS[name]:<32}{numbers}{row['times_faster']:>14.2f}")
    full, cached = tools["command"], tools["cached"]
    print(
        f"\n`forkwatch verify` checks {size / 1e9:.1f} GB in {full['seconds']:.1f} s, "
        f"{full['times_faster']:.1f} times as fast as `model_signing verify`; again, unchanged, in "
        f"{cached['seconds']:.1f} s ({cached['times_faster']:.0f} times)."
    )


if __name__ == "__main__":
    main()
