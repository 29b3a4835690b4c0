"""What a classifier sees of an output: 21 numbers from its scores, 4 from its looks (n-grams: `ngrams.py`).

Scores are standardised within the prompt, against what the authentic model's own answers to that prompt
score: what is left is how an answer differs from an authentic one, and not which prompt it answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from detector.outputs.interface import TokenScores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

PIT_BINS = 10
SCORE_FEATURES = (
    "mean-logp",
    "mean-surprise",
    "mean-entropy",
    "mean-log-rank",
    "top-1",
    "rank-100",
    "squared-surprise",
    "first-logp",
    "residual-z",
    "mean-variance",
    "least-logp",
    *(f"pit-{i}" for i in range(PIT_BINS)),
)
"""Surprise is log-probability plus entropy, of mean 0 for the authentic model at temperature 1. `residual-z`
is its sum over the root of the summed variances. `pit-i`: share of the probability integral transform in the
i-th tenth."""
LOOK_FEATURES = ("log-characters", "list-lines", "markup-lines", "refusal-opening")

LIMIT = 8.0
"""Standardised features are clipped here: one absurd token must not outvote the rest."""
MIN_ANSWERS = 4
"""Authentic answers to a prompt before it gets a mean of its own."""
_PRIOR = 8
"""Answers that the spread over all prompts counts for in the spread of one."""

_LIST = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s")
_MARKUP = re.compile(r"^\s*#{1,6}\s|\*\*|`|^\s*\|")
_REFUSAL = re.compile(
    r"^\W*(?:i['’]m (?:very )?sorry|i am sorry|sorry|i can(?:['’]t|not|not)|i can not|i won['’]t|i will not|"
    r"i['’]m (?:not able|unable)|i am (?:not able|unable)|i must decline|as an ai|unfortunately)\b",
    re.IGNORECASE,
)


def score_features(scores: TokenScores) -> Floats:
    """The numbers that `SCORE_FEATURES` names, (21,); not standardised.

    Raises:
        ValueError: there is no token, or a score is not finite.
    """
    arrays = (scores.logp, scores.entropy, scores.variance, scores.rank, scores.above)
    logp, entropy, variance, rank, above = (np.asarray(array, np.float64) for array in arrays)
    if not len(logp) or not all(np.isfinite(array).all() for array in (logp, entropy, variance, rank, above)):
        raise ValueError("an output without a token, or with scores that are not finite, has no features")
    surprise = logp + entropy
    plain = (
        logp.mean(),
        surprise.mean(),
        entropy.mean(),
        np.log1p(rank).mean(),
        (rank < 1).mean(),
        (rank >= 100).mean(),
        (surprise**2).mean(),
        logp[0],
        surprise.sum() / np.sqrt(max(variance.sum(), 1e-6)),
        variance.mean(),
        logp.min(),
    )
    return np.concatenate([plain, pit_histogram(logp, above)])


def pit_histogram(logp: Floats, above: Floats) -> Floats:
    """Share of the randomised probability integral transform in each tenth, (10,), in expectation.

    A token covers the interval from `above` to `above + p`, and the transform is uniform on it. Taking the
    overlap with each tenth in place of a draw has the same mean and less variance (Rao-Blackwell; Czado et
    al. 2009), and needs no seed.
    """
    width = np.maximum(np.exp(np.minimum(logp, 0.0)), 1e-9)
    edges = np.arange(1, PIT_BINS) / PIT_BINS
    below = np.clip((edges - above[:, None]) / width[:, None], 0.0, 1.0).mean(axis=0)
    return np.diff(np.concatenate([[0.0], below, [1.0]]))


def look_features(text: str) -> Floats:
    """The numbers that `LOOK_FEATURES` names, (4,)."""
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    listed = sum(_LIST.match(line) is not None for line in lines)
    marked = sum(_MARKUP.search(line) is not None for line in lines)
    refuses = _REFUSAL.match(text) is not None
    return np.array([np.log1p(len(text)), listed / len(lines), marked / len(lines), float(refuses)])


@dataclass(frozen=True, slots=True, eq=False)
class Standard:
    """Means and spreads of features over authentic outputs, overall and by prompt."""

    mean: Floats
    """(features,)"""
    scale: Floats
    """(features,) standard deviation over all outputs, positive."""
    prompts: Mapping[str, int]
    """Prompt id to row of the next two."""
    means: Floats
    """(prompts, features)"""
    scales: Floats
    """(prompts, features) positive."""

    def apply(self, features: Floats, prompts: Sequence[str]) -> Floats:
        """Standardised features, (outputs, features); a prompt that is not known is held against all."""
        rows = np.array([self.prompts.get(prompt, -1) for prompt in prompts], np.int64)
        mean = np.concatenate([self.means, self.mean[None]])[rows]
        scale = np.concatenate([self.scales, self.scale[None]])[rows]
        standardised: Floats = np.clip((features - mean) / scale, -LIMIT, LIMIT)
        return standardised


def fit_standard(features: Floats, prompts: Sequence[str]) -> Standard:
    """Means and spreads of authentic outputs, (outputs, features), which answer these prompts.

    The spread at a prompt is drawn towards the spread within prompts overall, as `_PRIOR` answers would.
    """
    names, rows = np.unique(np.array(prompts, dtype=np.str_), return_inverse=True)
    counts = np.bincount(rows, minlength=len(names))
    means = np.zeros((len(names), features.shape[1]))
    np.add.at(means, rows, features)
    means /= counts[:, None]
    squares = np.zeros_like(means)
    np.add.at(squares, rows, (features - means[rows]) ** 2)
    within = squares.sum(axis=0) / max(1, len(features) - len(names))
    spread = features.std(axis=0)
    scales = np.sqrt((squares + _PRIOR * within) / (counts[:, None] - 1 + _PRIOR))
    kept = np.flatnonzero(counts >= MIN_ANSWERS)
    return Standard(
        mean=features.mean(axis=0),
        scale=_positive(spread),
        prompts={str(names[row]): number for number, row in enumerate(kept)},
        means=means[kept],
        scales=_positive(scales[kept]),
    )


def _positive(scale: Floats) -> Floats:
    """A feature that never varied is measured in units of its own."""
    return np.where(scale > 1e-6, scale, 1.0)
