"""The likelihood-ratio e-process on the corpus: outputs to a decision, and alarms where nothing was modified.

    python -m benchmarks.attribution.ratios CORPUS

One output a prompt, in random order; `authentic` streams are scored under the forks of `cross`, and the
e-value is the product's mixture over them, under the declared setting or, where a cell hides its own, all
of the composite.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.attribution.corpus import Block, aggregates, read_blocks
from benchmarks.attribution.cross import FORKS, family, tested
from benchmarks.attribution.tables import upper
from benchmarks.attribution.variants import VARIANTS
from detector.outputs.evaluation import clopper_pearson
from detector.outputs.evalues import bar
from detector.outputs.interface import ALPHA, Sampling, ScoredOutput
from detector.outputs.likelihood import PLAIN, UNDECLARED, Setting, likelihoods, log_e, log_e_of, nothing

STREAM = 40


def stop(
    outputs: Sequence[ScoredOutput], forks: Sequence[str], settings: Sequence[Setting], known: int
) -> int | None:
    """Outputs until the e-value decides; `known`: forks that the mixture is over, at least those named."""
    seen = nothing(settings, forks)
    for number, one in enumerate(outputs, 1):
        seen += likelihoods([one], settings, forks)
        value = log_e(seen) if len(forks) > 1 else log_e_of(seen, forks[0])
        if value - math.log(known / len(forks)) >= bar(ALPHA):
            return number
    return None


def main() -> None:
    """Two tables."""
    corpus = Path(sys.argv[1])
    print(
        "| variant | streams | decided within 40 | median outputs | KL, nats a token |\n|---|---|---|---|---|"
    )
    for variant in VARIANTS:
        blocks = read_blocks(corpus, variant.name, "seed")
        streams = list(aggregates(blocks, STREAM))
        stops = [stop(one, [variant.name], (PLAIN,), len(VARIANTS)) for one in streams]
        decided = [s for s in stops if s is not None]
        middle = statistics.median(s if s is not None else math.inf for s in stops) if stops else math.nan
        gains = [float((o.forks[variant.name] - o.authentic.logp).sum()) for s in streams for o in s]
        tokens = sum(len(o.authentic.logp) for s in streams for o in s)
        low, high = clopper_pearson(len(decided), len(stops))
        shown = f"{len(decided)} ({low:.2f}-{high:.2f}) | {middle:g} | {sum(gains) / max(1, tokens):.4f}"
        print(f"| {variant.name} | {len(stops)} | {shown} |", flush=True)
    print("\n| cell | hypothesis | streams of 40 | alarms | upper bound |\n|---|---|---|---|---|", flush=True)
    cells: dict[str, list[Block]] = defaultdict(list)
    for path in tested(corpus):
        _, cell, number = path.stem.split("--")
        if path.with_suffix(f".under-{FORKS[family(corpus)][-1]}.npz").exists():
            cells[cell].append(scored_under(corpus, path, cell, int(number)))
    for cell, blocks in cells.items():
        for name, settings in (("declared temperature 1", (PLAIN,)), ("undeclared", UNDECLARED)):
            hits = streams = 0
            for outputs in aggregates(blocks, STREAM):
                sampling = Sampling(temperature=1.0) if len(settings) == 1 else Sampling()
                told = [replace(one, output=replace(one.output, sampling=sampling)) for one in outputs]
                forks = tuple(told[0].forks)
                streams += 1
                hits += stop(told, forks, settings, len(forks)) is not None
            print(f"| {cell} | {name} | {streams} | {hits} | {upper(hits, streams):.4f} |", flush=True)


def scored_under(corpus: Path, path: Path, cell: str, number: int) -> Block:
    """An authentic block with its scores under the forks of `cross`."""
    (block,) = [one for one in read_blocks(corpus, "authentic", cell) if one.number == number]
    ends = np.cumsum([len(one.authentic.logp) for one in block.outputs])[:-1]
    under: dict[str, list[np.ndarray]] = {}
    for fork in FORKS[family(corpus)]:
        with np.load(path.with_suffix(f".under-{fork}.npz")) as arrays:
            under[fork] = np.split(arrays["logp"], ends)
    outputs = [
        replace(one, forks={fork: parts[i] for fork, parts in under.items()})
        for i, one in enumerate(block.outputs)
    ]
    return replace(block, outputs=tuple(outputs))


if __name__ == "__main__":
    main()
