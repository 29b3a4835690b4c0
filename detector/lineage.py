"""Whether two checkpoints share an ancestor, from a few rows of each layer.

The main test is the matched-neuron one of Zhu et al. (arXiv 2502.12292): the order of the neurons of a
feed-forward layer is arbitrary, so in a model trained independently a neuron is no more like the one at its
own position in the original than like any other. Its most similar neuron among k is the one at its own
position with chance 1/k, whatever the two models have in common by architecture, tokenizer or data. The
count of such coincidences is binomial, and its tail is the p-value. The test is symmetric: it cannot say
which of the two came first.

A copy can be disguised without a change of what it computes; each disguise leaves something as it was
(`invariants`), and 'unrelated' is said only when nothing at all is alike:

    disguise                            what it leaves
    neurons scaled                      directions of the rows
    norm gains folded into the rows     rows times gains
    residual stream rotated             angles between neurons, angles between token rows
    neurons or heads permuted           norm gains, token rows; the neurons are found elsewhere in the layer
    several of these                    angles between token rows
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from detector.errors import UnreadableTensorError
from detector.floats import Floats, read_floats
from detector.formats.views import view_cost
from detector.interface import Evidence, Lineage, LineageStatus, TensorInfo, WeightReader
from detector.invariants import found_elsewhere, gain_agreement, token_angles
from detector.neurons import Matches, count_matches, match_neurons
from detector.pairing import EMBEDDINGS
from detector.prefetch import read_together
from detector.roster import GATE, gains_of, neuron_matrices, shared_kind

BAND = 32
"""Rows of a layer that are compared with each other."""
GAINS = 8
"""Layers whose norm gains are read: one vector of the average over layers is tested."""
PROVED_LOG10_P = -12.0
SUPPORTED_LOG10_P = -6.0
SUSPECT_LOG10_P = -3.0
"""Above this nothing is alike; between the two it is unknown."""
ENOUGH_NEURONS = 64
"""Neurons below which a missing match says nothing: 64 of 32 a layer leave a chance hit rate of 2 ± 1.4."""
SAME_LAYER = 0.5
"""Correlation of two layers' bands above which one derives from the other; others stay under 0.1."""
SAME_ANGLES = 0.9
"""Correlation of what is accidental in the angles between token rows from which 'unrelated' is not said.
Measured on byte-level models of 0.9M parameters: rotated copies 0.99 and more, in four bits or fine-tuned
too; two seeds trained on the same text 0.49 to 0.84, on other text 0.14 to 0.65."""
SEARCHED_LAYERS = 2
"""Layers of the original that are searched whole for a neuron of the fork."""


@dataclass(frozen=True, slots=True)
class Bands:
    """Sampled neurons of one checkpoint."""

    layers: Mapping[int, Floats]
    """Layer → (rows, width)."""
    embedding: Floats | None
    """Rows of consecutive tokens."""
    gains: Mapping[int, Floats] = field(default_factory=dict)
    """Layer → (width), the gain of the norm before its feed-forward block; of some layers."""
    kind: str = GATE
    """Which neurons these are, see `roster`."""


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
    kind = shared_kind(original, fork)
    theirs = _targets(fork, kind, _widths(original, kind))
    return _sample(_targets(original, kind), rows, layers), _sample(theirs, rows, layers)


def sample_model(reader: WeightReader, rows: int = BAND, layers: Collection[int] | None = None) -> Bands:
    """What `sample_bands` takes of a checkpoint that is compared with others of its kind later."""
    return _sample(_targets(reader, shared_kind(reader, reader)), rows, layers)


def sample_cost(original: WeightReader, fork: WeightReader, rows: int) -> int:
    """Bytes of the fork that `sample_bands` reads for so many rows of every layer."""
    kind = shared_kind(original, fork)
    targets = _targets(fork, kind, _widths(original, kind))
    infos = [(info, rows) for info in targets.matrices.values()]
    infos += [(targets.gains[layer], targets.gains[layer].shape[0]) for layer in _spread(list(targets.gains))]
    infos += [(targets.tokens, 2 * rows)] if targets.tokens is not None else []
    return sum(view_cost(fork, info, count) for info, count in infos)


