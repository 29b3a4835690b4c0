"""A classifier on the disk: `model.safetensors` for the numbers, `config.json` for the rest. No pickle.

Reading needs no scikit-learn, and gives the same bits as the classifier that was written. `config.json` names
the digest of the numbers and the features by name, so that numbers are never read as other features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detector.outputs.classifier import AUTHENTIC, Classifier, KnownModel, Mode, Place, Provenance
from detector.outputs.conformal import Calibration
from detector.outputs.features import LOOK_FEATURES, SCORE_FEATURES, Standard
from detector.outputs.interface import BadPackError
from detector.outputs.linear import Head, TextSpace
from detector.outputs.ngrams import BUCKETS, LONGEST
from detector.outputs.pack import write_private

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

SCHEMA = "forkwatch.output-classifier/1"
CONFIG, MODEL = "config.json", "model.safetensors"
MAX_CONFIG, MAX_MODEL = 16 << 20, 256 << 20
"""Bytes. 48 forks and 32,768 n-grams are 7 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Config:
    schema: str
    model_sha256: str
    release: str
    root_digest: str
    probe_set: str
    prompts: tuple[str, ...]
    standard_prompts: tuple[str, ...]
    score_features: tuple[str, ...]
    look_features: tuple[str, ...]
    ngram_buckets: int
    ngram_longest: int
    known: tuple[KnownModel, ...]
    cells: Mapping[Mode, tuple[str, ...]]
    left_out: tuple[str, ...]
    provenance: Provenance
    settings: tuple[str, ...] = ()
    """None in files of before there were heads of settings."""


def write_classifier(classifier: Classifier, folder: Path) -> str:
    """Write both files, 0600, the configuration last: it alone makes the numbers valid.

    Returns:
        `sha256:<hex>` of the configuration, which names the digest of the numbers.
    """
    from safetensors.numpy import save

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    model = save(_arrays(classifier))
    standard = classifier.standard
    config = {
        "schema": SCHEMA,
        "model_sha256": hashlib.sha256(model).hexdigest(),
        "release": classifier.release,
        "root_digest": classifier.root_digest,
        "probe_set": classifier.probe_set,
        "prompts": sorted(classifier.prompts),
        "standard_prompts": []
        if standard is None
        else sorted(standard.prompts, key=standard.prompts.__getitem__),
        "score_features": SCORE_FEATURES,
        "look_features": LOOK_FEATURES,
        "ngram_buckets": BUCKETS,
        "ngram_longest": LONGEST,
        "known": [asdict(one) for one in classifier.known],
        "cells": {mode.value: list(found.cells) for mode, found in classifier.calibrations.items()},
        "settings": sorted(classifier.setting_heads),
        "left_out": classifier.left_out,
        "provenance": asdict(classifier.provenance),
    }
    raw = json.dumps(config, allow_nan=False, sort_keys=True, indent=1).encode()
    write_private(folder / MODEL, model)
    write_private(folder / CONFIG, raw)
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def read_classifier(folder: Path, *, root_digest: str | None = None) -> Classifier:
    """Read a classifier; every number is checked for its place, its type and for being one.

    Args:
        folder: what `write_classifier` filled.
        root_digest: of the release it must belong to; None: of any.

    Raises:
        BadPackError: it is none, is damaged, was made for other features, or belongs to another release.
    """
    from pydantic import TypeAdapter
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        config = TypeAdapter(_Config).validate_json(_bounded(folder / CONFIG, MAX_CONFIG))
        model = _bounded(folder / MODEL, MAX_MODEL)
        _check(config, model)
        classifier = _classifier(config, load(model))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise BadPackError(f"{folder} does not hold a sound classifier: {error}") from error
    if root_digest is not None and config.root_digest != root_digest:
        raise BadPackError(f"{folder}: the classifier is of {config.root_digest}, not of {root_digest}")
    return classifier


def skops_bytes(classifier: Classifier) -> bytes:
    """The heads as scikit-learn models in skops' format, for those who want them there: {name: model}.

    They take the features that ours take. Needs `skops`, which the program itself does not.
    """
    from skops.io import dumps

    found: bytes = dumps({name: _estimator(head) for name, head in _heads(classifier).items()})
    return found


def _estimator(head: Head) -> object:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression()
    model.coef_, model.intercept_ = head.coef.astype(np.float64), head.intercept.astype(np.float64)
    model.classes_ = np.arange(max(2, len(head.coef)))
    model.n_features_in_ = head.coef.shape[1]
    return model


# --- writing ---


def _heads(classifier: Classifier) -> dict[str, Head]:
    heads = {"text": classifier.text_head, "fork": classifier.fork_head}
    if classifier.score_head is not None:
        heads["score"] = classifier.score_head
    return heads | {f"setting.{name}": head for name, head in classifier.setting_heads.items()}


