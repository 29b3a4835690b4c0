"""The searchable table: signatures of all known models, one memory-mapped matrix a width.

It is a cache of the fingerprint files: whatever is missing, changed or unreadable in it is read from them
again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.errors import FingerprintError
from detector.formats.safetensors_header import SafetensorsHeader
from detector.index.signature import GAIN_SIZE, SIZE, Codes, Floats, as_floats
from detector.index.storage import SUFFIX, load_signatures, open_checked, write_whole

SCHEMA = "forkwatch.signatures/1"
FILE = "signatures.table"
"""Another suffix than a fingerprint's, in the same folder."""
MAX_BYTES = 16 << 30
CHUNK = 1 << 15
"""Layers that are widened to float32 at a time: 8 MB, which stays in the cache of a core."""

_Stamp = tuple[str, int, int]
"""File name, bytes, time of change (ns): equal means the file is the one that was read."""
_Piece = tuple[Codes, Codes, str]
"""Of one model: signatures of layers and gains, and the repository it is from."""


class Hit(NamedTuple):
    """How like a candidate a known model's signatures are."""

    file: str
    depth: int
    """Layers of the known model that its fingerprint holds."""
    layers: float
    """Mean over the candidate's layers of the cosine with the most similar layer of the known model."""
    gains: float
    """Cosine of the gains."""


@dataclass(frozen=True, slots=True, eq=False)
class _Width:
    """Known models of one width, in the order of their file names."""

    stamps: list[_Stamp]
    rows: NDArray[np.int64]
    """Layers of each."""
    layers: Codes
    gains: Codes
    repos: list[str]
    """Repository of each, empty for one that is from none."""

    def parts(self) -> dict[_Stamp, _Piece]:
        """Each model's own piece."""
        pieces = {}
        first = 0
        for index, (stamp, count) in enumerate(zip(self.stamps, self.rows.tolist(), strict=True)):
            pieces[stamp] = (self.layers[first : first + count], self.gains[index], self.repos[index])
            first += count
        return pieces


@dataclass(frozen=True, slots=True, eq=False)
class SignatureTable:
    """All known models, by width."""

    widths: Mapping[int, _Width]
    broken: Mapping[str, str]
    """Files that are no fingerprints, and why: they are not searched, and it is said."""

    @property
    def size(self) -> int:
        """Known models."""
        return sum(len(width.stamps) for width in self.widths.values())

    def comparable(self, width: int) -> int:
        """Known models of that width."""
        return len(self.widths[width].stamps) if width in self.widths else 0

    def files_of(self, repo: str) -> tuple[str, ...]:
        """Fingerprints of a repository's commits."""
        return tuple(
            stamp[0]
            for known in self.widths.values()
            for stamp, own in zip(known.stamps, known.repos, strict=True)
            if own == repo
        )

    def search(self, width: int, layers: Codes, gains: Codes | None) -> list[Hit]:
        """All known models of a width, the most similar first.

        Layers are matched with layers, wherever they lie: a model with dropped, repeated or moved layers
        finds its parent. One matrix product, in pieces.

        Args:
            width: elements of a neuron.
            layers: signatures of the candidate, (layers, SIZE).
            gains: signature of its gains, (GAIN_SIZE,).
        """
        known = self.widths.get(width)
        if known is None:
            return []
        scores = _layer_scores(known, as_floats(layers))
        likeness = np.zeros(len(scores), np.float32)
        if gains is not None:
            likeness = as_floats(known.gains) @ as_floats(gains)
        order = np.argsort(-np.maximum(scores, likeness), kind="stable")
        return [
            Hit(known.stamps[index][0], int(known.rows[index]), float(scores[index]), float(likeness[index]))
            for index in order.tolist()
        ]


def open_table(folder: Path) -> SignatureTable:
    """The table of a folder of fingerprints; files that are new to it are read, and it is saved again."""
    present = _present(folder)
    old = _load(folder / FILE)
    have = {stamp: width for width, known in old.items() for stamp in known.stamps}
    if have.keys() == set(present):
        return SignatureTable(old, {})
    pieces: dict[int, dict[_Stamp, _Piece]] = {}
    broken: dict[str, str] = {}
    parts = {width: known.parts() for width, known in old.items()}
    for stamp in present:
        try:
            if stamp in have:
                width, piece = have[stamp], parts[have[stamp]][stamp]
            else:
                found = load_signatures(folder / stamp[0])
                width, piece = found.width, (found.layers, found.gains, found.repo)
        except FingerprintError as error:
            broken[stamp[0]] = str(error)
            continue
        pieces.setdefault(width, {})[stamp] = piece
    widths = {width: _joined(found) for width, found in sorted(pieces.items())}
    if have.keys() != {stamp for known in widths.values() for stamp in known.stamps}:
        _save(folder / FILE, widths)
    return SignatureTable(widths, broken)


