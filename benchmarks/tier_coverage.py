"""Do the intervals of a small tier hold what the full tier finds? The table of docs/methodology/screening.md.

From the full tier's labels of a model, samples as large as the small tier are drawn again and again, topic
by topic as many prompts as the tier has there; counted is how often the interval of the sample holds the
value of the full tier. The last columns are the tier itself, once. The first file is the original, against
which the others are paired. Without files the labels are synthetic.

    python benchmarks/tier_coverage.py [--tier quick] [--repeats 2000] [--suite FILE] [RESULT.json ...]

A file holds a `Behaviour` of the full tier, or an object with one under "behaviour".
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter
from scipy.stats import binomtest

from evals.breakdown import pairs_of
from evals.interface import Label, Measured, Outcome, Prompt, PromptKind, PromptSuite, Tier
from evals.measurements import Behaviour
from evals.metrics import paired_difference, wilson
from evals.suite import CORE, load_suite

Labels = Mapping[str, Label]
Number = Callable[[Sequence[str]], Outcome]
"""A number with its interval, from some prompts."""

SYNTHETIC = {
    "refuses .97": 0.97,
    "refuses .9": 0.9,
    "refuses .7": 0.7,
    "refuses .5": 0.5,
    "refuses .03": 0.03,
}


@dataclass(frozen=True, slots=True)
class Model:
    """Labels of the full tier."""

    name: str
    labels: Labels


def read(path: Path) -> Model:
    """A model from a file."""
    document = json.loads(path.read_bytes())
    behaviour = TypeAdapter(Behaviour).validate_python(document.get("behaviour", document), strict=False)
    return Model(path.stem, dict(behaviour.labels))


def synthetic(suite: PromptSuite, rng: np.random.Generator) -> list[Model]:
    """An original that refuses .97, and forks; within a topic prompts are alike, topics differ (beta, 20)."""
    models = []
    for name, rate in SYNTHETIC.items():
        topics = {prompt.topic for prompt in suite.prompts}
        own = {topic: rng.beta(20 * rate, 20 * (1 - rate)) for topic in sorted(topics)}
        labels = {
            prompt.id: Label.REFUSED
            if rng.random() < (own[prompt.topic] if prompt.kind is PromptKind.HARMFUL else 0.05)
            else Label.COMPLIED
            for prompt in suite.prompts
        }
        models.append(Model(name, labels))
    return models


def rate_of(labels: Labels) -> Number:
    """Refusal rate with Wilson's interval."""

    def number(names: Sequence[str]) -> Outcome:
        graded = [
            labels[name] for name in names if labels.get(name, Label.UNGRADEABLE) is not Label.UNGRADEABLE
        ]
        return wilson(graded.count(Label.REFUSED), len(graded))

    return number


def drop_of(before: Labels, after: Labels) -> Number:
    """Drop of the refusal rate with Newcombe's interval."""
    return lambda names: paired_difference(pairs_of(names, before, after))


def coverage(
    number: Number, prompts: Sequence[Prompt], tier: Tier, repeats: int, rng: np.random.Generator
) -> str:
    """Cells of the table: value of the full tier, share of samples that hold it, and the tier itself."""
    full = number([prompt.id for prompt in prompts])
    if not isinstance(full, Measured):
        return "– | – | – | –"
    strata: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        strata.setdefault(prompt.topic, []).append(prompt)
    sizes = {topic: sum(tier.covers(prompt.tier) for prompt in rows) for topic, rows in strata.items()}
    held = measured = 0
    for _ in range(repeats):
        names = [
            strata[topic][index].id
            for topic, size in sizes.items()
            for index in rng.choice(len(strata[topic]), size=size, replace=False)
        ]
        outcome = number(names)
        if isinstance(outcome, Measured):
            measured += 1
            held += outcome.low <= full.value <= outcome.high
    own = number([prompt.id for prompt in prompts if tier.covers(prompt.tier)])
    low = binomtest(held, measured).proportion_ci(0.95, "exact").low
    shown = f"{own.value:.3f} [{own.low:.3f}, {own.high:.3f}]" if isinstance(own, Measured) else "–"
    holds = isinstance(own, Measured) and own.low <= full.value <= own.high
    samples = f"{held / measured:.4f} ≥ {low:.4f}"
    return f"{full.value:.3f} ({full.n}) | {samples} | {shown} | {'yes' if holds else 'NO'}"


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--tier", type=Tier, default=Tier.QUICK)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--suite", type=Path, default=CORE)
    options = parser.parse_args()
    suite, rng = load_suite(options.suite), np.random.default_rng(0)
    models = [read(path) for path in options.files] or synthetic(suite, rng)
    print(f"{suite.id}@{suite.version}, tier {options.tier}, {options.repeats} samples a row")
    print(
        "| model | number | full tier (n) | samples that hold it ≥ lower 95 % | the tier itself | holds it |"
    )
    print("|---|---|---|---|---|---|")
    harmful, twins = suite.headline(PromptKind.HARMFUL), suite.headline(PromptKind.BENIGN_TWIN)
    for model in models:
        rows = [("refusal", rate_of(model.labels), harmful), ("over-refusal", rate_of(model.labels), twins)]
        if model is not models[0]:
            rows.append(("drop", drop_of(models[0].labels, model.labels), harmful))
        for name, number, prompts in rows:
            cells = coverage(number, prompts, options.tier, options.repeats, rng)
            print(f"| {model.name} | {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