def _arrays(classifier: Classifier) -> dict[str, NDArray[Any]]:
    space, standard = classifier.space, classifier.standard
    arrays: dict[str, NDArray[Any]] = {
        "ngram.columns": space.columns,
        "ngram.idf": space.idf,
        "look.mean": space.look_mean,
        "look.scale": space.look_scale,
    }
    for name, head in _heads(classifier).items():
        arrays |= {f"{name}.coef": head.coef, f"{name}.intercept": head.intercept}
    if standard is not None:
        arrays |= {"standard.mean": standard.mean, "standard.scale": standard.scale}
        arrays |= {"standard.means": standard.means, "standard.scales": standard.scales}
    for mode, place in classifier.places.items():
        arrays |= {f"place.{mode.value}.centres": place.centres, f"place.{mode.value}.spread": place.spread}
    for mode, calibration in classifier.calibrations.items():
        for number, scores in enumerate(calibration.cells.values()):
            arrays[f"calibration.{mode.value}.{number}"] = scores
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


# --- reading ---


def _bounded(path: Path, limit: int) -> bytes:
    if path.stat().st_size > limit:
        raise ValueError(f"{path.name} is larger than {limit} bytes")
    return path.read_bytes()


def _check(config: _Config, model: bytes) -> None:
    if config.schema != SCHEMA:
        raise ValueError(f"it is not {SCHEMA}")
    if hashlib.sha256(model).hexdigest() != config.model_sha256:
        raise ValueError("the numbers are not those of the configuration")
    features = (config.score_features, config.look_features, config.ngram_buckets, config.ngram_longest)
    if features != (SCORE_FEATURES, LOOK_FEATURES, BUCKETS, LONGEST):
        raise ValueError("it was made for other features")
    if not config.known or config.known[0].model != AUTHENTIC or Mode.TEXT not in config.cells:
        raise ValueError("it lacks the release, or its calibration")


@dataclass(frozen=True, slots=True)
class _Reader:
    """Takes arrays out of a file, each with the shape and type that it must have."""

    arrays: Arrays

    def take(self, name: str, dtype: type, *shape: int) -> NDArray[Any]:
        """An array; -1 in `shape` is any length.

        Raises:
            ValueError: it is another, or not finite.
            KeyError: there is none.
        """
        array = self.arrays[name]
        fits = len(array.shape) == len(shape) and all(
            wanted in (-1, found) for wanted, found in zip(shape, array.shape, strict=True)
        )
        if not fits or array.dtype != dtype or not np.isfinite(array).all():
            raise ValueError(f"{name} is not what it must be")
        return array

    def head(self, name: str, rows: int, features: int) -> Head:
        """A linear model."""
        coef = self.take(f"{name}.coef", np.float32, rows, features)
        return Head(coef, self.take(f"{name}.intercept", np.float32, rows))


def _classifier(config: _Config, arrays: Arrays) -> Classifier:
    reader = _Reader(arrays)
    scored = Mode.SCORE in config.cells
    looks, numbers = len(LOOK_FEATURES), len(SCORE_FEATURES)
    columns = reader.take("ngram.columns", np.int32, -1)
    if (np.diff(columns) <= 0).any() or (len(columns) and not 0 <= columns[0] <= columns[-1] < BUCKETS):
        raise ValueError("n-grams are out of order")
    space = TextSpace(
        columns=columns,
        idf=reader.take("ngram.idf", np.float32, len(columns)),
        look_mean=reader.take("look.mean", np.float32, looks),
        look_scale=_positive(reader.take("look.scale", np.float32, looks)),
    )
    classes = len(config.known)
    widths = {Mode.TEXT: classes} | ({Mode.SCORE: numbers} if scored else {})
    return Classifier(
        release=config.release,
        root_digest=config.root_digest,
        probe_set=config.probe_set,
        prompts=frozenset(config.prompts),
        standard=_standard(config, reader) if scored else None,
        score_head=reader.head("score", 1, numbers) if scored else None,
        space=space,
        text_head=reader.head("text", 1, space.width),
        fork_head=reader.head("fork", classes, space.width),
        known=config.known,
        places={mode: _place(reader, mode, classes, width) for mode, width in widths.items()},
        calibrations={
            mode: Calibration(
                {
                    cell: reader.take(f"calibration.{mode.value}.{number}", np.float32, -1)
                    for number, cell in enumerate(cells)
                }
            )
            for mode, cells in config.cells.items()
        },
        setting_heads={name: reader.head(f"setting.{name}", 1, numbers) for name in config.settings},
        left_out=config.left_out,
        provenance=config.provenance,
    )


def _standard(config: _Config, reader: _Reader) -> Standard:
    prompts, numbers = len(config.standard_prompts), len(SCORE_FEATURES)
    return Standard(
        mean=reader.take("standard.mean", np.float64, numbers),
        scale=_positive(reader.take("standard.scale", np.float64, numbers)),
        prompts={prompt: row for row, prompt in enumerate(config.standard_prompts)},
        means=reader.take("standard.means", np.float64, prompts, numbers),
        scales=_positive(reader.take("standard.scales", np.float64, prompts, numbers)),
    )


def _place(reader: _Reader, mode: Mode, classes: int, width: int) -> Place:
    spread = reader.take(f"place.{mode.value}.spread", np.float64, width, width)
    if np.linalg.matrix_rank(spread) < width:
        raise ValueError("a spread is singular")
    return Place(reader.take(f"place.{mode.value}.centres", np.float64, classes, width), spread)


def _positive(array: NDArray[Any]) -> NDArray[Any]:
    if (array <= 0).any():
        raise ValueError("a scale is not positive")
    return array
