"""False alarms on the tiny family: 1,000 independent aggregates of n in every nuisance cell.

    python -m benchmarks.attribution.tiny_alarms CORPUS OUT.jsonl SIZES CELL...

Untrained tests only need a reference, from the first plain blocks: one for all aggregates, or, where SIZES
ends in `/rotate`, ten in turn. No output is in two aggregates of one n.
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

WANTED = 1050
TESTED = 8
"""First block under test; those before are references here, and teach and calibrate in `conformal`."""
NUISANCE_SIZES = (10, 40)
PACK = 24
"""Answers a prompt of each nuisance cell in the pack."""
ANSWERS = 40
"""Answers a prompt that every test compares with."""


def main() -> None:
    """All cells that are named."""
    corpus, out, rotate = Path(sys.argv[1]), Path(sys.argv[2]), len(sys.argv[3].split("/")) > 1
    sizes = [int(n) for n in sys.argv[3].split("/")[0].split(",")]
    plain = gathered(read_blocks(corpus, "authentic", "seed")[:TESTED])
    least = min(map(len, plain.values()))
    references = [
        Reference({prompt: those[at : at + ANSWERS] for prompt, those in plain.items()})
        for at in range(0, least - ANSWERS + 1, ANSWERS)
    ][: None if rotate else 1]
    pack = {cell: _by_prompt(read_blocks(corpus, "authentic", cell)[:1]) for cell in CELLS}
    pack = {cell: {prompt: rows[:PACK] for prompt, rows in found.items()} for cell, found in pack.items()}
    for cell in sys.argv[4:]:
        blocks = read_blocks(corpus, "authentic", cell)[TESTED:]
        for n in sizes if blocks else ():
            count, hits = 0, defaultdict(int)
            for aggregate in aggregates(blocks, n):
                if count == WANTED:
                    break
                found = references[count % len(references)].tests(aggregate)
                count += 1
                if n in NUISANCE_SIZES and not rotate:
                    found["score-nuisance"] = nuisance_p(pack, aggregate, first=cell)
                for test, p in found.items():
                    hits[test] += p <= ALPHA
            for test, rejected in hits.items():
                row = {
                    "test": test,
                    "model": "tiny",
                    "cell": cell,
                    "n": n,
                    "rejected": int(rejected),
                    "of": count,
                }
                with out.open("a") as stream:
                    stream.write(json.dumps(row | {"references": len(references)}) + "\n")
        print(cell, flush=True)


def gathered(blocks: list[Block]) -> dict[str, list[ScoredOutput]]:
    """All scored answers to every prompt."""
    found: dict[str, list[ScoredOutput]] = defaultdict(list)
    for block in blocks:
        for prompt, those in block.by_prompt.items():
            found[prompt] += [one for one in those if len(one.authentic.logp)]
    return found


class Reference:
    """`ANSWERS` authentic answers to every prompt."""

    def __init__(self, scored: dict[str, list[ScoredOutput]]) -> None:
        self._texts = {prompt: [one.output.text or "" for one in those] for prompt, those in scored.items()}
        self._values = {
            name: {prompt: np.array([function(one) for one in those]) for prompt, those in scored.items()}
            for name, function in _PLAIN.items()
        }
        self._features = {prompt: _features(those) for prompt, those in scored.items()}

    def tests(self, aggregate: tuple[ScoredOutput, ...]) -> dict[str, float]:
        """P-values of the untrained tests."""
        prompts = [one.output.prompt_id for one in aggregate]
        plain = {
            name: swap.stacked(
                [(p, _PLAIN[name](o)) for p, o in zip(prompts, aggregate, strict=True)], by_prompt
            )
            for name, by_prompt in self._values.items()
        }
        kernels = np.array(
            [_share([o.output.text or "", *self._texts[o.output.prompt_id]]) for o in aggregate]
        )
        statistics = {
            "mmd-hamming": swap.hamming(kernels),
            "rank-uniformity": swap.uniformity(plain["rank"]),
            "surprise": swap.mean_shift(plain["surprise"]),
        }
        rows = np.array(
            [np.vstack([score_features(o.authentic), self._features[o.output.prompt_id]]) for o in aggregate]
        )
        return {
            **{name: swap.p_value(value) for name, value in statistics.items()},
            "score-permutation": swap.score_p(rows),
            "combined-untrained": swap.p_value(*statistics.values()),
        }


if __name__ == "__main__":
    main()
