"""What `evaluate_auto` says of simulated forks, and how much it asks: table of docs/methodology/screening.md.

Everything but the model is the program's own: labels are drawn, the child's batches are looked at by its
rule, tiers go on from each other, `compare` decides at their ends. The original refuses 97 % of the suite.

    python benchmarks/screening.py [forks simulated a row]
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from evals.behaviour import Extent, behaviour_of
from evals.interface import EvalRequest, Isolation, Label, Prompt, PromptKind, Tier, Unmeasured
from evals.measurements import Behaviour, EvalResult, SafetyStatus
from evals.screening import evaluate_auto
from evals.sequential import asking_order, stop_reason
from evals.suite import CORE, load_suite

BATCH = 16
"""As in `evals.early`, which imports torch."""

KEPT = (1.0, 0.97, 0.9, 0.85, 0.7, 0.5, 0.3, 0.03)
SUITE = load_suite(CORE)
Labels = Mapping[str, Label]


class Told:
    """A judge that finds its label in the answer."""

    id = "told/1"

    def label(self, prompt: str, answer: str) -> Label:
        """The answer."""
        del prompt
        return Label(answer)


def draw(rate: Callable[[Prompt], float], rng: np.random.Generator) -> Labels:
    """A label for each prompt that is no variant; the others are not in the simulation."""
    asked = [prompt for prompt in SUITE.prompts if not prompt.is_variant]
    return {prompt.id: Label.REFUSED if rng.random() < rate(prompt) else Label.COMPLIED for prompt in asked}


def behaviour(labels: Labels, tier: Tier, stopped: str = "") -> Behaviour:
    """Of what was asked; always as a stopped one, so that variants may be absent."""
    extent = Extent(tier=tier, stopped=stopped or "simulated without variants")
    found = behaviour_of(SUITE, Told(), {name: label.value for name, label in labels.items()}, extent)
    return replace(found, stopped=stopped)


def child(labels: Labels) -> Callable[..., EvalResult]:
    """What the child and its parent do, with these labels for answers."""

    def evaluate(request: EvalRequest, *, progress: Callable[[str], None]) -> EvalResult:
        del progress
        order = asking_order(SUITE, request.tier, 0 if request.stop is None else request.stop.seed)
        end = BATCH if request.known is None else int(request.known.name)
        stopped = ""
        while request.stop is not None:
            asked = [(prompt.id, labels[prompt.id]) for prompt in order[:end]]
            stopped = stop_reason(asked, request.stop)
            if stopped or end >= len(order):
                break
            end += BATCH
        tier = {prompt.id for prompt in SUITE.at(request.tier).prompts}
        names = {prompt.id for prompt in order[:end]} if stopped else tier
        nothing = Unmeasured("simulated")
        return EvalResult(
            behaviour=behaviour(
                {name: label for name, label in labels.items() if name in names}, request.tier, stopped
            ),
            kl_per_token=nothing,
            perplexity_ratio=nothing,
            transcript=Path(str(len(order))),
            isolation=Isolation.SANDBOXED,
            device="cpu",
            seconds=0.0,
        )

    return evaluate


def row(kept: float, forks: int, rng: np.random.Generator) -> str:
    """One line of the table."""
    said: Counter[SafetyStatus] = Counter()
    harmful: list[int] = []
    ended: Counter[Tier] = Counter()
    request = EvalRequest(
        original=Path(), weights=(), suite=CORE, baseline_transcript=None, scratch=Path("simulated")
    )
    ids = {prompt.id for prompt in SUITE.of(PromptKind.HARMFUL)}
    for _ in range(forks):
        original = draw(lambda prompt: 0.97 if prompt.kind is PromptKind.HARMFUL else 0.05, rng)
        fork = {
            name: label
            if name not in ids or label is Label.COMPLIED or rng.random() < kept
            else Label.COMPLIED
            for name, label in original.items()
        }
        found = evaluate_auto(request, behaviour(original, Tier.FULL), evaluator=child(fork))
        said[found.comparison.status] += 1
        ended[found.tier] += 1
        harmful.append(len(found.result.behaviour.harmful))
    shares = [
        f"{said[status] / forks:.3f} ≤ {binomtest(said[status], forks).proportion_ci(0.95, 'exact').high:.3f}"
        for status in SafetyStatus
    ]
    tiers = ", ".join(f"{tier} {ended[tier] / forks:.0%}" for tier in Tier)
    cells = [f"{kept:.2f}", *shares, f"{np.mean(harmful):.0f}", f"{np.quantile(harmful, 0.95):.0f}", tiers]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table as Markdown."""
    forks = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    rng = np.random.default_rng(0)
    print(
        f"{SUITE.id}@{SUITE.version}, {forks} forks a row; shares with the upper end of their 95 % interval"
    )
    print(f"| kept | {' | '.join(SafetyStatus)} | mean harmful prompts | p95 | ended in tier |")
    print("|---|---|---|---|---|---|---|---|")
    for kept in KEPT:
        print(row(kept, forks, rng), flush=True)


if __name__ == "__main__":
    main()
