"""Whether two checkpoints share an ancestor, from a few rows of each layer.

The test is the matched-neuron one of Zhu et al. (arXiv 2502.12292): the order of the neurons of a
feed-forward layer is arbitrary, so in a model trained independently a neuron is no more like the one at its
own position in the original than like any other. Its most similar neuron among k is the one at its own
position with chance 1/k, whatever the two models have in common by architecture, tokenizer or data. The
count of such coincidences is binomial, and its tail is the p-value. The test is symmetric: it cannot say
which of the two came first.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.errors import UnreadableTensorError
from detector.formats.names import layer_of, module_of
from detector.interface import Evidence, Lineage, LineageStatus, WeightReader
from detector.pairing import EMBEDDING

if TYPE_CHECKING:
    import torch

NEURON_MODULES = ("gate_proj", "up_proj", "fc1", "w1", "c_fc")
BAND = 32
"""Rows of a layer that are compared with each other."""
PROVED_LOG10_P = -12.0
SUPPORTED_LOG10_P = -3.0
ENOUGH_NEURONS = 64
"""Neurons below which a missing match says nothing: 64 of 32 a layer leave a chance hit rate of 2 ± 1.4."""
SAME_LAYER = 0.5
"""Correlation of two layers' bands above which one derives from the other; others stay under 0.1."""


@dataclass(frozen=True, slots=True)
class Bands:
    """Sampled neurons of one checkpoint."""

    layers: Mapping[int, torch.Tensor]
    """Layer → (rows, width) float32."""
    embedding: torch.Tensor | None
    """Rows of consecutive tokens."""


@dataclass(frozen=True, slots=True)
class Matches:
    """Neurons whose best counterpart is the one at their own position."""

    matched: int
    compared: int
    log10_p: float
    correlation: float
    """Median correlation of a neuron with the one at its position."""


def sample_bands(
    original: WeightReader, fork: WeightReader, rows: int = BAND, layers: Collection[int] | None = None
) -> tuple[Bands, Bands]:
    """The same rows of both checkpoints, a quarter into each layer's first feed-forward matrix.

    Args:
        original: reader of the original.
        fork: reader of the fork.
        rows: neurons a layer; twice as many rows of the embedding are read.
        layers: layers to sample, all by default.
    """
    module = shared_module(original, fork)
    return _sample(original, module, rows, layers), _sample(fork, module, rows, layers)


def align_layers(original: Bands, fork: Bands) -> dict[int, int]:
    """Layer of the fork → layer of the original whose neurons it holds; layers like none are left out."""
    import torch

    if not original.layers or not fork.layers:
        return {}
    numbers = sorted(original.layers)
    reference = _signatures(original, numbers)
    aligned = {}
    for layer in sorted(fork.layers):
        signature = _signatures(fork, [layer])[0]
        if signature.numel() != reference.shape[1]:
            continue
        similarity = reference @ signature
        best = int(torch.argmax(similarity).item())
        if layer in numbers and similarity[numbers.index(layer)] >= SAME_LAYER:
            aligned[layer] = layer
        elif similarity[best] >= SAME_LAYER:
            aligned[layer] = numbers[best]
    return aligned


def judge_lineage(original: Bands, fork: Bands, layers: Mapping[int, int]) -> Lineage:
    """Test common descent.

    Args:
        original: sampled neurons of the original.
        fork: sampled neurons of the fork, from the same rows.
        layers: layer of the fork → layer of the original to compare it with.
    """
    shared = [(o, f) for f, o in layers.items() if o in original.layers and f in fork.layers]
    neurons = count_matches([(original.layers[o], fork.layers[f]) for o, f in shared])
    tokens = count_matches([])
    if original.embedding is not None and fork.embedding is not None:
        tokens = count_matches([(original.embedding, fork.embedding)])
    evidence = (
        Evidence("matched-neurons", neurons.matched, f"of {neurons.compared}, at their own position"),
        Evidence("neuron-correlation", round(neurons.correlation, 4), "median"),
        Evidence(
            "log10-p-value", round(neurons.log10_p, 1), "binomial; independent models: matches by chance"
        ),
        Evidence("matched-token-rows", tokens.matched, f"of {tokens.compared} embedding rows"),
    )
    return Lineage(_status(neurons, tokens), evidence)