@dataclass(frozen=True, slots=True)
class _Targets:
    """The tensors of one checkpoint that are sampled."""

    reader: WeightReader
    kind: str
    matrices: Mapping[int, TensorInfo]
    gains: Mapping[int, TensorInfo]
    tokens: TensorInfo | None


def _widths(original: WeightReader, kind: str) -> frozenset[int]:
    """Widths of the original's rows: others are not compared, and a hostile header may claim any."""
    widths = {info.shape[1] for info in neuron_matrices(original).get(kind, {}).values()}
    tokens = (info.shape for name, info in original.tensors().items() if name in EMBEDDINGS)
    widths |= {shape[-1] for shape in tokens if shape}
    return frozenset(widths)


def _targets(reader: WeightReader, kind: str, widths: frozenset[int] | None = None) -> _Targets:
    def fits(info: TensorInfo) -> bool:
        return widths is None or info.shape[-1] in widths

    matrices = {layer: info for layer, info in neuron_matrices(reader).get(kind, {}).items() if fits(info)}
    gains = {n: info for n, info in gains_of(reader).items() if n in matrices and fits(info)}
    tokens = [
        info
        for name, info in reader.tensors().items()
        if name in EMBEDDINGS and len(info.shape) == 2 and fits(info)
    ]
    return _Targets(reader, kind, matrices, gains, tokens[0] if tokens else None)


def align_layers(original: Bands, fork: Bands) -> dict[int, int]:
    """Layer of the fork → layer of the original whose neurons it holds; layers like none are left out."""
    reference = {layer: _signature(band) for layer, band in original.layers.items()}
    aligned = {}
    for layer, band in sorted(fork.layers.items()):
        signature = _signature(band)
        similar = {
            number: float(signature @ other)
            for number, other in reference.items()
            if other.size == signature.size
        }
        if similar.get(layer, 0.0) >= SAME_LAYER:
            aligned[layer] = layer
        elif similar and max(similar.values()) >= SAME_LAYER:
            aligned[layer] = max(similar, key=lambda number: (similar[number], -number))
    return aligned


def judge_lineage(original: Bands, fork: Bands, layers: Mapping[int, int]) -> Lineage:
    """Test common descent.

    Args:
        original: sampled neurons of the original.
        fork: sampled neurons of the fork, from the same rows.
        layers: layer of the fork → layer of the original to compare it with.
    """
    shared = [(o, f) for f, o in layers.items() if o in original.layers and f in fork.layers]
    pairs = [(original.layers[o], fork.layers[f]) for o, f in shared]
    gains = [(original.gains.get(o), fork.gains.get(f)) for o, f in shared]
    neurons, angles = match_neurons(pairs, gains)
    tokens, token_likeness = Matches(0, 0, 0.0, 0.0), 0.0
    if original.embedding is not None and fork.embedding is not None:
        tokens = count_matches([(original.embedding, fork.embedding)])
        token_likeness = token_angles(original.embedding, fork.embedding)
    gain_p = gain_agreement(
        [(left, right) for left, right in gains if left is not None and right is not None]
    )
    evidence = (
        Evidence("matched-neurons", neurons.matched, f"of {neurons.compared}, at their own position"),
        Evidence("neuron-correlation", round(neurons.correlation, 4), "median"),
        Evidence(
            "log10-p-value", round(neurons.log10_p, 1), "binomial; independent models: matches by chance"
        ),
        Evidence(
            "log10-p-angles",
            round(angles.log10_p, 1),
            "the same for the angles between neurons: rotated copies",
        ),
        Evidence("matched-token-rows", tokens.matched, f"of {tokens.compared} embedding rows"),
        Evidence("token-angle-correlation", round(token_likeness, 4), "1 in a copy, even if it was rotated"),
        Evidence(
            "log10-p-gains", round(gain_p, 1), "rank correlation of norm gains; null: permuted channels"
        ),
    )
    values = (neurons.log10_p, angles.log10_p, tokens.log10_p, gain_p)
    alike = token_likeness >= SAME_ANGLES
    return Lineage(_status(values, neurons.compared, alike=alike), evidence)