def _present(folder: Path) -> list[_Stamp]:
    with os.scandir(folder) as entries:
        names = [entry for entry in entries if entry.name.endswith(SUFFIX) and entry.is_file()]
        stats = [(entry.name, entry.stat()) for entry in names]
    return sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _joined(found: Mapping[_Stamp, _Piece]) -> _Width:
    layers, gains, repos = zip(*found.values(), strict=True)
    rows = np.array([len(codes) for codes in layers], np.int64)
    return _Width(list(found), rows, np.concatenate(layers), np.stack(gains), list(repos))


def _layer_scores(known: _Width, candidate: Floats) -> Floats:
    """Of each known model, the mean over the candidate's layers of the best cosine."""
    ends = np.cumsum(known.rows)
    starts = ends - known.rows
    scores = np.empty(len(known.rows), np.float32)
    first = 0
    while first < len(scores):
        last = max(first + 1, int(np.searchsorted(ends, starts[first] + CHUNK, side="right")))
        block = known.layers[starts[first] : ends[last - 1]]
        cosines = as_floats(block) @ candidate.T
        best = np.maximum.reduceat(cosines, starts[first:last] - starts[first], axis=0)
        scores[first:last] = best.mean(1)
        first = last
    return scores


def _save(path: Path, widths: Mapping[int, _Width]) -> None:
    from safetensors.numpy import save

    tensors: dict[str, NDArray[Any]] = {}
    listing = {}
    for width, known in widths.items():
        tensors[f"layers.{width}"] = np.ascontiguousarray(known.layers)
        tensors[f"gains.{width}"] = np.ascontiguousarray(known.gains)
        listing[str(width)] = [
            [*stamp, count, repo]
            for stamp, count, repo in zip(known.stamps, known.rows.tolist(), known.repos, strict=True)
        ]
    tensors["listing"] = np.frombuffer(
        json.dumps({"schema": SCHEMA, "widths": listing}).encode(), np.uint8
    ).copy()
    write_whole(path, save(tensors))


def _load(path: Path) -> dict[int, _Width]:
    """The table as it was saved; empty when there is none, or it is not to be believed."""
    try:
        source, header = open_checked(path, MAX_BYTES)
        places = {tensor.name: tensor for tensor in header.tensors}
        place = places["listing"]
        listing = json.loads(source.read(place.offset, place.nbytes))
        if listing["schema"] != SCHEMA:
            return {}
        return {
            int(width): _mapped(path, header, int(width), rows) for width, rows in listing["widths"].items()
        }
    except (FingerprintError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}


def _mapped(path: Path, header: SafetensorsHeader, width: int, listed: list[list[object]]) -> _Width:
    """One width's matrices, mapped.

    Raises:
        ValueError: the listing and the matrices contradict each other.
    """
    stamps, rows, repos = list[_Stamp](), list[int](), list[str]()
    for name, size, changed, count, repo in listed:
        stamps.append((str(name), int(str(size)), int(str(changed))))
        rows.append(int(str(count)))
        repos.append(str(repo))
    counts = np.array(rows, np.int64)
    if not len(counts) or counts.min() < 1:
        raise ValueError("a model without layers")
    shapes = {"layers": (int(counts.sum()), SIZE), "gains": (len(rows), GAIN_SIZE)}
    places = {tensor.name: tensor for tensor in header.tensors}
    found: dict[str, Codes] = {}
    for part, shape in shapes.items():
        place = places[f"{part}.{width}"]
        if place.dtype != "I8" or place.shape != shape:
            raise ValueError("not a matrix of signatures")
        found[part] = np.memmap(path, dtype=np.int8, mode="r", offset=place.offset, shape=shape)
    return _Width(stamps, counts, found["layers"], found["gains"], repos)
