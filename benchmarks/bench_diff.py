"""Throughput of the full diff: `python -m benchmarks.bench_diff --folder /tmp/pairs`.

(1) Floors: a copy in memory, and `cmp` of files as large. (2) forkwatch's comparison, its whole diff, and
the command as a user types it, of each pair, in a child of its own, so that the peak of resident memory is
its own. (3) The other
tools that compare weights, if they are there, on the same pairs: seconds, peak memory, bytes of the files,
and what they say of the edit. Everything is run `--rounds` times in turns and the best of each is printed;
files are in the page cache. Processor seconds are printed besides: they mean something on a busy machine too.
Peers live in environments of their own, outside of the repository:

    modeldiffr, modeldna, diffai-python    --peers  or FORKWATCH_BENCH_PEERS: a Python that has them
    cisco-ai-provenance-kit                --cisco  or FORKWATCH_BENCH_CISCO: a Python ≥ 3.12 that has it

The latter says nothing unless a tokenizer lies beside the weights: copy one into the folders.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.llama_pairs import G1, G3, M250, Shape, dense, directional, lora, write_model

SHAPES = {"m250": M250, "g1": G1, "g3": G3}
EXPECTED = {
    "copy": "identical",
    "same": "repackaged",
    "lora": "low-rank-merge",
    "directional": "directional-edit",
    "dense": "full-finetune",
    "unrelated": "unrelated",
}

FORKWATCH = """
import math, sys, time
from pathlib import Path
from crawler.local import LocalFile
from detector.compare import compare_pair
from detector.formats import open_weights
from detector.pairing import pair_tensors
from detector.stream import Streams
if sys.argv[1] == "diff":
    from detector.diff import diff_weights
sides = [open_weights({f.name: LocalFile(f) for f in sorted(Path(p).iterdir())}) for p in sys.argv[2:4]]
start, spent = time.perf_counter(), time.process_time()
if sys.argv[1] == "compare":
    pairs = pair_tensors(sides[0].tensors(), sides[1].tensors()).pairs
    with Streams(sum(math.prod(pair.fork.shape) for pair in pairs)) as streams:
        found = [compare_pair(pair, *sides, (), streams).status for pair in pairs]
    said = f"{sum(status != 'identical' for status in found)} of {len(found)} tensors changed"
else:
    said = ", ".join(f"{edit.kind} ({edit.certainty})" for edit in diff_weights(*sides).edits)
print(time.perf_counter() - start, time.process_time() - spent, said, sep="\\t")
"""
COMMAND = """
import sys
from forkwatch.cli.entry import main
sys.argv = ["forkwatch", "diff", *sys.argv[1:], "--depth", "full", "--json"]
main()
"""
"""As a user runs it: journal and document included."""
MODELDIFFR = """
import sys
from modeldiffr.fingerprint.weights import diff_weights, weights_fingerprint
left, right = (weights_fingerprint(path) for path in sys.argv[1:3])
found = diff_weights(left.leaves, right.leaves)
print(found["changed_count"], "of", found["shared"], "tensors changed")
"""
MODELDNA = """
import sys
from modeldna.cli import app
sys.argv = ["modeldna", "compare", *sys.argv[1:3], "--json", *sys.argv[3:]]
app()
"""
DIFFAI = """
import sys
from pathlib import Path
import diffai
pairs = zip(*(sorted(Path(path).glob("*.safetensors")) for path in sys.argv[1:3]))
print(sum(len(diffai.diff_paths(str(left), str(right))) for left, right in pairs), "differences")
"""
CISCO = """
import sys
from provenancekit.cli import main
sys.argv = ["provenancekit", "compare", *sys.argv[1:3], "--json", "--no-cache"]
main()
"""
WATCH = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
output = process.stdout.read()
usage = os.wait4(process.pid, 0)[2]
spent = usage.ru_utime + usage.ru_stime
print(json.dumps([time.perf_counter() - start, spent, usage.ru_maxrss << 10, output]))
"""
"""A small process between this one and a tool: Linux takes a parent's memory for its child's."""


