"""Markdown tables from what `evaluate` wrote.

python -m benchmarks.attribution.tables OUT.jsonl
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.attribution.variants import VARIANTS
from detector.outputs.evaluation import clopper_pearson

Count = tuple[int, int]
"""Rejections, and aggregates."""
Counts = Mapping[tuple[str, str, str, int], Count]
"""Test, model, cell, n."""

SHOWN = (
    "mmd-hamming",
    "rank-uniformity",
    "surprise",
    "score-permutation",
    "score-nuisance",
    "seed-head-lofo",
    "seed-head-lofamo",
    "score-head-lofo",
    "score-head-lofamo",
    "seed-nuisance-lofamo",
    "score-nuisance-lofamo",
    "text-head-lofo",
    "text-head-lofamo",
    "likelihood-ratio-of-30",
    "greedy",
    "greedy-int8",
    "first-logprobs",
    "first-logprobs-int8",
)
GREEDY = ("greedy", "greedy-int8", "first-logprobs", "first-logprobs-int8")
RIVALS = ("mmd-hamming", "rank-uniformity")
POWER = 0.8


def upper(hits: int, of: int, level: float = 0.95) -> float:
    """One-sided Clopper-Pearson bound."""
    from scipy.stats import beta

    return 1.0 if hits == of else float(beta.ppf(level, hits + 1, of - hits))


def read(path: Path) -> dict[tuple[str, str, str, int], Count]:
    """Counts; a line that comes twice counts once."""
    rows = map(json.loads, path.read_text().splitlines())
    return {(r["test"], r["model"], r["cell"], r["n"]): (r["rejected"], r["of"]) for r in rows}


def pooled(counts: Counts, test: str, models: Iterable[str], n: int) -> Count:
    """Over models, in the plain cell (or greedy)."""
    found = [counts.get((test, model, "greedy" if test in GREEDY else "seed", n), (0, 0)) for model in models]
    return sum(h for h, _ in found), sum(o for _, o in found)


def cell(count: Count) -> str:
    """`.94 (.85-.98)`."""
    hits, of = count
    if not of:
        return ""
    low, high = clopper_pearson(hits, of)
    return f"{_short(hits / of)} ({_short(low)}-{_short(high)})"


def _short(share: float) -> str:
    return f"{share:.2f}".removeprefix("0") if share < 0.995 else "1"


def families() -> dict[str, list[str]]:
    """Family to variants that should be found; quantisations that count as the release are their own row."""
    found: dict[str, list[str]] = defaultdict(list)
    for variant in VARIANTS:
        found["benign 8-bit" if variant.benign else variant.family].append(variant.name)
    return dict(found)


def power_table(counts: Counts, n: int, tests: Sequence[str] = SHOWN) -> str:
    """Families by tests at one n."""
    lines = ["| family (models) | " + " | ".join(tests) + " |", "|---|" + "---|" * len(tests)]
    for family, models in families().items():
        row = " | ".join(cell(pooled(counts, test, models, n)) for test in tests)
        lines.append(f"| {family} ({len(models)}) | {row} |")
    return "\n".join(lines)


def model_table(counts: Counts, n: int, tests: Sequence[str] = SHOWN) -> str:
    """Variants by tests at one n, shares alone."""
    lines = ["| variant | family | " + " | ".join(tests) + " |", "|---|---|" + "---|" * len(tests)]
    for variant in VARIANTS:
        found = [pooled(counts, test, [variant.name], n) for test in tests]
        row = " | ".join(_short(h / o) if o else "" for h, o in found)
        lines.append(f"| {variant.name} | {variant.family} | {row} |")
    return "\n".join(lines)


def alarm_table(counts: Counts, tests: Sequence[str], model: str = "authentic") -> str:
    """False alarms: cells and n by tests, with the one-sided 95 % upper bound."""
    keys = sorted({(c, n) for _, m, c, n in counts if m == model})
    lines = ["| cell | n | aggregates | " + " | ".join(tests) + " |", "|---|---|---|" + "---|" * len(tests)]
    for name, n in keys:
        found = [counts.get((test, model, name, n), (0, 0)) for test in tests]
        row = " | ".join(f"{_percent(h / o)} (≤ {_percent(upper(h, o))})" if o else "" for h, o in found)
        lines.append(f"| {name} | {n} | {max(o for _, o in found)} | {row} |")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def needed(counts: Counts, test: str, model: str) -> float:
    """Outputs until the power is `POWER`, between sizes by the logarithm; infinite where 40 do not do.

    Where the smallest size that was tried does, it is that size: an upper bound.
    """
    where = "greedy" if test in GREEDY else "seed"
    points = sorted(
        (n, h / o) for (t, m, c, n), (h, o) in counts.items() if (t, m, c) == (test, model, where) and o
    )
    before = (float(points[0][0]) if points else 1.0, 0.0)
    for n, power in points:
        if power >= POWER:
            share = (POWER - before[1]) / (power - before[1])
            return float(math.exp(math.log(before[0]) + share * (math.log(n) - math.log(before[0]))))
        before = (float(n), power)
    return math.inf


def needed_table(counts: Counts, tests: Sequence[str] = SHOWN) -> str:
    """Outputs for power .8 by variant, and the mean ratio to the better rival where that one gets there."""
    lines = ["| variant | " + " | ".join(tests) + " |", "|---|" + "---|" * len(tests)]
    ratios: dict[str, list[float]] = defaultdict(list)
    for variant in VARIANTS:
        values = {test: needed(counts, test, variant.name) for test in tests}
        best = min(values[rival] for rival in RIVALS)
        for test, value in values.items():
            if math.isfinite(best):
                ratios[test].append(value / best)
        row = " | ".join(f"{v:.0f}" if math.isfinite(v) else "> 40" for v in values.values())
        lines.append(f"| {variant.name} | {row} |")
    median = [sorted(ratios[test])[len(ratios[test]) // 2] if ratios[test] else math.nan for test in tests]
    mean = [sum(ratios[test]) / len(ratios[test]) if ratios[test] else math.nan for test in tests]
    lines.append("| median ratio to the better rival | " + " | ".join(f"{x:.2f}" for x in median) + " |")
    lines.append("| mean ratio | " + " | ".join(f"{x:.2f}" for x in mean) + " |")
    return "\n".join(lines)


def main() -> None:
    """Everything to standard output."""
    counts = read(Path(sys.argv[1]))
    for n in (5, 10, 20, 40):
        print(f"\n### Power, n = {n}\n\n{power_table(counts, n)}")
    print(f"\n### By variant, n = 20\n\n{model_table(counts, 20)}")
    print(f"\n### Outputs for power {POWER:g}\n\n{needed_table(counts)}")
    print(
        "\n### False alarms\n\n"
        + alarm_table(counts, [test for test in SHOWN if test not in GREEDY and "ratio" not in test])
    )


if __name__ == "__main__":
    main()
