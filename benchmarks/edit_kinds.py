"""Confusion of edit kinds on synthetic forks: `python -m benchmarks.edit_kinds --seeds 101 102 103`.

Every fork of the test zoo (hidden 64 to 192, four layers, bf16) is built anew for each seed, in three
model shapes, and diffed against its original. The finders were tuned on seed 1, 101 to 103 and a 135M model.
One row a fork: how often the set of kinds, the rank, the lineage and the required proofs were right.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from detector.diff import diff_weights
from detector.formats import open_weights
from detector.interface import Certainty, Diff
from tests.detector.forks import FORKS, Fork
from tests.detector.zoo import one_file


@dataclass
class Row:
    """Counts for one fork over all seeds."""

    expected: str
    runs: int = 0
    kinds: int = 0
    ranks: int = 0
    lineages: int = 0
    proofs: int = 0
    said: Counter[str] = field(default_factory=Counter)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103])
    arguments = parser.parse_args()
    rows = {fork.name: Row("+".join(sorted(fork.kinds))) for fork in FORKS}
    start = time.process_time()
    for seed in arguments.seeds:
        for fork in FORKS:
            with tempfile.TemporaryDirectory() as folder:
                original, files = fork.build(seed, Path(folder))
                diff = diff_weights(open_weights(one_file(original)), open_weights(files))
            count(rows[fork.name], fork, diff, seed)
    report(rows, time.process_time() - start)


def count(row: Row, fork: Fork, diff: Diff, seed: int) -> None:
    """Add one diff to its fork's row; misses go to stderr as they happen."""
    said = {edit.kind for edit in diff.edits}
    ranks = [edit.detail.rank for edit in diff.edits if edit.detail.rank is not None]
    proved = {edit.kind for edit in diff.edits if edit.certainty is Certainty.PROVED}
    right = (
        said == fork.kinds,
        fork.rank is None or ranks == [fork.rank],
        diff.lineage.status is fork.lineage,
        fork.proved <= proved,
    )
    row.runs += 1
    row.kinds += right[0]
    row.ranks += right[1]
    row.lineages += right[2]
    row.proofs += right[3]
    row.said["+".join(sorted(said))] += 1
    if not all(right):
        details = [(edit.kind, edit.certainty, edit.detail) for edit in diff.edits]
        sys.stderr.write(f"{seed} {fork.name}: {details}\n")


def report(rows: dict[str, Row], seconds: float) -> None:
    """The table, and the totals as JSON in the last line."""
    for name, row in rows.items():
        said = ", ".join(f"{kinds} ×{times}" for kinds, times in row.said.most_common())
        marks = (
            f"{row.kinds}/{row.runs} {row.ranks}/{row.runs} {row.lineages}/{row.runs} {row.proofs}/{row.runs}"
        )
        print(f"{name:34} {marks:24} {said}")
    runs = sum(row.runs for row in rows.values())
    totals = {
        "diffs": runs,
        "kinds_right": sum(row.kinds for row in rows.values()),
        "ranks_right": sum(row.ranks for row in rows.values()),
        "lineages_right": sum(row.lineages for row in rows.values()),
        "proofs_right": sum(row.proofs for row in rows.values()),
        "cpu_seconds": round(seconds, 1),
    }
    print(json.dumps(totals))


if __name__ == "__main__":
    main()