@dataclass
class Timed:
    """Best of several runs."""

    seconds: float = float("inf")
    processor: float = float("inf")
    """User and system time, starting Python included."""
    inner: float = float("inf")
    """Without starting Python and importing, where the child tells."""
    inner_processor: float = float("inf")
    peak: int = 0
    """Bytes resident."""
    said: str = ""

    def update(self, other: Timed) -> None:
        self.seconds, self.inner = min(self.seconds, other.seconds), min(self.inner, other.inner)
        self.processor = min(self.processor, other.processor)
        self.inner_processor = min(self.inner_processor, other.inner_processor)
        self.peak, self.said = max(self.peak, other.peak), other.said


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="where the pairs are, or are to be made")
    parser.add_argument("--shape", choices=SHAPES, default="m250")
    parser.add_argument("--pairs", nargs="+", choices=EXPECTED, default=list(EXPECTED))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without", nargs="+", default=[], help="tools that are not run")
    parser.add_argument("--peers", default=os.environ.get("FORKWATCH_BENCH_PEERS", ""))
    parser.add_argument("--cisco", default=os.environ.get("FORKWATCH_BENCH_CISCO", ""))
    arguments = parser.parse_args()
    folder = arguments.folder / arguments.shape
    make_pairs(folder, SHAPES[arguments.shape], arguments.pairs)
    tools = {
        name: run
        for name, run in all_tools(arguments.peers, arguments.cisco).items()
        if name not in arguments.without
    }
    for pair in arguments.pairs:
        nbytes = sum(file.stat().st_size for side in ("base", pair) for file in shards(folder / side))
        results, copy = {name: Timed() for name in tools}, Timed()
        for _ in range(arguments.rounds):
            copy.update(copied(nbytes))
            for name, run in tools.items():
                results[name].update(run(folder / "base", folder / pair))
        report(pair, nbytes, copy, results)


def make_pairs(folder: Path, shape: Shape, pairs: list[str]) -> None:
    """Write the checkpoints that are not there yet."""
    if not (folder / "copy").exists():
        write_model(folder / "base", shape, 1)
        shutil.copytree(folder / "base", folder / "copy")
    edits = {"lora": lora(), "directional": directional(shape.hidden), "dense": dense()}
    for name in pairs:
        if not (folder / name / "config.json").exists():
            seed, parts = (2, 3) if name == "unrelated" else (1, 2 if name == "same" else 3)
            write_model(folder / name, shape, seed, edits.get(name), parts)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def copied(nbytes: int) -> Timed:
    """A copy that no cache holds, of so many bytes read and written, on all threads."""
    source = torch.zeros(1 << 28, dtype=torch.uint8)
    target = torch.ones_like(source)
    best, times = Timed(), nbytes / (2 * source.numel())
    for _ in range(5):
        start, spent = time.perf_counter(), time.process_time()
        target.copy_(source)
        seconds, processor = time.perf_counter() - start, time.process_time() - spent
        best.update(Timed(seconds * times, processor * times))
    return best


def all_tools(peers: str, cisco: str) -> dict[str, Callable[[Path, Path], Timed]]:
    """Every tool by name; those that are not there are named on stderr."""
    tools: dict[str, Callable[[Path, Path], Timed]] = {
        "cmp": compare_files,
        "forkwatch, comparison": child(sys.executable, FORKWATCH, "compare"),
        "forkwatch, full diff": child(sys.executable, FORKWATCH, "diff"),
        "forkwatch diff, as typed": child(sys.executable, COMMAND),
    }
    others = (
        ("modeldiffr", "modeldiffr", peers, MODELDIFFR, ()),
        ("modeldna", "modeldna", peers, MODELDNA, ()),
        ("modeldna --full", "modeldna", peers, MODELDNA, ("--full",)),
        ("diffai", "diffai-python", peers, DIFFAI, ()),
        ("cisco-ai-provenance-kit", "cisco-ai-provenance-kit", cisco, CISCO, ()),
    )
    for name, package, python, program, options in others:
        probe = [python, "-c", f"import importlib.metadata as m; m.version({package!r})"]
        if python and subprocess.run(probe, check=False, capture_output=True).returncode == 0:
            tools[name] = child(python, program, after=options)
        else:
            print(f"{name}: not installed: pip install {package}", file=sys.stderr)
    return tools


