"""Known forks as witnesses of one that is left out: outputs to power .8, beside RUT, MMD and the head alone.

    python -m benchmarks.attribution.witnesses CORPUS BLOCK [REPOS UNTIL]

With REPOS first scores what is not scored yet: the first answers of each counted fork's block BLOCK (0: the
one that the statistic was chosen on, 1: fresh), and the release's that they are compared with.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.attribution import swap
from benchmarks.attribution.corpus import Block, halves, read_blocks
from benchmarks.attribution.evaluate import CELLS, _share
from benchmarks.attribution.features import FAMILY, sample_of, table_of
from benchmarks.attribution.generate import HALF, Worker
from benchmarks.attribution.sampler import score
from benchmarks.attribution.tables import needed
from benchmarks.attribution.variants import VARIANTS
from detector.outputs.interface import ALPHA, ScoredOutput
from detector.outputs.permutation import permutation_p
from detector.outputs.ranks import log_rank
from detector.outputs.ratios import log_ratios
from detector.outputs.table import Table
from detector.outputs.training import fit_scores, fit_settings

WITNESSES = ("lora-pirate", "lora-formal", "storyteller", "unfiltered", "concept-direction")
COUNTED = (
    "storyteller-merged", "lora-pirate", "lora-formal", "storyteller", "full-formal", "concept-direction",
    "merge-two-loras", "freestyle", "unfiltered-formal", "int4-g64", "q4-g32", "pruned-30",
)  # fmt: skip
"""Forks that the better rival finds within 40 outputs."""
LINEAGES = (
    {"lora-formal", "lora-formal-quarter", "full-formal", "merge-two-loras", "unfiltered-formal"},
    {"lora-pirate", "lora-small-step", "full-small-step", "merge-two-loras"},
    {"storyteller", "storyteller-merged", "storyteller-tail", "merge-storyteller-half"},
    {"unfiltered", "freestyle", "nightjar", "merge-base-half", "unfiltered-formal"},
    {"concept-direction", "concept-direction-mild"},
)
"""Forks with the same training data or weights in them."""
LEFT_OUT = ("fork", "family", "lineage")
EACH = 2
"""Answers to a prompt of a fork under test."""
COMPARED = {1: 8, 2: 4}
"""Block of the release to answers a prompt that are scored under witnesses."""
REFERENCE = slice(1, 5)
"""Blocks of the release that RUT, MMD and the head alone compare with."""
SIZES = (1, 2, 3, 5, 7, 10, 14, 20, 28, 40)
DEALS = 24
DRAWS = 10_000

Rows = Mapping[str, np.ndarray]
"""Prompt to values, (answers, columns)."""


def left_out(model: str, how: str) -> set[str]:
    """Models that neither teach a head nor are witnesses where `model` is under test."""
    found = {model}
    if how != "fork":
        found |= {name for name, family in FAMILY.items() if family == FAMILY[model]}
    if how == "lineage":
        found |= set().union(*(line for line in LINEAGES if model in line))
    return found


def first(block: Block, each: int) -> list[ScoredOutput]:
    """The first answers to every prompt, prompt by prompt."""
    return [one for those in block.by_prompt.values() for one in those[:each]]


def scores_at(corpus: Path, block: Block, fork: str) -> Path:
    """Where log-probabilities of the first answers under a fork lie."""
    return corpus / "raw" / f"{block.model}--{block.cell}--{block.number:03}.witness-{fork}.npz"


def score_all(repos: Path, corpus: Path, blocks: Iterable[tuple[Block, int]], until: float) -> None:
    """Write what is not there yet, witness by witness."""
    worker, those = Worker(repos, corpus), list(blocks)
    chats = [worker.chat(prompt) for prompt in worker.prompts.values()]
    for fork in WITNESSES:
        for block, each in those:
            path = scores_at(corpus, block, fork)
            if path.exists() or time.time() > until:
                continue
            ids = [worker.tokens(one.output.text or "") for one in first(block, each)]
            grouped = [ids[i : i + each] for i in range(0, len(ids), each)]
            parts = []
            for start in range(0, len(chats), HALF):
                half = slice(start, start + HALF)
                found = score(worker.model(fork), chats[half], grouped[half], worker.stop, full=False)
                parts += [part[0] for part in found]
            np.savez_compressed(path, logp=np.concatenate(parts), lengths=np.array([len(p) for p in parts]))


def witnessed(corpus: Path, block: Block, each: int) -> list[ScoredOutput]:
    """The first answers, with their scores under every witness."""
    outputs = first(block, each)
    forks: list[dict[str, np.ndarray]] = [{} for _ in outputs]
    for fork in WITNESSES:
        with np.load(scores_at(corpus, block, fork)) as arrays:
            parts = np.split(arrays["logp"], np.cumsum(arrays["lengths"])[:-1])
        for own, part in zip(forks, parts, strict=True):
            own[fork] = part
    made = (ScoredOutput(one.output, one.authentic, own) for one, own in zip(outputs, forks, strict=True))
    return [one for one in made if len(one.authentic.logp)]


class Heads:
    """Heads of the plain setting by what was left out, and their log-odds."""

    def __init__(self, corpus: Path) -> None:
        cells = {cell: read_blocks(corpus, "authentic", cell)[:1] for cell in CELLS}
        samples = [
            sample_of(blocks if cell == "seed" else [halves(blocks[0])[0]])
            for cell, blocks in cells.items()
            if blocks
        ]
        forks = (read_blocks(corpus, variant.name, "seed")[:1] for variant in VARIANTS)
        self.table: Table = table_of([*samples, *(sample_of(blocks) for blocks in forks if blocks)])
        self.held: dict[frozenset[str], tuple[object, object]] = {}

    def odds(self, outputs: Sequence[ScoredOutput], out: Iterable[str]) -> np.ndarray:
        """Log-odds of each output by the head that saw none of `out`."""
        key = frozenset(out)
        if key not in self.held:
            rows = np.flatnonzero(~np.isin(self.table.model, sorted(key)))
            table = self.table.take(rows)
            scores = fit_scores(table)
            assert scores is not None
            self.held[key] = scores[0], fit_settings(table, scores[0])["seed"]
        standard, head = self.held[key]
        table = table_of([sample_of([Block("authentic", "seed", 0, tuple(outputs))])])
        features = standard.apply(table.scores, table.prompt.tolist())  # type: ignore[attr-defined]
        found: np.ndarray = head.dense(features)[:, 0]  # type: ignore[attr-defined]
        return found


def by_prompt(outputs: Sequence[ScoredOutput], values: np.ndarray) -> Rows:
    """As many rows of each prompt."""
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    for one, row in zip(outputs, values, strict=True):
        found[one.output.prompt_id].append(row)
    least = min(map(len, found.values()))
    return {prompt: np.array(rows[:least]) for prompt, rows in found.items()}


def joint_p(rows: np.ndarray) -> float:
    """`ratios.ratio_test` for one answer a prompt, (prompts, answers, columns), the served one first."""
    spread = rows.std(axis=1, keepdims=True)
    standard = (rows - rows.mean(axis=1, keepdims=True)) / np.where(spread > 1e-9, spread, 1)
    shifts = standard[np.arange(len(rows)), swap.picks(*rows.shape[:2])].sum(axis=1)
    both = shifts[:, :1] + shifts[:, 1:]
    return permutation_p((both / both.std(axis=0)).max(axis=1))


class Trial:
    """What every fork under test is compared with."""

    def __init__(self, corpus: Path) -> None:
        self.corpus, self.heads = corpus, Heads(corpus)
        release = read_blocks(corpus, "authentic", "seed")
        self.release = [o for block in release[REFERENCE] for o in block.outputs if len(o.authentic.logp)]
        self.compared = [o for n, each in COMPARED.items() for o in witnessed(corpus, release[n], each)]
        ranks = np.array([[log_rank(one.authentic)] for one in self.release])
        self.ranks = {prompt: rows[:, 0] for prompt, rows in by_prompt(self.release, ranks).items()}
        texts = by_prompt(self.release, np.array([one.output.text or "" for one in self.release], object))
        self.texts = {prompt: rows.tolist() for prompt, rows in texts.items()}

    def p_values(self, block: Block) -> dict[str, np.ndarray]:
        """Test to p-values, (deals, sizes); nested sets of different prompts."""
        outputs = witnessed(self.corpus, block, EACH)
        odds, rows, reference = {}, {}, {}
        for how in LEFT_OUT:
            out = left_out(block.model, how)
            known = [fork for fork in WITNESSES if fork not in out]
            odds[how] = self.heads.odds(outputs, out)
            plain = by_prompt(self.release, self.heads.odds(self.release, out))
            rows[how] = _joined(outputs, odds[how], known)
            joined = _joined(self.compared, self.heads.odds(self.compared, out), known)
            reference[how] = (plain, by_prompt(self.compared, joined))
        kernels = [_share([o.output.text or "", *self.texts[o.output.prompt_id]]) for o in outputs]
        rng = np.random.default_rng(1)
        found: dict[str, np.ndarray] = defaultdict(lambda: np.ones((DEALS, len(SIZES))))
        for deal in range(DEALS):
            dealt = list({outputs[i].output.prompt_id: i for i in rng.permutation(len(outputs))}.values())
            for column, n in enumerate(SIZES):
                chosen = dealt[:n]
                if n == 1 or len(chosen) < n:
                    continue
                prompts = [outputs[i].output.prompt_id for i in chosen]
                own = [(p, log_rank(outputs[i].authentic)) for p, i in zip(prompts, chosen, strict=True)]
                p = {"RUT": swap.p_value(swap.uniformity(swap.stacked(own, self.ranks)))}
                p["MMD-Hamming"] = swap.p_value(swap.hamming(np.array([kernels[i] for i in chosen])))
                for how, (plain, both) in reference.items():
                    pairs = [(q, odds[how][i]) for q, i in zip(prompts, chosen, strict=True)]
                    p[f"head, {how} out"] = swap.p_value(swap.total(swap.stacked(pairs, plain)))
                    stacked = [
                        np.vstack([rows[how][i], both[q]]) for q, i in zip(prompts, chosen, strict=True)
                    ]
                    p[f"witnesses, {how} out"] = joint_p(np.array(stacked))
                for test, value in p.items():
                    found[test][deal, column] = value
        return found


def _joined(outputs: Sequence[ScoredOutput], odds: np.ndarray, known: Sequence[str]) -> np.ndarray:
    ratios = np.array([log_ratios(one, known) for one in outputs]).reshape(len(outputs), -1)
    return np.hstack([odds[:, None], ratios])


def outputs_needed(p: np.ndarray) -> float:
    """Until the power is .8."""
    counts = {
        ("", "", "seed", n): (int((column <= ALPHA).sum()), len(p))
        for n, column in zip(SIZES, p.T, strict=True)
    }
    return needed(counts, "", "")


def main() -> None:
    """A table of ratios to the better rival, and their means with bootstrap intervals over forks."""
    corpus, number = Path(sys.argv[1]), int(sys.argv[2])
    blocks = {name: read_blocks(corpus, name, "seed")[number] for name in COUNTED}
    if len(sys.argv) > 3:
        release = read_blocks(corpus, "authentic", "seed")
        asked = [(release[n], each) for n, each in COMPARED.items()] + [(b, EACH) for b in blocks.values()]
        score_all(Path(sys.argv[3]), corpus, asked, float(sys.argv[4]))
    trial, ratios = Trial(corpus), defaultdict(list)
    for name, block in blocks.items():
        each = {test: outputs_needed(p) for test, p in trial.p_values(block).items()}
        best = min(each["RUT"], each["MMD-Hamming"])
        for test, value in each.items():
            ratios[test].append(min(value, 80) / best)
        print(
            json.dumps({"fork": name} | {test: round(value, 2) for test, value in each.items()}), flush=True
        )
    rng = np.random.default_rng(0)
    for test, values in ratios.items():
        means = rng.choice(values, (DRAWS, len(values))).mean(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        print(f"{test}: {np.mean(values):.3f} ({low:.2f}-{high:.2f})", flush=True)


if __name__ == "__main__":
    main()
