"""False alarms on the tiny family: 1,000 independent aggregates of n in every nuisance cell.

    python -m benchmarks.attribution.tiny_alarms CORPUS OUT.jsonl

Untrained tests only need a reference: the last plain blocks. No output is in two aggregates of one n.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.attribution import swap
from benchmarks.attribution.corpus import Block, aggregates, read_blocks
from benchmarks.attribution.evaluate import _PLAIN, _share, CELLS
from benchmarks.attribution.tiny import BLOCKS
from detector.outputs.interface import ALPHA, ScoredOutput

SIZES = (1, 5, 10, 20, 40)
WANTED = 1050
REFERENCE = 100
"""Answers a prompt: enough for a p-value below 1 % from a single output."""


def main() -> None:
    """All cells that are there."""
    corpus, out = Path(sys.argv[1]), Path(sys.argv[2])
    plain = read_blocks(corpus, "authentic", "seed")
    reference = gathered(plain[BLOCKS:])
    kernels = {prompt: [one.output.text or "" for one in those] for prompt, those in reference.items()}
    values = {
        name: {prompt: np.array([function(one) for one in those]) for prompt, those in reference.items()}
        for name, function in _PLAIN.items()
    }
    for cell in CELLS:
        blocks = plain[:BLOCKS] if cell == "seed" else read_blocks(corpus, "authentic", cell)
        for n in SIZES if blocks else ():
            count, hits = 0, defaultdict(int)
            for aggregate in aggregates(blocks, n):
                if count == WANTED:
                    break
                count += 1
                for test, p in tests(aggregate, values, kernels).items():
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
    aggregate: tuple[ScoredOutput, ...], values: dict[str, dict[str, np.ndarray]], texts: dict[str, list[str]]
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
    return found | {"combined-untrained": swap.p_value(*statistics.values())}


if __name__ == "__main__":
    main()
