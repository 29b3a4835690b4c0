"""Errors and prompts used of the sequential test, by simulation: the table of docs/methodology/screening.md.

The rule is looked at after every answer, which is worse for its error than looking after a batch. Wrong is
what the rule bounds: saying more loss than there is (alpha), or less (beta).

    python benchmarks/sequential.py [forks simulated a row]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from evals.interface import StopRule
from evals.sequential import Finding, Tally, find

PROMPTS = 120
RATES = (0.97, 0.9, 0.85, 0.7, 0.5, 0.3, 0.03)
WORDS = (Finding.RETAINED, Finding.DEGRADED, Finding.REMOVED, Finding.UNDECIDED)
RULE = StopRule(alpha=0.01, beta=0.01)


@dataclass(frozen=True, slots=True)
class Judge:
    """What the judge in the simulation does, whatever the rule assumes."""

    name: str
    sensitivity: float
    specificity: float


JUDGES = (
    Judge("perfect", 1.0, 1.0),
    Judge("better than stated", 0.93, 0.92),
    Judge("as stated", 0.9, 0.9),
    Judge("misses refusals", 0.8, 0.9),
    Judge("sees refusals that are none", 0.93, 0.75),
)


def findings(prompts: int, rule: StopRule) -> npt.NDArray[np.int64]:
    """What the rule says, as an index into WORDS, by (answers, kept)."""
    table = np.full((prompts + 1, prompts + 1), WORDS.index(Finding.UNDECIDED))
    for n in range(1, prompts + 1):
        for kept in range(n + 1):
            table[n, kept] = WORDS.index(find(Tally(kept, n - kept), rule))
    return table


def stopped(kept: npt.NDArray[np.bool_], table: npt.NDArray[np.int64]) -> tuple[np.ndarray, np.ndarray]:
    """(index into WORDS, prompts used) of each fork, from its answers [forks, prompts]."""
    prompts = kept.shape[1]
    said = table[np.arange(1, prompts + 1), kept.cumsum(axis=1)]
    decided = said != WORDS.index(Finding.UNDECIDED)
    at = np.where(decided.any(axis=1), decided.argmax(axis=1), prompts - 1)
    return said[np.arange(len(kept)), at], at + 1


def wrong(rate: float, rule: StopRule) -> set[Finding]:
    """What the rule may say about such a fork with probability alpha, or beta, at most."""
    words: set[Finding] = set()
    if rate >= rule.kept:
        words |= {Finding.REMOVED, Finding.DEGRADED}
    if rate >= rule.lost:
        words |= {Finding.REMOVED}
    if rate <= rule.kept:
        words |= {Finding.RETAINED}
    if rate <= rule.lost:
        words |= {Finding.RETAINED, Finding.DEGRADED}
    return words


def row(name: str, rate: float, seen: npt.NDArray[np.bool_], table: npt.NDArray[np.int64]) -> str:
    """One line of the table."""
    said, used = stopped(seen, table)
    shares = [float((said == index).mean()) for index in range(len(WORDS))]
    # Alpha bounds one set of words and beta another; at the borders both apply, so each is shown by itself.
    false = {word: int((said == WORDS.index(word)).sum()) for word in wrong(rate, RULE)}
    more = false.get(Finding.REMOVED, 0) + (false.get(Finding.DEGRADED, 0) if rate >= RULE.kept else 0)
    less = false.get(Finding.RETAINED, 0) + (false.get(Finding.DEGRADED, 0) if rate <= RULE.lost else 0)
    errors = [
        f"{count / len(said):.4f} ≤ {binomtest(count, len(said)).proportion_ci(0.95, 'exact').high:.4f}"
        if applies
        else "–"
        for count, applies in ((more, rate >= RULE.lost), (less, rate <= RULE.kept))
    ]
    cells = [name, f"{rate:.2f}", *(f"{share:.3f}" for share in shares), *errors]
    return f"| {' | '.join(cells)} | {used.mean():.1f} | {np.quantile(used, 0.95):.0f} |"


def independent(rate: float, judge: Judge, forks: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Answers as seen by a judge whose errors on the fork are independent of those on the original."""
    truly = rng.random((forks, PROMPTS)) < rate
    hit = np.where(truly, judge.sensitivity, 1 - judge.specificity)
    return rng.random((forks, PROMPTS)) < hit


def alike(rate: float, judge: Judge, forks: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Answers that keep a refusal keep its words, and so its label; the judge errs on the others only."""
    kept = rng.random((forks, PROMPTS)) < rate
    return kept | (rng.random((forks, PROMPTS)) < 1 - judge.specificity)


def uneven(forks: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """A perfect judge; ten topics of twelve kept whole, two lost to a tenth, shuffled: .85 on average."""
    rates = np.repeat([1.0] * 10 + [0.1] * 2, PROMPTS // 12)
    order = np.argsort(rng.random((forks, PROMPTS)), axis=1)
    return rng.random((forks, PROMPTS)) < rates[order]


def main() -> None:
    """Print the table as Markdown."""
    forks = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    rng = np.random.default_rng(0)
    table = findings(PROMPTS, RULE)
    judge = f"judge assumed ≥ {RULE.sensitivity}/{RULE.specificity}"
    print(f"alpha = beta = {RULE.alpha}, kept {RULE.kept}, lost {RULE.lost}, {judge}")
    print(f"{forks} forks a row, {PROMPTS} prompts at most; errors with the upper end of their 95 % interval")
    words = " | ".join(WORDS)
    print(f"| judge | truly kept | {words} | too much said | too little said | mean prompts | p95 |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for judge in JUDGES:
        for rate in RATES:
            print(row(judge.name, rate, independent(rate, judge, forks, rng), table), flush=True)
    stated = JUDGES[2]
    for rate in RATES:
        print(row("as stated, refusals unchanged", rate, alike(rate, stated, forks, rng), table), flush=True)
    print(row("perfect, uneven topics", 0.85, uneven(forks, rng), table))


if __name__ == "__main__":
    main()
