"""The product's classifier with its conformal thresholds: power by left-out fork and family, alarms by cell.

    python -m benchmarks.attribution.conformal CORPUS OUT.jsonl smollm2|tiny

Every cell has blocks to learn from, to calibrate with, and to test, in this order (`ROLES`).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.attribution.corpus import Block, aggregates, read_blocks
from benchmarks.attribution.evaluate import CELLS
from benchmarks.attribution.features import FAMILY, Folds, log_odds, sample_of, table_of
from benchmarks.attribution.variants import VARIANTS
from detector.outputs.conformal import SIZES, Calibration, units_needed
from detector.outputs.interface import ALPHA, Sample, ScoredOutput

ROLES = {"smollm2": (1, 2), "tiny": (1, 8)}
"""End of the training blocks and of the calibration blocks in every cell."""
WANTED = 1050


class Heads:
    """Score and text heads without a fork or family, with thresholds from the calibration blocks."""

    def __init__(self, folds: Folds, calibrating: dict[str, list[Block]]) -> None:
        self._folds = folds
        self._tables = {cell: table_of([_dealt(blocks)]) for cell, blocks in calibrating.items()}

    def calibrated(self, by: str, name: str) -> dict[str, Calibration]:
        heads = self._folds.without(by, name)
        found = {cell: log_odds(heads, table) for cell, table in self._tables.items()}
        return {
            head: Calibration({cell: values[head].astype(np.float32) for cell, values in found.items()})
            for head in ("score", "text")
        }


def _dealt(blocks: Sequence[Block]) -> Sample:
    """In an order in which any n that divides 40 in a row answer different prompts."""
    order = tuple(one for aggregate in aggregates(blocks, 40) for one in aggregate)
    return sample_of([Block(blocks[0].model, blocks[0].cell, 0, order)])


def rejections(
    folds: Folds, key: tuple[str, str], calibration: dict[str, Calibration], blocks: Sequence[Block], n: int
) -> dict[str, tuple[int, int]]:
    """Head to rejections and aggregates; a head without enough calibration units is left out."""
    chosen = [one for one, _ in zip(aggregates(blocks, n), range(WANTED), strict=False)]
    flat: list[ScoredOutput] = [one for aggregate in chosen for one in aggregate]
    table = table_of([sample_of([Block(blocks[0].model, blocks[0].cell, 0, tuple(flat))])])
    ends = np.cumsum([len(aggregate) for aggregate in chosen])[:-1]
    found = {}
    odds = log_odds(folds.without(*key), table)
    for head, values in ((head, odds[head]) for head in calibration):
        if calibration[head].units(n)[0] < units_needed(ALPHA):
            continue
        parts = np.split(values.astype(np.float32), ends)
        totals = np.array([part.astype(np.float64).sum() for part in parts])
        full = np.array([len(aggregate) == n for aggregate in chosen])
        p = calibration[head].p_values(totals[full], n)
        found[head] = (int((p <= ALPHA).sum()), int(full.sum()))
    return found


def main() -> None:
    """One line a test, model, cell and n."""
    corpus, out = Path(sys.argv[1]), Path(sys.argv[2])
    taught, calibrated = ROLES[sys.argv[3]]
    found = {cell: read_blocks(corpus, "authentic", cell) for cell in CELLS}
    cells = {cell: blocks for cell, blocks in found.items() if len(blocks) > calibrated}
    forks = {v.name: blocks for v in VARIANTS if (blocks := read_blocks(corpus, v.name, "seed"))}
    samples = [sample_of(blocks[:taught]) for blocks in cells.values()]
    samples += [sample_of(blocks[:1]) for blocks in forks.values()]
    started = time.monotonic()
    folds = Folds(table_of(samples))
    folds.without("fork", "none")
    print(f"one training: {time.monotonic() - started:.1f} s", flush=True)
    heads = Heads(folds, {cell: blocks[taught:calibrated] for cell, blocks in cells.items()})

    def write(model: str, cell: str, by: str, key: tuple[str, str], blocks: Sequence[Block]) -> None:
        calibration = heads.calibrated(*key)
        for n in SIZES:
            for head, (hits, of) in rejections(folds, key, calibration, blocks, n).items():
                counts = {"n": n, "rejected": hits, "of": of}
                row = {"test": f"conformal-{head}{by}", "model": model, "cell": cell, **counts}
                with out.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")

    for cell, blocks in cells.items():
        write("authentic", cell, "", ("fork", "none"), blocks[calibrated:])
    print("alarms", flush=True)
    for name, blocks in forks.items():
        write(name, "seed", "-lofo", ("fork", name), blocks)
        write(name, "seed", "-lofamo", ("family", FAMILY[name]), blocks)


if __name__ == "__main__":
    main()
