"""False alarms on the short answers of `short`: disjoint sets in every cell, 1,000 of five.

    python -m benchmarks.attribution.short_alarms CORPUS SHORT N...

CORPUS is that of `generate`: its forks' first eight tokens teach the heads. Of every cell of SHORT the first
block teaches. The next 16 are two halves of eight: sets of each are compared with three blocks of the other
half (96 answers a prompt; four for n = 1, as one of 97 is not 1 %). So the sets are disjoint, and none shares
an output with what it is compared with; but each reference serves half of the sets, and its outputs are in
sets of the other half. Sets of more than ten hold several answers to a prompt, by the head alone.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.attribution import swap
from benchmarks.attribution.corpus import Block, aggregates, read_blocks
from benchmarks.attribution.evaluate import _PLAIN, _share
from benchmarks.attribution.features import Folds, log_odds, sample_of, table_of
from benchmarks.attribution.short import DRAWS, PROMPTS, TOKENS
from benchmarks.attribution.tables import upper
from benchmarks.attribution.variants import VARIANTS
from detector.outputs.comparable import cut
from detector.outputs.features import score_features
from detector.outputs.heads import head_test
from detector.outputs.interface import ALPHA, ScoredOutput
from detector.outputs.nuisance import setting_of

TAUGHT, HALF, COMPARED, COMPARED_ALONE, ALONE = 1, 8, 3, 4, 2
"""Blocks that teach, are half of the rest, are compared with, are so for n = 1, and are tested of a half for
n = 1, which gives 1,280 sets."""
TESTS = ("MMD-Hamming", "RUT", "score test", "head, plain", "head, all cells")
Values = Mapping[str, np.ndarray]
"""Prompt id to a row an answer."""


def by_prompt(blocks: Sequence[Block]) -> dict[str, list[ScoredOutput]]:
    """Answers with a token, as many to every prompt."""
    found: dict[str, list[ScoredOutput]] = defaultdict(list)
    for block in blocks:
        for one in block.outputs:
            if len(one.authentic.logp):
                found[one.output.prompt_id].append(one)
    least = min(map(len, found.values()))
    return {prompt: rows[:least] for prompt, rows in found.items()}


class Tests:
    """Everything that does not depend on what is tested."""

    def __init__(self, corpus: Path, cells: Mapping[str, list[Block]]) -> None:
        """Teach the heads."""
        prompts = set(cells["seed"][0].by_prompt)
        samples = [sample_of(blocks[:TAUGHT]) for blocks in cells.values()]
        for variant in VARIANTS:
            for block in read_blocks(corpus, variant.name, "seed"):
                outputs = tuple(cut(o, TOKENS) for o in block.outputs if o.output.prompt_id in prompts)
                samples.append(sample_of([replace(block, outputs=outputs)]))
        self.heads = Folds(table_of(samples), texts=False).without("fork", "none")

    def compare_with(self, cells: Mapping[str, list[Block]]) -> None:
        """Take these blocks of every cell for the reference."""
        self.references = {cell: by_prompt(blocks) for cell, blocks in cells.items()}
        plain = self.references["seed"]
        self.texts = {prompt: [o.output.text or "" for o in rows] for prompt, rows in plain.items()}
        self.plain = {name: _each(plain, function) for name, function in _PLAIN.items()}
        self.features = {
            cell: _each(rows, lambda one: score_features(one.authentic))
            for cell, rows in self.references.items()
        }
        self.odds = {cell: self.odds_of(rows, setting_of(cell)) for cell, rows in self.references.items()}

    def odds_of(self, rows: Mapping[str, list[ScoredOutput]], setting: str) -> Values:
        """Log-odds against a setting."""
        return {prompt: self.values(outputs)[setting] for prompt, outputs in rows.items()}

    def values(self, outputs: Sequence[ScoredOutput]) -> Mapping[str, np.ndarray]:
        """Log-odds by setting."""
        block = Block("authentic", "seed", 0, tuple(outputs))
        return log_odds(self.heads, table_of([sample_of([block])]))

    def rejected(
        self, aggregate: Sequence[ScoredOutput], odds: Sequence[Mapping[str, float]]
    ) -> dict[str, bool]:
        """Test to whether it rejects."""
        prompts = [one.output.prompt_id for one in aggregate]
        pairs = list(zip(prompts, aggregate, strict=True))
        found = {
            "RUT": swap.uniformity(_stack(pairs, _PLAIN["rank"], self.plain["rank"])),
            "MMD-Hamming": swap.hamming(
                np.array([_share([one.output.text or "", *self.texts[prompt]]) for prompt, one in pairs])
            ),
        }
        p = {name: swap.p_value(value) for name, value in found.items()}
        rows = [np.vstack([score_features(o.authentic), self.features["seed"][q]]) for q, o in pairs]
        p["score test"] = swap.score_p(np.array(rows))
        each = {}
        for cell, reference in self.odds.items():
            own = [(q, one[setting_of(cell)]) for q, one in zip(prompts, odds, strict=True)]
            each[cell] = swap.p_value(swap.total(swap.stacked(own, reference)))
        p["head, plain"], p["head, all cells"] = each["seed"], max(each.values())
        return {name: value <= ALPHA for name, value in p.items()}


def _each(rows: Mapping[str, list[ScoredOutput]], function: Callable[[ScoredOutput], object]) -> Values:
    return {prompt: np.array([function(one) for one in those]) for prompt, those in rows.items()}


def _stack(
    pairs: Sequence[tuple[str, ScoredOutput]], function: Callable[[ScoredOutput], float], reference: Values
) -> np.ndarray:
    return swap.stacked([(prompt, function(one)) for prompt, one in pairs], reference)


def main() -> None:
    """A table."""
    corpus, short = Path(sys.argv[1]), Path(sys.argv[2])
    cells = {cell: read_blocks(short, "authentic", cell) for cell in DRAWS}
    tests = Tests(corpus, cells)
    print("| cell | n | sets | " + " | ".join(TESTS) + " |\n|---|---|---|" + "---|" * len(TESTS), flush=True)
    halves = [
        {cell: blocks[start : start + HALF] for cell, blocks in cells.items()}
        for start in (TAUGHT, TAUGHT + HALF)
    ]
    for n in map(int, sys.argv[3:]):
        hits: dict[str, dict[str, int]] = {cell: defaultdict(int) for cell in cells}
        counts: dict[str, int] = defaultdict(int)
        for tested, other in (halves, halves[::-1]):
            compared = COMPARED_ALONE if n == 1 else COMPARED
            tests.compare_with({cell: blocks[:compared] for cell, blocks in other.items()})
            count = alarms if n <= PROMPTS else alarms_of_heads
            for cell, blocks in tested.items():
                chosen = blocks[:ALONE] if n == 1 else blocks
                counts[cell] += count(tests, chosen, n, hits[cell])
        for cell, count in counts.items():
            shown = (
                f"{hits[cell][t]} ({hits[cell][t] / count:.1%}, ≤ {upper(hits[cell][t], count):.1%})"
                if t in hits[cell]
                else ""
                for t in TESTS
            )
            print(f"| {cell} | {n} | {count} | " + " | ".join(shown).replace("%", " %") + " |", flush=True)


def alarms(tests: Tests, blocks: Sequence[Block], n: int, hits: dict[str, int]) -> int:
    """Counts rejections by test; the number of sets, of which no answer is in two."""
    count = 0
    for block in blocks:
        outputs = [one for one in block.outputs if len(one.authentic.logp)]
        values = tests.values(outputs)
        odds = {
            id(one): {name: float(column[row]) for name, column in values.items()}
            for row, one in enumerate(outputs)
        }
        for aggregate in aggregates([block], n):
            if len(aggregate) == n:
                count += 1
                for test, differs in tests.rejected(aggregate, [odds[id(o)] for o in aggregate]).items():
                    hits[test] += differs
    return count


def alarms_of_heads(tests: Tests, blocks: Sequence[Block], n: int, hits: dict[str, int]) -> int:
    """The same where a set holds several answers to each prompt, by the product's own test."""
    each, count = n // PROMPTS, 0
    for block in blocks:
        rows = by_prompt([block])
        odds = {setting: tests.odds_of(rows, setting) for setting in {*map(setting_of, tests.odds)}}
        for start in range(0, min(map(len, rows.values())) - each + 1, each):
            count += 1
            p = {}
            for cell, reference in tests.odds.items():
                served = {q: v[start : start + each] for q, v in odds[setting_of(cell)].items()}
                p[cell] = head_test(reference, served).p_value or 0.0
            hits["head, plain"] += p["seed"] <= ALPHA
            hits["head, all cells"] += max(p.values()) <= ALPHA
    return count


if __name__ == "__main__":
    main()
