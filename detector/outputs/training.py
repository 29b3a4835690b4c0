"""Learn a release's classifier from its reference pack. Only this, and `evaluation`, needs scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from detector.outputs.classifier import AUTHENTIC, Classifier, KnownModel, Mode, Place, Provenance
from detector.outputs.conformal import Calibration
from detector.outputs.features import Standard, fit_standard
from detector.outputs.interface import ReferencePack
from detector.outputs.linear import Head, TextSpace, log_shares, space_of
from detector.outputs.nuisance import setting_of
from detector.outputs.table import MAX_TRAINING, Parts, Table, class_weights, split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Rows = NDArray[np.int64]

MAX_COLUMNS = 1 << 15
"""N-grams that count; the most frequent of those that occur in two texts."""
SCORE_C, TEXT_C, FORK_C = 1.0, 1.0, 10.0
"""Inverse strength of the penalty. Strong for texts against the release: weights of single n-grams know the
answers that taught them, and find others less often. Weak for names, which texts of length 1 need."""
SETTING_C = 0.01
"""Of heads of one setting, which have few authentic outputs to learn from."""
_FOLDS = 4
"""Of the cross-fit that tells where outputs of a known fork lie."""
_NOWHERE = 1e9
_CHUNK = 2000
_SHRINKAGE = 0.1
"""Of a covariance towards its diagonal."""


def fit_head(features: object, labels: Rows, weights: Floats, c: float) -> Head:
    """A logistic regression; for two classes one row, for more one row each."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=c, tol=1e-3, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # an early stop is a stronger penalty
        model.fit(features, labels, sample_weight=weights)
    return Head(model.coef_.astype(np.float32), model.intercept_.astype(np.float32))


def fit_scores(table: Table) -> tuple[Standard, Head] | None:
    """The head on scores and the standard that its features are in; None: an output has no scores."""
    if table.scores is None:
        return None
    plain = (table.model == AUTHENTIC) & (table.cell == _plain_cell(table))
    standard = fit_standard(table.scores[plain], table.prompt[plain].tolist())
    features = standard.apply(table.scores, table.prompt.tolist())
    return standard, fit_head(features, modified(table), class_weights(table), SCORE_C)


def fit_settings(table: Table, standard: Standard) -> dict[str, Head]:
    """A head on scores for each setting that the release was asked in; see `Classifier.setting_heads`."""
    assert table.scores is not None
    features = standard.apply(table.scores, table.prompt.tolist())
    ours = table.model == AUTHENTIC
    settings = np.array([setting_of(cell) for cell in table.cell.tolist()], np.str_)
    found = {}
    for setting in sorted(set(settings[ours].tolist())):
        rows = np.flatnonzero(~ours | (settings == setting))
        chosen = table.take(rows)
        found[setting] = fit_head(features[rows], modified(chosen), class_weights(chosen), SETTING_C)
    return found


def _plain_cell(table: Table) -> str:
    """`seed`, or the only setting in which the release was asked."""
    cells = table.cell[table.model == AUTHENTIC]
    return "seed" if (cells == "seed").any() else str(cells[0])


def fit_space(table: Table) -> TextSpace:
    """The n-grams of the texts of a table."""
    return space_of(table.counts, table.looks, least=2, most=MAX_COLUMNS)


def text_matrix(space: TextSpace, table: Table) -> object:
    """Features of the texts of a table, sparse, (rows, `space.width`)."""
    from scipy.sparse import csr_matrix

    found = space.weigh(table.counts, table.looks)
    rows, looks = found.looks.shape
    row = np.concatenate([found.row, np.repeat(np.arange(rows), looks)])
    column = np.concatenate([found.column, np.tile(np.arange(looks) + len(space.columns), rows)])
    value = np.concatenate([found.value, found.looks.ravel()])
    return csr_matrix((value, (row, column)), shape=(rows, space.width))


def modified(table: Table) -> Rows:
    """(rows,) 1 for an output of a modified fork."""
    return (~table.benign).astype(np.int64)


def fit_text(table: Table) -> tuple[TextSpace, Head]:
    """The head that tells modified from authentic by texts alone."""
    space = fit_space(table)
    return space, fit_head(text_matrix(space, table), modified(table), class_weights(table), TEXT_C)


def model_names(table: Table) -> list[str]:
    """Classes of the head that names forks: the release, then forks by name."""
    return [AUTHENTIC, *sorted(set(table.model.tolist()) - {AUTHENTIC})]


def few_authentic(table: Table) -> Table:
    """With at most `MAX_TRAINING` rows of the release: all of its cells are one class there."""
    ours = np.flatnonzero(table.model == AUTHENTIC)
    kept = ours[np.linspace(0, len(ours) - 1, min(len(ours), MAX_TRAINING)).astype(int)]
    return table.take(np.union1d(np.flatnonzero(table.model != AUTHENTIC), kept))


def fit_forks(space: TextSpace, table: Table) -> Head:
    """The head that names forks; one row a class, also for two."""
    names = model_names(table)
    labels = np.array([names.index(one) for one in table.model.tolist()])
    head = fit_head(text_matrix(space, table), labels, class_weights(table), FORK_C)
    if len(names) > 2:
        return head
    zero = np.zeros_like(head.coef)
    return Head(np.concatenate([zero, head.coef]), np.concatenate([[np.float32(0)], head.intercept]))


