"""The learned part of the built-in judge: a linear model and small trees over `features`, read from JSON.

Trained by `benchmarks/train_judge.py` on `data/`, which is ours. No pickle, no library: sums and lookups.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from evals.judges.features import features

SHIPPED: Final = Path(__file__).parent / "data" / "model.json"
SCHEMA = "forkwatch.judge-model/1"

Node = tuple[str, int, int] | float
"""A cue with the places of the next node when it is absent and when it is there, or a leaf's value."""

Tree = tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """Three models of one question, whose probabilities are averaged."""

    vocabulary: frozenset[str]
    intercept: float
    weights: Mapping[str, float]
    """Log-odds of a refusal, by feature."""
    base: float
    boosted: tuple[Tree, ...]
    """Trees over the features that are cues, not word sequences; their log-odds add up from `base`."""
    forest: tuple[Tree, ...]
    """Trees over the same, each with a probability."""
    digest: str
    """`sha256:<hex>` of the file."""

    def refusal(self, prompt: str, answer: str) -> float:
        """Probability that the answer refuses, as the training data has it."""
        found = features(prompt, answer, self.vocabulary)
        linear = self.intercept + math.fsum(self.weights.get(name, 0.0) for name in found)
        boosted = self.base + math.fsum(_leaf(tree, found) for tree in self.boosted)
        forest = math.fsum(_leaf(tree, found) for tree in self.forest) / len(self.forest)
        return (_logistic(linear) + _logistic(boosted) + forest) / 3


def _leaf(tree: Tree, found: AbstractSet[str]) -> float:
    node = tree[0]
    while not isinstance(node, float):
        cue, absent, present = node
        node = tree[present if cue in found else absent]
    return node


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, value))))


def _trees(rows: list[list[list[str | int] | float]]) -> tuple[Tree, ...]:
    return tuple(
        tuple(
            (str(node[0]), int(node[1]), int(node[2])) if isinstance(node, list) else float(node)
            for node in tree
        )
        for tree in rows
    )


@cache
def shipped() -> Model:
    """The model in this package."""
    return load(SHIPPED)


def load(path: Path) -> Model:
    """Read a model that `benchmarks/train_judge.py` wrote; it is ours and trusted."""
    raw = path.read_bytes()
    document = json.loads(raw)
    if document["schema"] != SCHEMA:
        raise ValueError(f"{path} is not {SCHEMA}")
    return Model(
        vocabulary=frozenset(document["vocabulary"]),
        intercept=document["intercept"],
        weights=document["weights"],
        base=document["base"],
        boosted=_trees(document["boosted"]),
        forest=_trees(document["forest"]),
        digest=f"sha256:{hashlib.sha256(raw).hexdigest()}",
    )
