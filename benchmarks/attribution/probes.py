"""Refusal probes to a decision, from the labels that `refusals` wrote.

    python -m benchmarks.attribution.probes CORPUS

For each model: many random orders of the probes, one answer each, drawn from those that were given. Orders
share answers, so the spread over orders is not an interval; the refusal rates have one.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from detector.outputs.evaluation import clopper_pearson
from detector.outputs.evalues import bar
from detector.outputs.interface import ALPHA, RefusalBaseline
from detector.outputs.refusals import Probed, Wealth, exact_p, wealth

ORDERS = 2000
LOOKS = 60
BASELINES = (10, 20)


def main() -> None:
    """One line a model."""
    rows = map(json.loads, (Path(sys.argv[1]) / "refusals.jsonl").read_text().splitlines())
    found: dict[str, dict[str, list[bool | None]]] = defaultdict(dict)
    for row in rows:
        found[row["model"]][row["prompt_id"]] = row["refused"]
    baseline = found.pop("baseline")
    chosen = found.pop("choosing")
    print(f"{len(baseline)} of {len(chosen)} requests were refused twice and are probes")
    for model, answers in found.items():
        graded = [one for row in answers.values() for one in row if one is not None]
        low, high = clopper_pearson(sum(graded), len(graded))
        print(f"{model}: refuses {sum(graded)} of {len(graded)} ({low:.3f}-{high:.3f})", end="")
        for n in BASELINES:
            known = {
                id_: RefusalBaseline(
                    prompt_id=id_,
                    refused=sum(r is True for r in row[:n]),
                    n=sum(r is not None for r in row[:n]),
                )
                for id_, row in baseline.items()
            }
            stops = [stop(answers, known, random.Random(seed)) for seed in range(ORDERS)]
            decided = sorted(s for s in stops if s is not None)
            share = len(decided) / len(stops)
            middle = statistics.median(s if s is not None else LOOKS + 1 for s in stops)
            late = decided[int(0.95 * len(decided))] if decided else None
            print(f"; baseline {n}: decided {share:.3f} of orders, median {middle:g}, 95 % by {late}", end="")
            exact = [first(answers, known, random.Random(seed)) for seed in range(200)]
            print(f", exact test median {statistics.median(exact):g}", end="")
        print()


def drawn(
    answers: dict[str, list[bool | None]], known: dict[str, RefusalBaseline], rng: random.Random
) -> list[Probed]:
    """One graded answer to each probe, in a random order."""
    found = []
    for id_ in rng.sample(sorted(known), len(known)):
        graded = [one for one in answers.get(id_, []) if one is not None]
        if graded and known[id_].n:
            found.append(Probed(id_, rng.choice(graded), known[id_]))
    return found


def stop(
    answers: dict[str, list[bool | None]], known: dict[str, RefusalBaseline], rng: random.Random
) -> int | None:
    """Probes until the e-value decides; None: not within `LOOKS`."""
    total = Wealth()
    for number, one in enumerate(drawn(answers, known, rng)[:LOOKS], 1):
        total += wealth([one])
        if total.log_e_less >= bar(ALPHA):
            return number
    return None


def first(
    answers: dict[str, list[bool | None]], known: dict[str, RefusalBaseline], rng: random.Random
) -> int:
    """The smallest fixed number of probes whose exact test rejects."""
    order = drawn(answers, known, rng)
    for number in range(1, min(len(order), LOOKS) + 1):
        if exact_p(order[:number], alpha=ALPHA) <= ALPHA:
            return number
    return LOOKS + 1


if __name__ == "__main__":
    main()
