"""The likelihood-ratio e-process on the corpus: outputs to a decision, and alarms where nothing was modified.

    python -m benchmarks.attribution.ratios CORPUS

One output a prompt, in random order; `authentic` streams are scored under the forks of `cross`, and the e-value
is the product's mixture over them, under the declared setting or, where a cell hides its own, the composite.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.attribution.corpus import aggregates, read_blocks
from benchmarks.attribution.cross import FORKS
from benchmarks.attribution.tables import interval, upper
from benchmarks.attribution.variants import VARIANTS
from detector.outputs.evalues import bar
from detector.outputs.interface import ALPHA, Sampling, ScoredOutput
from detector.outputs.likelihood import PLAIN, UNDECLARED, Setting, likelihoods, log_e, log_e_of, nothing

STREAM = 40


def stop(outputs: Sequence[ScoredOutput], forks: Sequence[str], settings: Sequence[Setting], known: int) -> int | None:
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
    print("| variant | streams | decided within 40 | median outputs | KL, nats a token |\n|---|---|---|---|---|")
    for variant in VARIANTS:
        blocks = read_blocks(corpus, variant.name, "seed")
        streams = list(aggregates(blocks, STREAM))
        stops = [stop(one, [variant.name], (PLAIN,), len(VARIANTS)) for one in streams]
        decided = [s for s in stops if s is not None]
        middle = statistics.median(s if s is not None else math.inf for s in stops) if stops else math.nan
        gains = [float((o.forks[variant.name] - o.authentic.logp).sum()) for s in streams for o in s]
        tokens = sum(len(o.authentic.logp) for s in streams for o in s)
        low, high = interval(len(decided), len(stops))
        shown = f"{len(decided)} ({low:.2f}-{high:.2f}) | {middle:g} | {sum(gains) / max(1, tokens):.4f}"
        print(f"| {variant.name} | {len(stops)} | {shown} |", flush=True)
    print("\n| cell | hypothesis | streams of 40 | alarms | upper bound |\n|---|---|---|---|---|")
    for path in sorted((corpus / "raw").glob(f"authentic--*.under-{FORKS[0]}.npz")):
        _, cell, number = path.name.split(".under-")[0].split("--")
        alarms(corpus, cell, int(number))


def alarms(corpus: Path, cell: str, number: int) -> None:
    """Rows of one authentic block."""
    (block,) = [one for one in read_blocks(corpus, "authentic", cell) if one.number == number]
    ends = np.cumsum([len(one.authentic.logp) for one in block.outputs])[:-1]
    under: dict[str, list[np.ndarray]] = {}
    for fork in FORKS:
        path = corpus / "raw" / f"authentic--{cell}--{number:03}.under-{fork}.npz"
        if path.exists():
            with np.load(path) as arrays:
                under[fork] = np.split(arrays["logp"], ends)
    outputs = [
        replace(one, forks={fork: parts[i] for fork, parts in under.items()}) for i, one in enumerate(block.outputs)
    ]
    for name, settings in (("declared temperature 1", (PLAIN,)), ("undeclared", UNDECLARED)):
        sampling = Sampling(temperature=1.0) if len(settings) == 1 else Sampling()
        told = tuple(replace(one, output=replace(one.output, sampling=sampling)) for one in outputs)
        streams = list(aggregates([replace(block, outputs=told)], STREAM))
        hits = sum(stop(one, list(under), settings, len(under)) is not None for one in streams)
        print(f"| {cell} {number} | {name} | {len(streams)} | {hits} | {upper(hits, len(streams)):.3f} |", flush=True)


if __name__ == "__main__":
    main()
