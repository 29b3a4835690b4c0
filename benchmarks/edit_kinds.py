"""Confusion of edit kinds on a generated zoo: `python -m benchmarks.edit_kinds --scratch FOLDER`.

Fifteen originals of seven architectures (real transformers classes, drawn or trained), every kind of edit,
relative deltas of 1e-4 to 1e-1, eleven containers: some 1400 pairs a seed. Every pair is diffed in full, and
sketched with the rows that 0.5 % of a 1B-shaped model's bytes buy: 300 of each module over all layers, half
of a matrix at most, see `expect.ROWS`; at toy sizes a share of the bytes would mean nothing. What is right
is decided by `expect`, from the edit and the stored values.

Seeds 1–99 are for development: seed 1 was looked at while the zoo and the finders were made. Seeds from 101
are held out: report them, and change nothing after seeing them. Results go to a file of JSON lines as they
come; what is in it is not run again, so name a new file for new code.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.zoo.judge import DEPTHS, Outcome, judge, to_json
from benchmarks.zoo.pairs import Pair, all_pairs
from benchmarks.zoo.table import report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", choices=[*DEPTHS, "both"], default="both")
    parser.add_argument("--seeds", type=int, nargs="+", default=[101], help="from 101: held out")
    parser.add_argument("--only", default="", help="pairs whose name (model/edit/container) holds this")
    parser.add_argument("--architectures", nargs="+", default=[])
    parser.add_argument(
        "--every", type=int, default=1, help="every so many pairs, evenly over models and edits"
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--scratch", type=Path, required=True, help="models are kept here between runs")
    parser.add_argument("--json", type=Path, help="results, one a line; default is in the scratch folder")
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    path = arguments.json or arguments.scratch / "results.jsonl"
    pairs = chosen(arguments.seeds, arguments.only, arguments.architectures, arguments.every)
    depths = DEPTHS if arguments.depth == "both" else (arguments.depth,)
    done = {(o.pair, o.seed, o.depth): o for o in read(path)}
    todo = [pair for pair in pairs if any((pair.name, pair.seed, depth) not in done for depth in depths)]
    with path.open("a") as file:
        for outcome in run(todo, depths, arguments.scratch, arguments.jobs):
            key = (outcome.pair, outcome.seed, outcome.depth)
            if key in done:
                continue
            done[key] = outcome
            file.write(json.dumps(to_json(outcome)) + "\n")
            file.flush()
            if not (outcome.exact and outcome.lineage_right):
                sys.stderr.write(outcome.line() + "\n")
    wanted = {(pair.name, pair.seed, depth) for pair in pairs for depth in depths}
    found = [outcome for key, outcome in done.items() if key in wanted]
    if not found:
        sys.exit("no pair has this name")
    print(report(sorted(found, key=lambda outcome: (outcome.depth, outcome.seed, outcome.pair))))


def chosen(seeds: Iterable[int], only: str, architectures: list[str], every: int) -> list[Pair]:
    """The pairs to run: every so many of those sorted by edit, so that each edit keeps its share.

    They come in a random order that is always the same: a run that was cut short is a fair sample.
    """
    pairs = [
        pair
        for seed in seeds
        for pair in all_pairs(seed)
        if only in pair.name and (not architectures or pair.spec.architecture in architectures)
    ]
    pairs.sort(key=lambda pair: (pair.seed, pair.recipe.name, pair.container, pair.spec.name))
    return sorted(
        pairs[::every], key=lambda pair: hashlib.sha256(f"{pair.seed} {pair.name}".encode()).digest()
    )


def run(pairs: list[Pair], depths: Iterable[str], scratch: Path, jobs: int) -> Iterator[Outcome]:
    """Outcomes as they come."""
    if jobs == 1:
        for pair in pairs:
            yield from judge(pair, depths, scratch)
        return
    # all pairs of a model go to one worker: the others would make the same model and throw it away
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        groups: dict[tuple[str, int], list[str]] = {}
        for pair in pairs:
            groups.setdefault((pair.spec.name, pair.seed), []).append(pair.name)
        tasks = [(seed, names) for (_, seed), names in groups.items()]
        for outcomes in pool.imap_unordered(partial(_group, depths=tuple(depths), scratch=scratch), tasks):
            yield from outcomes


def _group(task: tuple[int, list[str]], depths: Iterable[str], scratch: Path) -> list[Outcome]:
    """Pairs by name, for what they are made of cannot be sent to another process."""
    seed, names = task
    named = {pair.name: pair for pair in all_pairs(seed)}
    return [outcome for name in names for outcome in judge(named[name], depths, scratch)]


def read(path: Path) -> list[Outcome]:
    """What was done before."""
    if not path.exists():
        return []
    return [Outcome(**json.loads(line)) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    main()