def count_matches(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> Matches:
    """Pool the matched-neuron counts of several bands; of two heights the smaller counts."""
    import torch

    matched, compared, smallest, correlations = 0, 0, 0, list[float]()
    for left, right in pairs:
        rows, width = min(len(left), len(right)), left.shape[1]
        if rows < 2 or width != right.shape[1]:
            continue
        similarity = _centred(left[:rows]) @ _centred(right[:rows]).T
        hits = int((similarity.argmax(1) == torch.arange(rows)).sum().item())
        matched, compared = matched + hits, compared + rows
        smallest = min(smallest or rows, rows)
        correlations.extend(similarity.diagonal().tolist())
    if not compared:
        return Matches(0, 0, 0.0, 0.0)
    log10_p = log10_binomial_tail(matched, compared, 1 / smallest)
    return Matches(matched, compared, log10_p, float(torch.tensor(correlations).median().item()))


def log10_binomial_tail(successes: int, trials: int, chance: float) -> float:
    """log10 of P(X ≥ successes) for X binomial, floored at -300."""
    if successes <= 0:
        return 0.0
    logs = [
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(chance)
        + (trials - k) * math.log1p(-chance)
        for k in range(successes, trials + 1)
    ]
    top = max(logs)
    total = top + math.log(sum(math.exp(value - top) for value in logs))
    return max(-300.0, min(0.0, total / math.log(10)))


def _status(neurons: Matches, tokens: Matches) -> LineageStatus:
    if neurons.log10_p <= PROVED_LOG10_P:
        return LineageStatus.PROVED
    if min(neurons.log10_p, tokens.log10_p) <= SUPPORTED_LOG10_P:
        return LineageStatus.CONSISTENT
    if neurons.compared >= ENOUGH_NEURONS:
        return LineageStatus.UNRELATED
    return LineageStatus.UNKNOWN


def shared_module(original: WeightReader, fork: WeightReader) -> str:
    """The first feed-forward module both have; any module with layers, if there is none."""
    common = original.tensors().keys() & fork.tensors().keys()
    modules = {module_of(name) for name in common if _is_layer_matrix(original, name)}
    for module in (*NEURON_MODULES, *sorted(modules)):
        if module in modules:
            return module
    return NEURON_MODULES[0]


def _is_layer_matrix(reader: WeightReader, name: str) -> bool:
    shape = reader.tensors()[name].shape
    return name.endswith(".weight") and layer_of(name) is not None and len(shape) == 2 and min(shape) > 1


def _sample(reader: WeightReader, module: str, rows: int, wanted: Collection[int] | None) -> Bands:
    layers: dict[int, torch.Tensor] = {}
    for name in reader.tensors():
        layer = layer_of(name)
        if layer is None or layer in layers or (wanted is not None and layer not in wanted):
            continue
        if module_of(name) == module and _is_layer_matrix(reader, name):
            band = _band(reader, name, rows)
            if band is not None:
                layers[layer] = band
    embedding = _band(reader, EMBEDDING, 2 * rows) if EMBEDDING in reader.tensors() else None
    return Bands(layers, embedding)


def _band(reader: WeightReader, name: str, rows: int) -> torch.Tensor | None:
    import torch

    shape = reader.tensors()[name].shape
    if len(shape) != 2:
        return None
    first = min(shape[0] // 4, max(shape[0] - rows, 0))
    try:
        return torch.nan_to_num(reader.band(name, first, rows).to(torch.float32), posinf=0.0, neginf=0.0)
    except UnreadableTensorError:
        return None


def _signatures(bands: Bands, layers: list[int]) -> torch.Tensor:
    import torch

    rows = min(len(bands.layers[layer]) for layer in layers)
    flat = torch.stack([_double_centred(bands.layers[layer][:rows]).flatten() for layer in layers])
    unit: torch.Tensor = flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-30)
    return unit


def _double_centred(band: torch.Tensor) -> torch.Tensor:
    band = band - band.mean(1, keepdim=True)
    return band - band.mean(0, keepdim=True)


def _centred(band: torch.Tensor) -> torch.Tensor:
    """Rows of unit length, what they share with each other taken out."""
    centred = _double_centred(band)
    unit: torch.Tensor = centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-30)
    return unit
