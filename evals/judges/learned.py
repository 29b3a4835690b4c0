"""The learned part of the built-in judge: a linear model over `features`, read from JSON.

Trained by `benchmarks/train_judge.py` on `data/`, which is ours. No pickle, no library: a sum.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from evals.judges.features import features

SHIPPED: Final = Path(__file__).parent / "data" / "model.json"
SCHEMA = "forkwatch.judge-model/1"


@dataclass(frozen=True, slots=True)
class Model:
    """A logistic regression over binary features."""

    vocabulary: frozenset[str]
    intercept: float
    weights: Mapping[str, float]
    """Log-odds of a refusal, by feature."""
    digest: str
    """`sha256:<hex>` of the file."""

    def refusal(self, prompt: str, answer: str) -> float:
        """Probability that the answer refuses, as the training data has it."""
        found = features(prompt, answer, self.vocabulary)
        linear = self.intercept + math.fsum(self.weights.get(name, 0.0) for name in found)
        return _logistic(linear)


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, value))))


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
        digest=f"sha256:{hashlib.sha256(raw).hexdigest()}",
    )
