"""What every edit finder is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import Lock

from detector.compare import Comparison
from detector.floats import Floats
from detector.formats.views import view
from detector.interface import TensorStatus, WeightReader
from detector.lineage import Bands
from detector.pairing import EMBEDDINGS, RESIDUAL_WRITERS, Pair, Pairing
from detector.sample import ELEMENTS, Sample, is_scattered, load_delta, load_sample

PATCH_SHARE = 0.1
"""Share of a matrix's rows, or of its columns, that a patch stays within."""
MOST_KEPT = 32
"""Small samples that are kept, of some 4 MB each."""
EXPERTS = 32
"""Experts of a stack that are looked at."""


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
    reading: Lock = field(default_factory=Lock, repr=False, compare=False)
    """Held while values are read: readers need not be safe to share between threads."""
    kept: dict[tuple[str, str, int], Sample] = field(default_factory=dict, repr=False, compare=False)
    """Small samples that all of a large matrix had to be gone through for: each finder asks for them."""

    def changed(self) -> tuple[Comparison, ...]:
        """Pairs whose values differ by more than a change of type."""
        return tuple(c for c in self.comparisons if c.status is TensorStatus.CHANGED)

    def changed_matrices(self) -> tuple[Comparison, ...]:
        """The changed pairs that are matrices; of stacked experts, `EXPERTS` evenly spread, as views."""
        changed = self.changed()
        stacked = [_expert(c, number, self._hidden()) for c in changed for number in _experts(c.pair)]
        return (*(c for c in changed if c.pair.is_matrix), *stacked)

    def residual_first(self, pair: Pair) -> Pair:
        """The pair with outputs as its rows; GPT-2's `c_proj` is stored the other way round."""
        shapes = [info.shape for name, info in self.fork.tensors().items() if name.endswith(".c_fc.weight")]
        if pair.module != "c_proj" or not any(len(s) == 2 and s[0] < s[1] for s in shapes):
            return pair
        return Pair(pair.name, view(pair.original, "T"), view(pair.fork, "T"), pair.by)

    def _hidden(self) -> int:
        """Width of the residual stream; 0 if there is no embedding."""
        tensors = self.original.tensors()
        return next((tensors[name].shape[-1] for name in EMBEDDINGS if name in tensors), 0)

    def sample(self, pair: Pair, elements: int = ELEMENTS) -> Sample:
        """Values of a pair to take a spectrum of, which nobody changes; safe in several threads."""
        key = (pair.original.name, pair.fork.name, elements)
        with self.reading:
            sample = self.kept.get(key)
            if sample is None:
                sample = load_sample(pair, self.original, self.fork, elements)
                if elements < ELEMENTS and is_scattered(pair, elements) and len(self.kept) < MOST_KEPT:
                    self.kept[key] = sample
        return sample

    def delta(self, pair: Pair, elements: int) -> Floats:
        """The change alone of such a sample."""
        with self.reading:
            sample = self.kept.get((pair.original.name, pair.fork.name, elements))
            return sample.delta if sample else load_delta(pair, self.original, self.fork, elements)


def _experts(pair: Pair) -> range:
    if len(pair.fork.shape) != 3 or min(pair.fork.shape) < 2:
        return range(0)
    return range(0, pair.fork.shape[0], -(-pair.fork.shape[0] // EXPERTS))


def _expert(comparison: Comparison, number: int, hidden: int) -> Comparison:
    """One expert of a stack, outputs first where the width of the residual stream tells."""
    pair = comparison.pair
    stem, _, module = pair.name.removesuffix(".weight").rpartition(".")
    outputs, inputs = pair.fork.shape[1:]
    writes = module in RESIDUAL_WRITERS
    turned = outputs != inputs and (inputs if writes else outputs) == hidden
    operations = (f"index:{number}", "T") if turned else (f"index:{number}",)
    name = f"{stem}.{number}.{module}.weight"
    views = (view(pair.original, *operations), view(pair.fork, *operations))
    return replace(comparison, pair=Pair(name, *views, pair.by))


def is_confined(comparison: Comparison) -> bool:
    """The change stays within a few rows or columns, and the rest is stored alike."""
    same_type = comparison.pair.fork.dtype == comparison.pair.original.dtype
    return same_type and min(comparison.moved_rows, comparison.moved_columns) <= PATCH_SHARE


def module_names(pairs: list[Pair]) -> tuple[str, ...]:
    """Modules of these pairs, sorted, each once."""
    return tuple(sorted({pair.module for pair in pairs}))


def layer_range(pairs: list[Pair]) -> tuple[int, int] | None:
    """First and last layer of these pairs; None when none is in a layer."""
    layers = [pair.layer for pair in pairs if pair.layer is not None]
    return (min(layers), max(layers)) if layers else None
