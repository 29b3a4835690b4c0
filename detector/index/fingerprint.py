"""The fingerprint of a checkpoint: what one read of it brings, to be compared with any known model.

Which rows are read follows from the shapes alone, so that all models of a shape hold the same rows, and a
candidate is read once, whatever number of models it is compared with.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from detector.errors import NothingComparedError, UnreadableTensorError
from detector.formats.names import layer_of, module_of
from detector.formats.peft import PeftReader
from detector.formats.roles import role_key
from detector.formats.views import view
from detector.index.signature import (
    ROWS,
    Codes,
    Floats,
    gain_ranks,
    gain_signature,
    layer_signatures,
)
from detector.interface import TensorInfo, WeightReader
from detector.lineage import NEURON_MODULES, Bands
from detector.pairing import EMBEDDINGS

if TYPE_CHECKING:
    import torch

BAND_ROWS = (32, 16, ROWS)
"""Neurons a layer: the first that keeps a model's bands under `BAND_BYTES`, else the last."""
BAND_BYTES = 4 << 20
"""In bf16. Llama-3-8B gets 8 rows of 32 layers, 2 MB; 256 neurons still reach p = 8^-256."""
READ_BUDGET = 64 << 20
"""Bytes of bands to read. Only layouts that pack across rows (GPTQ, AWQ) reach it: fewer layers then."""
GAIN_LAYERS = 8
MAX_WIDTH = 1 << 20
MAX_LAYERS = 4096

_FUSED = "gate_up_proj"
"""Gate above up in one matrix: the upper half is what another model calls `gate_proj`."""
_GAINS = ("input_layernorm", "ln_1", "attention_norm", "norm1")


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
    """One (rows, width) float32 band a layer."""
    gains: Floats | None
    """`gain_ranks`, (width,); None when the model has none that vary."""
    signatures: Codes
    """(layers, SIZE), in the order of `shape.layers`."""

    @property
    def gain_codes(self) -> Codes | None:
        """Signature of the gains."""
        return None if self.gains is None else gain_signature(self.gains)


def take_fingerprint(reader: WeightReader, identity: Identity) -> Fingerprint:
    """Read what the index needs of a checkpoint: headers, one band a layer, a few gains, embedding rows.

    Raises:
        NothingComparedError: an adapter, which holds none of its base's numbers, or no transformer layers.
        CrawlerError: bytes could not be had.
    """
    infos = reader.tensors()
    if isinstance(reader, PeftReader):
        raise NothingComparedError("an adapter holds none of its base's numbers, so its weights name no base")
    neurons = neuron_tensors(infos)
    if not neurons:
        raise NothingComparedError("no feed-forward matrices of transformer layers were found")
    layers = _affordable(reader, neurons)
    width = neurons[layers[0]].shape[1]
    rows = band_rows(len(neurons), width)
    bands = {layer: band for layer in layers if (band := _band(reader, neurons[layer], rows)) is not None}
    if not bands:
        raise NothingComparedError("no layer is stored in an encoding that forkwatch decodes")
    names = [name for name in EMBEDDINGS if name in infos and len(infos[name].shape) == 2]
    embedding = _band(reader, infos[names[0]], 2 * rows) if names else None
    least = min(len(band) for band in bands.values())
    stacked = np.stack([bands[layer].numpy()[:least] for layer in sorted(bands)])
    shape = Shape(
        inventory=_inventory(infos),
        headers=hashlib.sha256("\n".join(reader.headers).encode()).hexdigest(),
        width=width,
        layers=tuple(sorted(bands)),
        parameters=sum(math.prod(info.shape) for info in infos.values()),
    )
    gains = _gains(reader, infos, width)
    return Fingerprint(identity, shape, Bands(bands, embedding), gains, layer_signatures(stacked))


