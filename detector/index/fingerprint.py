"""The fingerprint of a checkpoint: what one read of it brings, to be compared with any known model.

Which rows are read follows from the shapes alone, so that all models of a shape hold the same rows, and a
candidate is read once, whatever number of models it is compared with.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from detector.errors import NothingComparedError
from detector.formats.peft import PeftReader
from detector.formats.views import view_cost
from detector.index.signature import ROWS, Codes, gain_ranks, gain_signature, layer_signatures
from detector.interface import TensorInfo, WeightReader
from detector.lineage import Bands, sample_model
from detector.roster import neuron_matrices, shared_kind

BAND_ROWS = (32, 16, ROWS)
"""Neurons a layer: the first that keeps a model's bands under `BAND_BYTES`, else the last."""
BAND_BYTES = 2 << 20
"""In bf16. An 8B model gets 8 rows of 32 layers, 2.1 MB; its 256 neurons still reach p = 8^-256."""
READ_BUDGET = 64 << 20
"""Bytes of bands to read. Only layouts that pack across rows (GPTQ, AWQ) reach it: fewer layers then."""
MAX_WIDTH = 1 << 20
MAX_LAYERS = 4096


class ModelKind(StrEnum):
    """Why a model is known."""

    RELEASE = "release"
    """Guarded: its signature was verified."""
    MODEL = "model"
    """Added by the user."""
    CANDIDATE = "candidate"
    """Read in order to be searched for; not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which model it is, by what it was found as. Text from the Hub is hostile."""

    name: str
    kind: ModelKind
    repo: str | None = None
    commit: str | None = None
    root_digest: str | None = None
    """Of a release: what its signature covers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The form of a checkpoint, as far as comparing needs it."""

    inventory: str
    """SHA-256 over canonical names and shapes, types left out: equal for casts, reshards and re-uploads."""
    headers: str
    """SHA-256 over the digests of the files' headers."""
    width: int
    """Elements of a neuron: the residual stream's."""
    layers: tuple[int, ...]
    """Layers whose neurons are held, ascending."""
    parameters: int


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """A checkpoint, as the index knows it."""

    identity: Identity
    shape: Shape
    bands: Bands
    """One (rows, width) float32 band a layer, gains of some layers, embedding rows."""
    signatures: Codes
    """(layers, SIZE), in the order of `shape.layers`."""

    @property
    def gain_codes(self) -> Codes | None:
        """Signature of the gains; None when the model has none that vary."""
        ranks = gain_ranks(list(self.bands.gains.values()))
        return None if ranks is None else gain_signature(ranks)


def take_fingerprint(reader: WeightReader, identity: Identity) -> Fingerprint:
    """Read what the index needs of a checkpoint: headers, one band a layer, a few gains, embedding rows.

    Raises:
        NothingComparedError: an adapter, which holds none of its base's numbers, or no transformer layers.
        CrawlerError: bytes could not be had.
    """
    if isinstance(reader, PeftReader):
        raise NothingComparedError("an adapter holds none of its base's numbers, so its weights name no base")
    layers, width, rows = _plan(reader)
    if not layers:
        raise NothingComparedError("no feed-forward matrices of transformer layers were found")
    sampled = sample_model(reader, rows, layers)
    bands = {layer: band for layer, band in sorted(sampled.layers.items()) if band.shape[1] == width}
    if not bands:
        raise NothingComparedError("no layer is stored in an encoding that forkwatch decodes")
    gains = {layer: gain for layer, gain in sorted(sampled.gains.items()) if gain.shape == (width,)}
    infos = reader.tensors()
    shape = Shape(
        inventory=_inventory(infos),
        headers=hashlib.sha256("\n".join(reader.headers).encode()).hexdigest(),
        width=width,
        layers=tuple(bands),
        parameters=sum(math.prod(info.shape) for info in infos.values()),
    )
    least = min(len(band) for band in bands.values())
    return Fingerprint(
        identity,
        shape,
        replace(sampled, layers=bands, gains=gains),
        layer_signatures(np.stack([band[:least] for band in bands.values()])),
    )


def band_rows(layers: int, width: int) -> int:
    """Neurons to hold of each layer of a model of that shape."""
    return next((rows for rows in BAND_ROWS if layers * rows * width * 2 <= BAND_BYTES), BAND_ROWS[-1])


def _plan(reader: WeightReader) -> tuple[list[int], int, int]:
    """Layers to read, their width, and rows of each.

    Layers of another width than most are left out; of the others as many as the budget allows, evenly over
    the model, and one at least.
    """
    matrices = neuron_matrices(reader).get(shared_kind(reader, reader), {})
    widths = [info.shape[1] for info in matrices.values() if info.shape[1] <= MAX_WIDTH]
    if not widths:
        return [], 0, 0
    width = max(set(widths), key=lambda width: (widths.count(width), width))
    layers = sorted(layer for layer, info in matrices.items() if info.shape[1] == width)[:MAX_LAYERS]
    rows = band_rows(len(layers), width)
    cost = max(view_cost(reader, matrices[layer], rows) for layer in layers)
    count = min(len(layers), max(1, READ_BUDGET // max(cost, 1)))
    return [layers[index * len(layers) // count] for index in range(count)], width, rows


def _inventory(infos: Mapping[str, TensorInfo]) -> str:
    lines = (f"{name}:{'x'.join(map(str, infos[name].shape))}" for name in sorted(infos))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
