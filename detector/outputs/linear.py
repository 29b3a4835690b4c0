"""Linear models over outputs in plain numpy: what a stored classifier computes, with or without scikit-learn.

Parameters are float32 as they are stored, sums are float64 in a fixed order, and scores are float32: a
classifier gives the same bits before it is written and after it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from detector.outputs.features import LOOK_FEATURES, look_features
from detector.outputs.ngrams import Counts, count_ngrams

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Scores = NDArray[np.float32]

LOOK_WEIGHT = 0.1
"""Of the looks beside n-grams, whose vector has length 1: four of them, of spread 1, count for a fifth."""


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """A sparse matrix by rows: n-grams that a `TextSpace` knows, weighted, and the looks beside them."""

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    value: Floats
    looks: Floats
    """(texts, 4) standardised."""


@dataclass(frozen=True, slots=True, eq=False)
class TextSpace:
    """Which hashed n-grams count, and how much; and the units of the looks."""

    columns: NDArray[np.int32]
    """(columns,) buckets, ascending."""
    idf: Scores
    """(columns,)"""
    look_mean: Scores
    """(4,)"""
    look_scale: Scores
    """(4,)"""

    @property
    def width(self) -> int:
        """Features of a text."""
        return len(self.columns) + len(LOOK_FEATURES)

    def entries(self, texts: Sequence[str]) -> Entries:
        """Features of texts."""
        looks = np.array([look_features(text) for text in texts]).reshape(len(texts), len(LOOK_FEATURES))
        return self.weigh(count_ngrams(texts), looks)

    def weigh(self, counts: Counts, looks: Floats) -> Entries:
        """Features of counted texts: sublinear term frequency times idf, rows of length 1."""
        place = np.searchsorted(self.columns, counts.bucket)
        place[place == len(self.columns)] = 0
        known = np.zeros(len(place), bool)
        if len(self.columns):
            known = self.columns[place] == counts.bucket
        row, column = counts.row[known], place[known]
        value = (1 + np.log(counts.count[known])) * self.idf[column].astype(np.float64)
        length = np.sqrt(np.bincount(row, value**2, minlength=counts.texts))
        looks = np.clip((looks - self.look_mean) / self.look_scale, -8, 8) * LOOK_WEIGHT
        return Entries(row, column, value / length[row], looks)


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A linear model: one row of coefficients a class, or one row for two classes."""

    coef: Scores
    """(rows, features)"""
    intercept: Scores
    """(rows,)"""

    def dense(self, features: Floats) -> Floats:
        """Linear values of dense features, (outputs, rows). Row by row, so that no batch changes a bit."""
        coef = self.coef.astype(np.float64)
        products = [(features * row).sum(axis=1) for row in coef]
        found: Floats = np.stack(products, axis=1) + self.intercept.astype(np.float64)
        return found

    def text(self, entries: Entries) -> Floats:
        """Linear values of texts, (texts, rows)."""
        texts, looks = len(entries.looks), entries.looks.shape[1]
        coef = self.coef.astype(np.float64)
        columns = [
            np.bincount(entries.row, entries.value * row[entries.column], minlength=texts)
            + (entries.looks * row[-looks:]).sum(axis=1)
            for row in coef
        ]
        found: Floats = np.stack(columns, axis=1) + self.intercept.astype(np.float64)
        return found


def log_shares(values: Floats) -> Floats:
    """Log-probabilities of classes from their linear values, (outputs, classes)."""
    shifted = values - values.max(axis=1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def space_of(counts: Counts, looks: Floats, *, least: int, most: int) -> TextSpace:
    """The n-grams that occur in `least` of the texts, the `most` frequent of them, with smooth idf."""
    frequency = np.bincount(counts.bucket, minlength=1)
    frequent = np.flatnonzero(frequency >= least)
    if len(frequent) > most:
        order = np.lexsort((frequent, -frequency[frequent]))
        frequent = np.sort(frequent[order[:most]])
    idf = np.log((1 + counts.texts) / (1 + frequency[frequent])) + 1
    scale = looks.std(axis=0)
    return TextSpace(
        columns=frequent.astype(np.int32),
        idf=idf.astype(np.float32),
        look_mean=looks.mean(axis=0).astype(np.float32),
        look_scale=np.where(scale > 1e-6, scale, 1.0).astype(np.float32),
    )
