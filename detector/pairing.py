"""Which tensor of a fork is compared with which tensor of the original."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.formats.names import layer_of, module_of, with_layer
from detector.interface import TensorInfo, WeightReader

if TYPE_CHECKING:
    import torch

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
BLOCK_ELEMENTS = 1 << 22
"""Elements read at a time: 16 MiB a side in float32."""

RESIDUAL_WRITERS = frozenset({"o_proj", "out_proj", "down_proj", "w2", "embed_tokens"})
"""Modules whose output is added to the residual stream."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two tensors of the same role."""

    name: str
    """The fork's canonical name."""
    original: TensorInfo
    fork: TensorInfo

    @property
    def layer(self) -> int | None:
        """Layer in the fork."""
        return layer_of(self.name)

    @property
    def module(self) -> str:
        """Projection or norm."""
        return module_of(self.name)

    @property
    def is_matrix(self) -> bool:
        """Two dimensions, each above one."""
        return len(self.fork.shape) == 2 and min(self.fork.shape) > 1

    @property
    def writes_residual(self) -> bool:
        """Its rows (for the embedding: its columns) are residual-stream dimensions."""
        return self.is_matrix and self.name.endswith("weight") and self.module in RESIDUAL_WRITERS


@dataclass(frozen=True, slots=True)
class Pairing:
    """Every tensor of two checkpoints, by role."""

    pairs: tuple[Pair, ...]
    """Same shape; sorted by name."""
    reshaped: tuple[Pair, ...]
    added: tuple[TensorInfo, ...]
    missing: tuple[TensorInfo, ...]


def pair_tensors(
    original: Mapping[str, TensorInfo],
    fork: Mapping[str, TensorInfo],
    layers: Mapping[int, int] | None = None,
) -> Pairing:
    """Pair tensors by canonical name.

    A head that one side ties to the embedding is paired with that embedding.

    Args:
        original: tensors of the original.
        fork: tensors of the fork.
        layers: layer of the fork → layer of the original it is a copy of, where they differ; layers of the
            fork that are not in it have no counterpart.
    """
    pairs, reshaped, added, used = list[Pair](), list[Pair](), list[TensorInfo](), set[str]()
    for name, info in fork.items():
        counterpart = _counterpart(name, layers)
        if counterpart == HEAD and HEAD not in original:
            counterpart = EMBEDDING
        if counterpart is None or counterpart not in original:
            added.append(info)
            continue
        used.add(counterpart)
        pair = Pair(name, original[counterpart], info)
        (pairs if info.shape == original[counterpart].shape else reshaped).append(pair)
    if HEAD in original and HEAD not in fork and EMBEDDING in fork:
        used.add(HEAD)
        head = Pair(HEAD, original[HEAD], fork[EMBEDDING])
        (pairs if head.fork.shape == head.original.shape else reshaped).append(head)
    missing = tuple(info for name, info in original.items() if name not in used)
    return Pairing(tuple(sorted(pairs, key=lambda pair: pair.name)), tuple(reshaped), tuple(added), missing)


def _counterpart(name: str, layers: Mapping[int, int] | None) -> str | None:
    layer = layer_of(name)
    if layers is None or layer is None:
        return name
    return with_layer(name, layers[layer]) if layer in layers else None


def blocks(
    pair: Pair, original: WeightReader, fork: WeightReader
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Both sides of a pair of the same shape, some rows at a time, in their stored dtypes."""
    shape = pair.fork.shape
    if not shape:
        yield original.values(pair.original.name), fork.values(pair.fork.name)
        return
    width = max(1, _product(shape[1:]))
    step = max(1, BLOCK_ELEMENTS // width)
    for first in range(0, shape[0], step):
        yield original.band(pair.original.name, first, step), fork.band(pair.fork.name, first, step)


def _product(numbers: tuple[int, ...]) -> int:
    product = 1
    for number in numbers:
        product *= number
    return product
