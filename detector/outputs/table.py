"""The outputs of a reference pack as rows: what teaches, what calibrates, and how much each row counts.

Weights make classes count equally: authentic as much as modified; within modified each edit family, within a
family each fork, within a fork each prompt; within authentic each nuisance cell and each benign fork. The
release quantised, sampled otherwise or under another system prompt, and forks whose policy label is benign,
are hard negatives: else a head learns that any shift is a modification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from detector.outputs.classifier import AUTHENTIC
from detector.outputs.conformal import spread
from detector.outputs.features import LOOK_FEATURES, SCORE_FEATURES, look_features, score_features
from detector.outputs.interface import NothingToLearnError, ReferencePack, Sample, ScoredOutput
from detector.outputs.ngrams import Counts, count_ngrams

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Rows = NDArray[np.int64]

TRAINING_SHARE = 1 / 3
"""Of the release's outputs in each cell; the rest calibrate."""
MAX_TRAINING = 2000
"""Outputs of one model in one cell to learn from."""
MAX_FORKS = 48
"""Classes of the head that names forks."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Outputs to learn from, one a row, with all that is seen of them."""

    prompt: NDArray[np.str_]
    model: NDArray[np.str_]
    cell: NDArray[np.str_]
    family: NDArray[np.str_]
    benign: NDArray[np.bool_]
    scores: Floats | None
    """(rows, 21); None where an output has none."""
    counts: Counts
    looks: Floats
    """(rows, 4)"""

    def take(self, rows: Rows) -> Table:
        """Some of the rows, in ascending order."""
        place = np.full(len(self.looks), -1, np.int64)
        place[rows] = np.arange(len(rows))
        kept = place[self.counts.row] >= 0
        c = self.counts
        counts = Counts(len(rows), place[c.row[kept]], c.bucket[kept], c.count[kept])
        return Table(
            prompt=self.prompt[rows],
            model=self.model[rows],
            cell=self.cell[rows],
            family=self.family[rows],
            benign=self.benign[rows],
            scores=None if self.scores is None else self.scores[rows],
            counts=counts,
            looks=self.looks[rows],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A pack, split."""

    training: Table
    calibration: Mapping[str, tuple[ScoredOutput, ...]]
    """Outputs of the release that nothing learns from, by nuisance cell, each in `spread` order."""
    left_out: tuple[str, ...]


def split(pack: ReferencePack, seed: int = 0) -> Parts:
    """Which outputs teach and which calibrate: drawn at random within each cell, once, with the seed.

    Raises:
        NothingToLearnError: one of the two classes has no output.
    """
    teaching, calibrating, left_out = _deal(pack, seed)
    training = make_table(teaching)
    if training.benign.all() or not (training.model == AUTHENTIC).any():
        raise NothingToLearnError("the pack has no outputs of the release, or none of a modified fork")
    return Parts(training, calibrating, left_out)


def held_back(pack: ReferencePack, seed: int) -> dict[str, tuple[ScoredOutput, ...]]:
    """Outputs of the release that `split` with this seed keeps from training, by nuisance cell."""
    return _deal(pack, seed)[1]


def _deal(
    pack: ReferencePack, seed: int
) -> tuple[list[tuple[Sample, Sequence[ScoredOutput]]], dict[str, tuple[ScoredOutput, ...]], tuple[str, ...]]:
    rng = np.random.default_rng(seed)
    teaching: list[tuple[Sample, Sequence[ScoredOutput]]] = []
    calibrating: dict[str, tuple[ScoredOutput, ...]] = {}
    forks = _forks(pack)
    for sample in pack.samples:
        usable = [one for one in sample.scored if one.output.text is not None and not one.output.greedy]
        drawn = [usable[number] for number in rng.permutation(len(usable))]
        dealt = [drawn[number] for number in spread([one.output.prompt_id for one in drawn])]
        if sample.model != AUTHENTIC:
            if sample.model in forks[:MAX_FORKS]:
                teaching.append((sample, dealt[:MAX_TRAINING]))
            continue
        taught = min(round(len(dealt) * TRAINING_SHARE), MAX_TRAINING)
        teaching.append((sample, dealt[:taught]))
        calibrating[sample.cell] = calibrating.get(sample.cell, ()) + tuple(dealt[taught:])
    left_out = tuple(f"{model}: {MAX_FORKS} other forks have more outputs" for model in forks[MAX_FORKS:])
    return teaching, calibrating, left_out


def held_table(parts: Parts, most: int, *, texts: bool) -> Table:
    """The first `most` calibration outputs of each cell; without `texts` their n-grams are not counted."""
    plain = Sample(model=AUTHENTIC, cell="", family=AUTHENTIC, benign=True, scored=())
    rows = [(replace(plain, cell=cell), outputs[:most]) for cell, outputs in parts.calibration.items()]
    return make_table(rows, texts=texts)


def _forks(pack: ReferencePack) -> list[str]:
    """Most outputs first."""
    sizes: dict[str, int] = {}
    for sample in pack.samples:
        if sample.model != AUTHENTIC:
            sizes[sample.model] = sizes.get(sample.model, 0) + len(sample.scored)
    return sorted(sizes, key=lambda model: (-sizes[model], model))


def make_table(parts: Sequence[tuple[Sample, Sequence[ScoredOutput]]], *, texts: bool = True) -> Table:
    """One row an output."""
    rows = [(sample, one) for sample, outputs in parts for one in outputs]
    outputs = tuple(one for _, one in rows)
    read = [one.output.text or "" for one in outputs]
    scored = all(len(one.authentic.logp) for one in outputs)
    features = [score_features(one.authentic) for one in outputs] if scored else []
    return Table(
        prompt=np.array([one.output.prompt_id for one in outputs], np.str_),
        model=np.array([sample.model for sample, _ in rows], np.str_),
        cell=np.array([sample.cell for sample, _ in rows], np.str_),
        family=np.array([sample.family for sample, _ in rows], np.str_),
        benign=np.array([sample.benign or sample.model == AUTHENTIC for sample, _ in rows], bool),
        scores=np.array(features).reshape(-1, len(SCORE_FEATURES)) if scored else None,
        counts=count_ngrams(read if texts else [""] * len(read)),
        looks=np.array([look_features(text) for text in read]).reshape(-1, len(LOOK_FEATURES)),
    )


def class_weights(table: Table) -> Floats:
    """A weight a row, of mean 1 over all: see the module's docstring."""
    # Of the release every cell is a group, as every benign fork is; of the rest families come first.
    cells = np.char.add(np.char.add(table.model, "/"), table.cell)
    group = np.where(table.benign, cells, table.family)
    node = table.benign.astype(np.int64)
    weights = np.full(len(node), len(node) / len(np.unique(node)))
    for finer in (group, table.model, table.prompt):
        _, code = np.unique(finer, return_inverse=True)
        pairs, child = np.unique(np.stack([node, code], axis=1), axis=0, return_inverse=True)
        weights /= np.bincount(pairs[:, 0])[node]
        node = child.reshape(-1)
    return weights / np.bincount(node)[node]
