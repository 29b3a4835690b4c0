"""Shorthands for the tests of the index: fingerprints of small models, and a folder of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from detector.formats import open_weights
from detector.index.fingerprint import Fingerprint, Identity, ModelKind, take_fingerprint
from detector.index.storage import save_fingerprint
from tests.detector import zoo
from tests.detector.zoo import MemoryFile, Weights, one_file


def fingerprint(weights: Weights | Mapping[str, MemoryFile], name: str = "candidate") -> Fingerprint:
    """Of weights, or of the files that hold them."""
    files = {key: value for key, value in weights.items() if isinstance(value, MemoryFile)}
    if not files:
        files = one_file({key: value for key, value in weights.items() if not isinstance(value, MemoryFile)})
    return take_fingerprint(open_weights(files), Identity(name=name, kind=ModelKind.MODEL))


def keep(folder: Path, seeds: range) -> Path:
    """An index of the models of these seeds, called by their number."""
    for seed in seeds:
        save_fingerprint(folder, fingerprint(zoo.base(seed), str(seed)))
    return folder