def child(
    python: str, program: str, *before: str, after: tuple[str, ...] = ()
) -> Callable[[Path, Path], Timed]:
    """A tool that runs in a Python of its own."""

    def run(base: Path, fork: Path) -> Timed:
        sides = (str(fork), str(base)) if program is MODELDNA else (str(base), str(fork))
        done = measured([python, "-c", program, *before, *sides, *after])
        inner, *more = done.said.split("\t")
        if more:
            done.inner, done.inner_processor, done.said = float(inner), float(more[0]), more[1]
        return done

    return run


def compare_files(base: Path, _: Path) -> Timed:
    """`cmp` of the base and its copy, file by file: of files that differ it would read one page only."""
    commands = [f"cmp {path} {base.with_name('copy') / path.name}" for path in shards(base)]
    return measured(["sh", "-c", " && ".join(commands)])


def measured(command: list[str]) -> Timed:
    """Wall time and peak resident memory of a command; what it says last."""
    watch = [sys.executable, "-S", "-c", WATCH, *command]
    done = subprocess.run(watch, check=True, stdout=subprocess.PIPE, text=True)
    seconds, processor, peak, output = json.loads(done.stdout)
    return Timed(seconds, processor, peak=peak, said=verdict(output))


def verdict(output: str) -> str:
    """The part of a tool's output that names something."""
    try:
        found = json.loads(output)
    except ValueError:
        return output.strip().rpartition("\n")[2][:160]
    while isinstance(found, dict) and isinstance(found.get("verdict"), dict):
        found = found["verdict"]
    if isinstance(found, dict) and isinstance(found.get("edits"), list):
        return ", ".join(f"{edit['kind']} ({edit['certainty']})" for edit in found["edits"])
    keys = ("verdict", "interpretation", "label", "probability", "pipeline_score", "identity_score")
    flat = found if isinstance(found, dict) else {}
    picked = {key: flat[key] for key in keys if key in flat}
    return str(picked or list(flat))[:160]


def report(pair: str, nbytes: int, copy: Timed, results: dict[str, Timed]) -> None:
    """One table a pair."""
    reference = results["cmp"]
    print(f"\n{pair}: {nbytes / 1e6:.0f} MB on both sides, expected {EXPECTED[pair]}")
    print(
        f"  copy in memory, as many bytes read and written: {copy.seconds:.3f} s, {copy.processor:.3f} CPU s "
        f"({nbytes / copy.seconds / 1e9:.1f} GB/s on {torch.get_num_threads()} threads)"
    )
    heads = ("s", "CPU s", "peak MB", "inside: s", "CPU s", "of cmp", "its CPU", "of copy", "its CPU")
    print(f"  {'tool':<26}" + "".join(f"{head:>10}" for head in heads) + "  says")
    for name, timed in results.items():
        seconds, processor = min(timed.seconds, timed.inner), min(timed.processor, timed.inner_processor)
        columns = (
            f"{timed.seconds:.2f}",
            f"{timed.processor:.2f}",
            f"{timed.peak / 1e6:.0f}",
            f"{timed.inner:.2f}",
            f"{timed.inner_processor:.2f}",
            f"{reference.seconds / seconds:.2f}",
            f"{reference.processor / processor:.2f}",
            f"{copy.seconds / seconds:.1%}",
            f"{copy.processor / processor:.1%}",
        )
        print(f"  {name:<26}" + "".join(f"{column:>10}" for column in columns) + f"  {timed.said}")


if __name__ == "__main__":
    main()
