"""The likelihood-ratio e-process on the corpus: outputs to a decision, and alarms where nothing was modified.

    python -m benchmarks.attribution.ratios CORPUS

One output a prompt, in random order; `authentic` streams are scored under the forks of `cross`, and the
e-value is the product's mixture over them, under the setting of the cell or, as if nobody had said it, all of
the composite.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.attribution.corpus import Block, aggregates, read_blocks
from benchmarks.attribution.cross import FORKS, family, tested
from benchmarks.attribution.sampler import FIELDS
from benchmarks.attribution.tables import upper
from benchmarks.attribution.variants import VARIANTS
from detector.outputs.evaluation import clopper_pearson
from detector.outputs.evalues import bar
from detector.outputs.interface import ALPHA, ScoredOutput, TokenScores
from detector.outputs.likelihood import (
    EPSILONS,
    PLAIN,
    UNDECLARED,
    Setting,
    likelihoods,
    log_e,
    log_e_of,
    mixed,
    nothing,
    upper_logp,
)
from detector.outputs.nuisance import temperature_of

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
    numbers: dict[str, set[int]] = defaultdict(set)
    for path in tested(corpus):
        if all(path.with_suffix(f".under-{fork}.npz").exists() for fork in FORKS[family(corpus)]):
            _, cell, number = path.stem.split("--")
            numbers[cell].add(int(number))
    for cell, those in numbers.items():
        blocks = [one for one in read_blocks(corpus, "authentic", cell) if one.number in those]
        for name, settings in hypotheses(cell).items():
            hits = streams = 0
            for block in blocks:
                found = alarms(block, under(corpus, block), settings)
                hits, streams = hits + int(found.sum()), streams + len(found)
            print(f"| {cell} | {name} | {streams} | {hits} | {upper(hits, streams):.4f} |", flush=True)


def hypotheses(cell: str) -> dict[str, tuple[Setting, ...]]:
    """What is held against a cell: its setting where outputs say it, else all that is possible."""
    temperature = temperature_of(cell)
    told = Setting(temperature=temperature or 1.0, top_p=0.9 if cell == "top-p-0.9" else 1.0)
    return {f"declared, {told.name}": (told,), "undeclared": UNDECLARED}


def under(corpus: Path, block: Block) -> dict[str, np.ndarray]:
    """Log-probabilities of all tokens of a block under the forks of `cross`."""
    found = {}
    for fork in FORKS[family(corpus)]:
        path = corpus / "raw" / f"{block.model}--{block.cell}--{block.number:03}.under-{fork}.npz"
        with np.load(path) as arrays:
            found[fork] = arrays["logp"].astype(np.float64)
    return found


def alarms(block: Block, forks: Mapping[str, np.ndarray], settings: Sequence[Setting]) -> np.ndarray:
    """Of each stream of 40 outputs, whether the e-value ever decides; it is looked at after every output.

    As `likelihoods` does it, for all tokens of a block at once.
    """
    parts = [one.authentic for one in block.outputs]
    lengths = np.array([len(part.logp) for part in parts])
    tokens = TokenScores(*(np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS))
    logp = np.minimum(tokens.logp.astype(np.float64), 0.0)
    bets = [mixed(logp, np.minimum(logq, 0.0), epsilon) for logq in forks.values() for epsilon in EPSILONS]
    columns = np.array(bets + [upper_logp(tokens, setting) for setting in settings])
    ends = np.concatenate([np.zeros((len(columns), 1)), columns.cumsum(axis=1)], axis=1)[
        :, [0, *lengths.cumsum()]
    ]
    row = {id(one): number for number, one in enumerate(block.outputs)}
    streams = list(aggregates([block], STREAM))
    found = np.zeros(len(streams), bool)
    for number, outputs in enumerate(streams):
        sums = np.diff(ends, axis=1)[:, [row[id(one)] for one in outputs]].cumsum(axis=1)
        log_e_values = (
            np.logaddexp.reduce(sums[: len(bets)]) - np.log(len(bets)) - sums[len(bets) :].max(axis=0)
        )
        found[number] = (log_e_values >= bar(ALPHA)).any()
    return found


if __name__ == "__main__":
    main()