def neuron_tensors(infos: Mapping[str, TensorInfo]) -> dict[int, TensorInfo]:
    """Of each layer the matrix whose rows are compared: the first of `NEURON_MODULES` that the model has.

    Gates fused with the up-projection and stacked experts are taken as the views that another model stores
    apart. Layers whose matrix has another width than most are left out.
    """
    found: dict[str, dict[int, TensorInfo]] = {}
    for name in sorted(infos):
        layer = layer_of(name)
        if layer is None or not name.endswith((".weight", _FUSED, *NEURON_MODULES)):
            continue
        module, info = _neurons(infos[name])
        if module and len(info.shape) == 2 and min(info.shape) > 1 and info.shape[1] <= MAX_WIDTH:
            found.setdefault(module, {}).setdefault(layer, info)
    modules = [module for module in NEURON_MODULES if module in found] or sorted(found)
    if not modules:
        return {}
    chosen = found[modules[0]]
    widths = [info.shape[1] for info in chosen.values()]
    common = max(set(widths), key=lambda width: (widths.count(width), width))
    kept = sorted(layer for layer, info in chosen.items() if info.shape[1] == common)
    return {layer: chosen[layer] for layer in kept[:MAX_LAYERS]}


def band_rows(layers: int, width: int) -> int:
    """Neurons to hold of each layer of a model of that shape."""
    return next((rows for rows in BAND_ROWS if layers * rows * width * 2 <= BAND_BYTES), BAND_ROWS[-1])


def _neurons(info: TensorInfo) -> tuple[str, TensorInfo]:
    """Module and matrix under the name that a checkpoint with everything apart would use."""
    module = module_of(role_key(info.name))
    if len(info.shape) == 3 and info.shape[0]:  # stacked experts: the first, as with experts of their own
        info = view(info, "index:0")
    if module == _FUSED and info.shape and info.shape[0] >= 2:
        return NEURON_MODULES[0], view(info, f"rows:0:{info.shape[0] // 2}")
    return module, info


def _affordable(reader: WeightReader, neurons: Mapping[int, TensorInfo]) -> list[int]:
    """Layers to read, evenly over the model, as many as the budget allows, and one at least."""
    layers = list(neurons)
    rows = band_rows(len(layers), neurons[layers[0]].shape[1])
    cost = max(_cost(reader, info, rows) for info in neurons.values())
    count = min(len(layers), max(1, READ_BUDGET // max(cost, 1)))
    return [layers[index * len(layers) // count] for index in range(count)]


def _cost(reader: WeightReader, info: TensorInfo, rows: int) -> int:
    if "@" in info.name:
        return info.nbytes * min(rows, info.shape[0]) // max(info.shape[0], 1)
    return reader.band_bytes(info.name, rows)


def _inventory(infos: Mapping[str, TensorInfo]) -> str:
    lines = (f"{name}:{'x'.join(map(str, infos[name].shape))}" for name in sorted(infos))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _band(reader: WeightReader, info: TensorInfo, rows: int) -> torch.Tensor | None:
    """The rows that `detector.lineage.sample_bands` takes, as stored; None if they cannot be decoded."""
    import torch

    height = info.shape[0]
    first = min(height // 4, max(height - rows, 0))
    try:
        band = reader.band(info.name, first, rows)
    except UnreadableTensorError:
        return None
    return torch.nan_to_num(band.to(torch.bfloat16), posinf=0.0, neginf=0.0).float()


def _gains(reader: WeightReader, infos: Mapping[str, TensorInfo], width: int) -> Floats | None:
    by_layer: dict[int, str] = {}
    for name in sorted(infos, key=lambda name: (module_of(name) not in _GAINS, name)):
        layer, module = layer_of(name), module_of(name)
        is_gain = name.endswith(".weight") and ("norm" in module or module.startswith("ln"))
        if layer is not None and is_gain and infos[name].shape == (width,):
            by_layer.setdefault(layer, name)
    layers = sorted(by_layer)
    count = min(len(layers), GAIN_LAYERS)
    rows = [_values(reader, by_layer[layers[index * len(layers) // count]]) for index in range(count)]
    read = [row for row in rows if row is not None]
    return gain_ranks(np.stack(read)) if read else None


def _values(reader: WeightReader, name: str) -> Floats | None:
    import torch

    try:
        gain = reader.values(name)
    except UnreadableTensorError:
        return None
    values: Floats = torch.nan_to_num(gain.to(torch.bfloat16), posinf=0.0, neginf=0.0).float().numpy()
    return values