def folds_by_prompt(table: Table, folds: int) -> Iterator[tuple[Rows, Rows]]:
    """Rows to learn from and rows to test, no prompt on both sides; none where there are too few prompts."""
    from sklearn.model_selection import GroupKFold

    if len(np.unique(table.prompt)) >= folds:
        yield from GroupKFold(folds).split(table.looks, groups=table.prompt)


def train(pack: ReferencePack, *, seed: int = 0) -> Classifier:
    """Learn from a pack.

    Args:
        pack: samples of the release in its nuisance cells, and of forks, of which one at least is modified.
        seed: of the split into what teaches and what calibrates.

    Raises:
        NothingToLearnError: the release or every modified fork has no output.
    """
    return train_parts(pack, split(pack, seed), seed)


def train_parts(pack: ReferencePack, parts: Parts, seed: int = 0) -> Classifier:
    """Learn from a pack that was split."""
    table = parts.training
    scores = fit_scores(table) if _all_scored(parts) else None
    space, text_head = fit_text(table)
    naming = few_authentic(table)
    classifier = Classifier(
        release=pack.release,
        root_digest=pack.root_digest,
        probe_set=pack.probe_set,
        prompts=frozenset(one.output.prompt_id for outputs in parts.calibration.values() for one in outputs),
        standard=None if scores is None else scores[0],
        score_head=None if scores is None else scores[1],
        setting_heads={} if scores is None else fit_settings(table, scores[0]),
        space=space,
        text_head=text_head,
        fork_head=fit_forks(space, naming),
        known=known_models(naming),
        places=places(naming, None if scores is None else scores[0], seed),
        calibrations={},
        left_out=parts.left_out,
        provenance=Provenance(seed=seed, sampling=_sampling(parts)),
    )
    modes = [Mode.TEXT] if scores is None else [Mode.SCORE, Mode.TEXT]
    return replace(classifier, calibrations={mode: calibrate(classifier, mode, parts) for mode in modes})


def _sampling(parts: Parts) -> str:
    """Settings of the plain cell, as the first output of it says them."""
    outputs = parts.calibration.get("seed", ())
    if not outputs:
        return "not stated"
    said = outputs[0].output.sampling
    parts_said = {
        "temperature": said.temperature,
        "top-p": said.top_p,
        "tokens at most": said.max_tokens,
        "system prompt": None if said.system_sha256 is None else f"sha256:{said.system_sha256}",
    }
    return (
        ", ".join(f"{name} {value}" for name, value in parts_said.items() if value is not None)
        or "not stated"
    )


def _all_scored(parts: Parts) -> bool:
    return all(len(one.authentic.logp) for outputs in parts.calibration.values() for one in outputs)


def calibrate(classifier: Classifier, mode: Mode, parts: Parts) -> Calibration:
    """What a head says of the outputs that it has not seen; `_CHUNK` at once, to bound the memory."""
    cells = {}
    for cell, outputs in parts.calibration.items():
        chunks = [outputs[start : start + _CHUNK] for start in range(0, len(outputs), _CHUNK)]
        found = [classifier.log_odds(mode, chunk) for chunk in chunks]
        cells[cell] = np.concatenate([np.empty(0, np.float32), *found])
    return Calibration(cells)


def known_models(table: Table) -> tuple[KnownModel, ...]:
    """The classes of the head that names forks."""
    found = []
    for name in model_names(table):
        rows = np.flatnonzero(table.model == name)
        family, benign = str(table.family[rows[0]]), bool(table.benign[rows[0]])
        found.append(KnownModel(model=name, family=family, benign=benign, outputs=len(rows)))
    return tuple(found)


def places(table: Table, standard: Standard | None, seed: int) -> dict[Mode, Place]:
    """Where outputs of each class lie, among log-probabilities of classes and among standardised scores."""
    names = model_names(table)
    labels = np.array([names.index(one) for one in table.model.tolist()])
    found = {Mode.TEXT: _place(held_out_shares(table, labels, seed), labels, len(names))}
    if standard is not None and table.scores is not None:
        features = standard.apply(table.scores, table.prompt.tolist())
        found[Mode.SCORE] = _place(features, labels, len(names))
    return found


def held_out_shares(table: Table, labels: Rows, seed: int) -> Floats:
    """Log-probabilities of classes by heads that have not seen the output, (rows, classes).

    They have seen other answers to its prompt, as it is when probes are asked. NaN: not known.
    """
    names = model_names(table)
    fold = np.random.default_rng(seed).permutation(len(labels)) % _FOLDS
    shares = np.full((len(labels), len(names)), np.nan)
    for number in range(_FOLDS):
        taught, held = table.take(np.flatnonzero(fold != number)), np.flatnonzero(fold == number)
        if model_names(taught) == names and len(held):
            space, asked = fit_space(taught), table.take(held)
            shares[held] = log_shares(fit_forks(space, taught).text(space.weigh(asked.counts, asked.looks)))
    return shares


def _place(features: Floats, labels: Rows, classes: int) -> Place:
    """A class without a row lies nowhere: nothing is typical of it."""
    rows = np.isfinite(features[:, 0])
    known, labels = features[rows], labels[rows]
    centres = np.full((classes, features.shape[1]), _NOWHERE)
    for number in np.unique(labels):
        centres[number] = known[labels == number].mean(axis=0)
    residuals = known - centres[labels]
    spread = residuals.T @ residuals / max(1, len(residuals) - classes)
    diagonal = np.diag(np.diag(spread))
    return Place(centres, (1 - _SHRINKAGE) * spread + _SHRINKAGE * diagonal + 1e-6 * np.eye(len(spread)))
