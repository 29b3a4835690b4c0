"""False alarms on the tiny family: 1,000 independent aggregates of n in every nuisance cell.

    python -m benchmarks.attribution.tiny_alarms CORPUS OUT.jsonl CELL...

Untrained tests only need a reference: the first plain blocks. No output is in two aggregates of one n.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.attribution import swap
from benchmarks.attribution.corpus import Block, aggregates, read_blocks
from benchmarks.attribution.evaluate import _PLAIN, CELLS, _by_prompt, _features, _share, nuisance_p
from detector.outputs.features import score_features
from detector.outputs.interface import ALPHA, ScoredOutput

SIZES = (1, 5, 10, 20, 40)
WANTED = 1050
TESTED = 8
"""First block under test; those before are references here, and teach and calibrate in `conformal`."""
NUISANCE_SIZES = (10, 40)
PACK = 24
"""Answers a prompt of each nuisance cell in the pack."""
REFERENCE = 100
"""Answers a prompt: enough for a p-value below 1 % from a single output."""


def main() -> None:
    """All cells that are there."""
    corpus, out = Path(sys.argv[1]), Path(sys.argv[2])
    plain = read_blocks(corpus, "authentic", "seed")
    reference = gathered(plain[: TESTED])
    kernels = {prompt: [one.output.text or "" for one in those] for prompt, those in reference.items()}
    values = {
        name: {prompt: np.array([function(one) for one in those]) for prompt, those in reference.items()}
        for name, function in _PLAIN.items()
    }
    features = {prompt: _features(those) for prompt, those in reference.items()}
    pack = {cell: _by_prompt(read_blocks(corpus, "authentic", cell)[:1]) for cell in CELLS}
    pack = {cell: {prompt: rows[:PACK] for prompt, rows in found.items()} for cell, found in pack.items()}
    for cell in sys.argv[3:]:
        blocks = read_blocks(corpus, "authentic", cell)[TESTED:]
        for n in SIZES if blocks else ():
            count, hits = 0, defaultdict(int)
            for aggregate in aggregates(blocks, n):
                if count == WANTED:
                    break
                count += 1
                found = tests(aggregate, values, kernels, features)
                if n in NUISANCE_SIZES:
                    found["score-nuisance"] = nuisance_p(pack, aggregate)
                for test, p in found.items():
                    hits[test] += p <= ALPHA
            for test, rejected in hits.items():
                row = {"test": test, "model": "tiny", "cell": cell, "n": n, "rejected": int(rejected), "of": count}
                with out.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")
        print(cell, flush=True)


def gathered(blocks: list[Block]) -> dict[str, list[ScoredOutput]]:
    """`REFERENCE` answers to every prompt."""
    found: dict[str, list[ScoredOutput]] = defaultdict(list)
    for block in blocks:
        for prompt, those in block.by_prompt.items():
            found[prompt] += [one for one in those if len(one.authentic.logp)]
    return {prompt: those[:REFERENCE] for prompt, those in found.items()}


def tests(
    aggregate: tuple[ScoredOutput, ...],
    values: dict[str, dict[str, np.ndarray]],
    texts: dict[str, list[str]],
    features: dict[str, np.ndarray],
) -> dict[str, float]:
    """P-values of the untrained tests."""
    plain = {
        name: swap.stacked([(one.output.prompt_id, _PLAIN[name](one)) for one in aggregate], by_prompt)
        for name, by_prompt in values.items()
    }
    kernels = np.array([_share([one.output.text or "", *texts[one.output.prompt_id]]) for one in aggregate])
    statistics = {
        "mmd-hamming": swap.hamming(kernels),
        "rank-uniformity": swap.uniformity(plain["rank"]),
        "surprise": swap.mean_shift(plain["surprise"]),
    }
    found = {name: swap.p_value(value) for name, value in statistics.items()}
    rows = np.array(
        [np.vstack([score_features(one.authentic), features[one.output.prompt_id]]) for one in aggregate]
    )
    found["score-permutation"] = swap.score_p(rows)
    return found | {"combined-untrained": swap.p_value(*statistics.values())}


if __name__ == "__main__":
    main()
