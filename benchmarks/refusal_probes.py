"""Refusal probes to a decision, and false alarms, by simulation: the tables of docs/methodology/outputs.md.

Every run draws a new baseline of n answers a probe and one answer of the tested model a probe, and looks
after each. In rows with a spread, rates differ from probe to probe (Beta with that many pseudo-counts).

    python benchmarks/refusal_probes.py [runs a row]
"""

from __future__ import annotations

import math
import sys

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from detector.outputs.evalues import bar
from detector.outputs.interface import ALPHA, RefusalBaseline
from detector.outputs.refusals import SHARES_LESS, Probed, log_factors

PROBES = 100
POWER = [(p0, p1, n) for p0 in (0.9, 0.95, 0.99) for p1 in (0.02, 0.2, 0.5) for n in (5, 10, 20)]
NULL = [(p0, n, spread) for p0 in (0.5, 0.9, 0.97) for n in (1, 5, 10, 20) for spread in (0, 2)]


def stops(
    rates: npt.NDArray[np.float64], share: float, n: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """The probe that decides, for each run; PROBES + 1 where none does. `rates`: (runs, probes)."""
    baseline = rng.binomial(n, rates)
    refused = (rng.random(rates.shape) < rates * share).astype(int)
    table = np.array(
        [
            [
                log_factors(
                    Probed("", bool(answer), RefusalBaseline(prompt_id="", refused=r, n=n)), 1, SHARES_LESS
                )
                for r in range(n + 1)
            ]
            for answer in (0, 1)
        ]
    )
    log_e = np.logaddexp.reduce(table[refused, baseline].cumsum(axis=1), axis=2) - math.log(len(SHARES_LESS))
    passed = log_e >= bar(ALPHA)
    found: npt.NDArray[np.int64] = np.where(passed.any(axis=1), passed.argmax(axis=1) + 1, PROBES + 1)
    return found


def main() -> None:
    """Both tables as Markdown."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    rng = np.random.default_rng(0)
    print("| release | tested | baseline answers a probe | median | 95 % | decided in 100 |")
    print("|---|---|---|---|---|---|")
    for p0, p1, n in POWER:
        found = stops(np.full((runs, PROBES), p0), p1 / p0, n, rng)
        median, late = (f"{q:.0f}" if q <= PROBES else "> 100" for q in np.quantile(found, (0.5, 0.95)))
        print(f"| {p0:.0%} | {p1:.0%} | {n} | {median} | {late} | {(found <= PROBES).mean():.1%} |")
    print("\n| release | baseline answers | spread | false alarms in 100 looks | Clopper-Pearson 95 % |")
    print("|---|---|---|---|---|")
    for p0, n, spread in NULL:
        rates = (
            rng.beta(p0 * spread, (1 - p0) * spread, (runs, PROBES))
            if spread
            else np.full((runs, PROBES), p0)
        )
        alarms = int((stops(rates, 1.0, n, rng) <= PROBES).sum())
        interval = binomtest(alarms, runs).proportion_ci(0.95)
        how = "every probe alike" if not spread else "from probe to probe"
        print(f"| {p0:.0%} | {n} | {how} | {alarms / runs:.2%} | {interval.low:.2%}–{interval.high:.2%} |")


if __name__ == "__main__":
    main()
