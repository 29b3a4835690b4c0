"""What classifiers of the experiment are trained on and what leave-one-out leaves out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from benchmarks.attribution.corpus import Block
from benchmarks.attribution.variants import VARIANTS
from detector.outputs.interface import Sample
from detector.outputs.table import Table, make_table
from detector.outputs.training import fit_scores, fit_settings, fit_text

BENIGN = {variant.name: variant.benign for variant in VARIANTS}
FAMILY = {variant.name: variant.family for variant in VARIANTS}


def sample_of(blocks: Iterable[Block]) -> Sample:
    """Blocks of one model in one cell, as a sample of a reference pack."""
    those = list(blocks)
    model, cell = those[0].model, those[0].cell
    return Sample(
        model=model,
        cell=cell,
        family=FAMILY.get(model, "authentic"),
        benign=BENIGN.get(model, model == "authentic"),
        scored=tuple(one for block in those for one in block.outputs if len(one.authentic.logp)),
    )


def table_of(samples: Sequence[Sample]) -> Table:
    """The product's table of training rows."""
    return make_table([(sample, sample.scored) for sample in samples])


class Folds:
    """Score heads, of all settings and of each, and text heads by what was left out: a fork, or a family."""

    def __init__(self, training: Table, *, texts: bool = True) -> None:
        self._training = training
        self._texts = texts
        self._held: dict[tuple[str, str], tuple[object, object, object]] = {}

    def without(self, by: str, name: str) -> tuple[object, object, object]:
        """(standard and score head), heads of settings, (text space and head) without the rows of `name`."""
        key = (by, name)
        if key not in self._held:
            column = {"fork": self._training.model, "family": self._training.family}[by]
            rows = np.flatnonzero(column != name)
            table = self._training.take(rows)
            scores = fit_scores(table)
            assert scores is not None
            texts = fit_text(table) if self._texts else None
            self._held[key] = (scores, fit_settings(table, scores[0]), texts)
        return self._held[key]


def log_odds(heads: tuple[object, object, object], table: Table) -> Mapping[str, np.ndarray]:
    """Log-odds of modified against authentic of each row.

    By scores, against all settings together (`score`) and each alone (its name); by `text`.
    """
    scores, settings, texts = heads
    standard, score_head = scores  # type: ignore[misc]
    assert table.scores is not None
    features = standard.apply(table.scores, table.prompt.tolist())
    found = {"score": score_head.dense(features)[:, 0]}
    found |= {name: head.dense(features)[:, 0] for name, head in settings.items()}  # type: ignore[attr-defined]
    if texts is not None:
        space, text_head = texts  # type: ignore[misc]
        found["text"] = text_head.text(space.weigh(table.counts, table.looks))[:, 0]
    return found