def search_neurons(
    lineage: Lineage, original: WeightReader, bands: tuple[Bands, Bands], layers: Mapping[int, int]
) -> Lineage:
    """Before 'unrelated' is said: look for the fork's neurons anywhere in the layers of the original.

    Args:
        lineage: what `judge_lineage` said; anything but UNRELATED and UNKNOWN is returned as it is.
        original: the original, which is local: up to two of its matrices are read whole.
        bands: of original and fork.
        layers: layer of the fork → layer of the original.
    """
    if lineage.status not in {LineageStatus.UNRELATED, LineageStatus.UNKNOWN}:
        return lineage
    fork = bands[1]
    matrices = neuron_matrices(original).get(fork.kind, {})
    found, compared = 0, 0
    for layer in _spread(
        [f for f, o in layers.items() if f in fork.layers and o in matrices], SEARCHED_LAYERS
    ):
        info, gain = matrices[layers[layer]], bands[0].gains.get(layers[layer])
        if info.shape[-1] == fork.layers[layer].shape[1]:
            read = partial(read_floats, original, info)
            found += found_elsewhere(read, info.shape[0], gain, (fork.layers[layer], fork.gains.get(layer)))
            compared += len(fork.layers[layer])
    evidence = Evidence(
        "neurons-found-elsewhere",
        found,
        f"of {compared}, like exactly one neuron at another place of the layer",
    )
    permuted = compared > 0 and 2 * found >= compared
    status = LineageStatus.CONSISTENT if permuted else lineage.status
    return Lineage(status, (*lineage.evidence, evidence))


def _status(values: tuple[float, ...], compared: int, *, alike: bool) -> LineageStatus:
    """Of the neurons and of their angles, either proves; Bonferroni's factor is in the thresholds."""
    neurons, angles = values[:2]
    if min(neurons, angles) <= PROVED_LOG10_P:
        return LineageStatus.PROVED
    if min(values) <= SUPPORTED_LOG10_P:
        return LineageStatus.CONSISTENT
    if compared < ENOUGH_NEURONS or alike or min(values) <= SUSPECT_LOG10_P:
        return LineageStatus.UNKNOWN
    return LineageStatus.UNRELATED


def _sample(targets: _Targets, rows: int, wanted: Collection[int] | None) -> Bands:
    matrices = {layer: info for layer, info in targets.matrices.items() if wanted is None or layer in wanted}
    gains = {layer: targets.gains[layer] for layer in _spread([n for n in matrices if n in targets.gains])}
    tokens = targets.tokens
    reads = [partial(_band, targets.reader, info, rows) for info in matrices.values()]
    reads += [partial(_band, targets.reader, info, info.shape[0]) for info in gains.values()]
    reads += [] if tokens is None else [partial(_band, targets.reader, tokens, 2 * rows)]
    found = read_together(reads)
    vectors = dict(zip(gains, found[len(matrices) :], strict=False))
    return Bands(
        {layer: band for layer, band in zip(matrices, found, strict=False) if band is not None},
        found[-1] if tokens is not None else None,
        {layer: gain for layer, gain in vectors.items() if gain is not None},
        targets.kind,
    )


def _band(reader: WeightReader, info: TensorInfo, rows: int) -> Floats | None:
    height = info.shape[0] if info.shape else 0
    first = min(height // 4, max(height - rows, 0))
    try:
        return read_floats(reader, info, first, rows)
    except UnreadableTensorError:
        return None


def _spread(layers: list[int], count: int = GAINS) -> list[int]:
    """At most `count` of these, evenly."""
    ordered = sorted(layers)
    count = min(count, len(ordered))
    return [ordered[index * len(ordered) // count] for index in range(count)]


def _signature(band: Floats) -> Floats:
    """A band as a vector of unit length, what its rows and its columns share taken out."""
    band = band - band.mean(1, keepdims=True)
    flat = (band - band.mean(0, keepdims=True)).ravel()
    unit: Floats = flat / np.float32(max(float(np.linalg.norm(flat)), 1e-30))
    return unit
