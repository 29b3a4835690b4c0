"""Which tensors of a checkpoint hold a layer's neurons, one a row, and the gain of the norm before them."""

from __future__ import annotations

from collections.abc import Mapping

from detector.formats.names import layer_of, module_of
from detector.formats.views import view
from detector.interface import TensorInfo, WeightReader
from detector.pairing import EMBEDDINGS

GATE, UP = "gate", "up"
NEURON_MODULES = {
    "gate_proj": GATE,
    "w1": GATE,
    "gate_up_proj": GATE,
    "up_proj": UP,
    "fc1": UP,
    "c_fc": UP,
    "fc_in": UP,
    "dense_h_to_4h": UP,
    "wi": UP,
    "wi_0": UP,
    "lin1": UP,
}
"""Modules whose rows are the neurons of a feed-forward block; experts and shared experts have the same
names."""
KINDS = (GATE, UP)
GAIN_MODULES = (
    "pre_feedforward_layernorm",
    "post_attention_layernorm",
    "ln_2",
    "ffn_norm",
    "post_attention_norm",
    "final_layer_norm",
)
"""The norm before the feed-forward block, in the order of who is asked first."""


def layer_numbers(reader: WeightReader) -> tuple[int, ...]:
    """Numbers of the language model's layers, sorted; a fork may leave gaps."""
    return tuple(sorted({layer for name in reader.tensors() if (layer := layer_of(name)) is not None}))


def neuron_matrices(reader: WeightReader) -> Mapping[str, Mapping[int, TensorInfo]]:
    """Kind → layer → matrix; of several experts the first. Other matrices are under their module's name."""
    found: dict[str, dict[int, TensorInfo]] = {}
    hidden = _hidden(reader)
    for name, stored in reader.tensors().items():
        layer, module = layer_of(name), module_of(name)
        if layer is None or name.endswith("bias"):
            continue
        info = _matrix(stored, module, hidden)
        if info is not None:
            found.setdefault(NEURON_MODULES.get(module, module), {}).setdefault(layer, info)
    return found


def shared_kind(original: WeightReader, fork: WeightReader) -> str:
    """The first kind of neurons that both have; any module with layers, if there is none."""
    common = neuron_matrices(original).keys() & neuron_matrices(fork).keys()
    return next((kind for kind in (*KINDS, *sorted(common)) if kind in common), GATE)


def gains_of(reader: WeightReader) -> dict[int, TensorInfo]:
    """Layer → the gain of the norm before its feed-forward block."""
    found: dict[int, dict[str, TensorInfo]] = {}
    for name, info in reader.tensors().items():
        layer = layer_of(name)
        if layer is not None and len(info.shape) == 1 and not name.endswith("bias"):
            found.setdefault(layer, {})[module_of(name)] = info
    picked = {
        layer: next((gains[module] for module in GAIN_MODULES if module in gains), None)
        for layer, gains in found.items()
    }
    return {layer: info for layer, info in picked.items() if info is not None}


def _matrix(stored: TensorInfo, module: str, hidden: int | None) -> TensorInfo | None:
    """A matrix with one neuron a row; the first expert of a stack, the gates of a fused one."""
    info = stored
    if len(info.shape) == 3 and module in NEURON_MODULES and info.shape[2] == hidden != info.shape[1]:
        info = view(info, "index:0")
    if len(info.shape) != 2 or min(info.shape) < 2:
        return None
    if module == "gate_up_proj" and info.shape[0] % 2 == 0:
        return view(info, f"rows:0:{info.shape[0] // 2}")
    return info


def _hidden(reader: WeightReader) -> int | None:
    shapes = [info.shape for name, info in reader.tensors().items() if name in EMBEDDINGS]
    return shapes[0][-1] if shapes and shapes[0] else None
