"""What every edit finder is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from detector.compare import Comparison
from detector.interface import TensorStatus, WeightReader
from detector.lineage import Bands
from detector.pairing import Pair, Pairing
from detector.sample import ELEMENTS, Sample, load_sample


@dataclass(frozen=True, slots=True)
class Relatives:
    """What is at hand of other models: the ones that a merge may have been made with."""

    bands: tuple[Bands, Bands] | None = None
    """Sampled neurons of the original and of the fork."""
    layers: Mapping[int, int] = field(default_factory=dict)
    """Layer of the fork → layer of the original it is a copy of."""
    known: Mapping[str, Bands] = field(default_factory=dict)
    """Sampled neurons of known models, from the same rows."""
    parents: Mapping[str, WeightReader] = field(default_factory=dict)
    """Known models whose full weights can be read."""


@dataclass(frozen=True, slots=True)
class Context:
    """Two paired checkpoints and the comparison of every pair."""

    original: WeightReader
    fork: WeightReader
    pairing: Pairing
    comparisons: tuple[Comparison, ...]
    relatives: Relatives = Relatives()

    def changed(self) -> tuple[Comparison, ...]:
        """Pairs whose values differ by more than a change of type."""
        return tuple(c for c in self.comparisons if c.status is TensorStatus.CHANGED)

    def changed_matrices(self) -> tuple[Comparison, ...]:
        """The changed pairs that are matrices."""
        return tuple(c for c in self.changed() if c.pair.is_matrix)

    def sample(self, pair: Pair, elements: int = ELEMENTS) -> Sample:
        """Values of a pair to take a spectrum of."""
        return load_sample(pair, self.original, self.fork, elements)


def module_names(pairs: list[Pair]) -> tuple[str, ...]:
    """Modules of these pairs, sorted, each once."""
    return tuple(sorted({pair.module for pair in pairs}))


def layer_range(pairs: list[Pair]) -> tuple[int, int] | None:
    """First and last layer of these pairs; None when none is in a layer."""
    layers = [pair.layer for pair in pairs if pair.layer is not None]
    return (min(layers), max(layers)) if layers else None
