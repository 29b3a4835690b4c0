"""What `forkwatch classify` would say: labels of aggregates, scored, with and without the fork's own weights.

python -m benchmarks.attribution.labels CORPUS OUT.jsonl
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from benchmarks.attribution.corpus import Block, aggregates, halves, read_blocks, transcript
from benchmarks.attribution.evaluate import CELLS, REFERENCE
from benchmarks.attribution.features import sample_of
from benchmarks.attribution.variants import VARIANTS
from detector.outputs.gather import Outputs, gather
from detector.outputs.interface import ALPHA, ReferencePack, Sampling, ScoredOutput
from detector.outputs.label import classify

SIZES = (20, 40)
ENOUGH = 16
"""Aggregates of one model and n at most."""


def pack_of(corpus: Path) -> ReferencePack:
    """The release's reference blocks and half of the first block of every nuisance cell; no fork."""
    cells = {cell: read_blocks(corpus, "authentic", cell) for cell in CELLS if cell != "seed"}
    samples = [sample_of(read_blocks(corpus, "authentic", "seed")[REFERENCE])]
    samples += [sample_of([halves(blocks[0])[0]]) for blocks in cells.values() if blocks]
    return ReferencePack(
        release="lab/smollm2-135m-guarded",
        root_digest="",
        probe_set="",
        transcripts=tuple(
            transcript(corpus, "authentic", f"greedy{how}") for how in ("", "-fp32", "-single")
        ),
        samples=tuple(samples),
        refusals=(),
        first_logprobs={},
    )


def labelled(pack: ReferencePack, blocks: Sequence[Block], n: int, *, own: bool, told: bool) -> Counter[str]:
    """Label to number of aggregates. `told`: outputs say at which temperature they were drawn."""
    found: Counter[str] = Counter()
    for aggregate, _ in zip(aggregates(blocks, n), range(ENOUGH), strict=False):
        outputs: list[ScoredOutput] = []
        for one in aggregate:
            sampling = one.output.sampling if told else Sampling()
            outputs.append(
                replace(one, output=replace(one.output, sampling=sampling), forks=one.forks if own else {})
            )
        found[
            classify(gather(Outputs(scored=tuple(outputs)), pack, alpha=ALPHA), alpha=ALPHA).label.value
        ] += 1
    return found


def main() -> None:
    """One line a model, cell, n and way."""
    corpus, out = Path(sys.argv[1]), Path(sys.argv[2])
    pack = pack_of(corpus)
    tested = {
        ("authentic", cell): [halves(blocks[0])[1], *blocks[1:]]
        for cell in CELLS
        if (blocks := read_blocks(corpus, "authentic", cell))
    }
    tested["authentic", "seed"] = read_blocks(corpus, "authentic", "seed")[REFERENCE.stop :]
    tested |= {(v.name, "seed"): read_blocks(corpus, v.name, "seed") for v in VARIANTS}
    for (model, cell), blocks in tested.items():
        forked = model != "authentic"
        for n in (SIZES[-1:] if forked else SIZES) if blocks else ():
            for own, told in product((False, True), (True,)) if forked else product((False,), (False, True)):
                labels = labelled(pack, blocks, n, own=own, told=told)
                row = {"model": model, "cell": cell, "n": n, "own": own, "told": told, "labels": labels}
                with out.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")
                print(row, flush=True)


if __name__ == "__main__":
    main()
