"""What an honest detector may say of a pair, from the edit itself and the stored values.

The truth is always right. Where storing has drowned the edit, other answers are right as well; that is
decided here by an oracle that knows the edit's unrounded change Δ. With S the stored change,
c = ⟨S, Δ⟩ / ⟨Δ, Δ⟩ and the remainder E = S − cΔ of root mean square σ:

- singular values of cΔ stand out of the remainder from σ(√m + √n) (Marchenko and Pastur); we ask twice that,
  because rounding is not white. A low-rank change is visible when 90 % of its energy stands out so, an edit
  of directions when its first one does. A sketch sees `sketched_rows` only.
- a dense change is visible without quantisation when one value in a hundred moved; under it, when its energy
  reaches the remainder's: less is told from a scheme's own noise only by who knows its rounding.
- a merge is visible when half of the stored change's energy follows from Δ.

No threshold here was taken from what a detector says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

import torch

from benchmarks.zoo import names
from benchmarks.zoo.models import Weights
from detector.interface import EditKind as K

Kinds = frozenset[K]
ROWS = 300
"""Rows of each module, over all layers, that 0.5 % of the bytes of a 1B-shaped model buy: hidden 2048,
feed-forward 8192, 16 layers, bf16, tied embeddings of 128 256 tokens are 2.47 GB, of which 12.4 MB; a row of
each of a layer's seven matrices takes 2·(6·2048 + 8192) = 40 960 bytes, so 12.4 MB / (16·40 960 + 4 096) =
18.8 rows of each matrix, 16·18.8 = 300 of each module. The zoo's rows are 4 to 32 times shorter and say less.
"""
CAP = 0.5
"""Share of a matrix's rows that a sketch gets at most, however small the matrix is."""
SAMPLED = 12
"""Matrices that the oracle looks at, evenly spread."""


class Sight(StrEnum):
    """Which rule decides whether an edit can still be seen."""

    ALWAYS = "always"
    LOW_RANK = "low-rank"
    DIRECTIONS = "directions"
    DENSE = "dense"
    MERGE = "merge"


@dataclass(frozen=True)
class Seen:
    """The oracle's figures."""

    moved: float
    """Median share of the touched tensors' values whose stored value moved."""
    relative: float
    """Median ‖Δ‖ / ‖W‖ of the touched tensors, unrounded."""
    spikes: float
    """Median share of a matrix's energy that stands out of the remainder."""
    first: float
    """Median of the first singular value over twice the edge."""
    followed: float
    """Median share of the stored change's energy that follows from Δ."""
    rank_share: float
    """Median of the rank that holds 99 % of Δ's energy, over the smaller dimension."""


def sketched_rows(height: int, layers: int) -> int:
    """Rows of one matrix that a sketch of one of the zoo's models can pay for, of so many layers."""
    return max(1, min(ROWS // layers, int(CAP * height)))


def look(original: Weights, made: Weights, stored: Weights, layers: int | None = None) -> Seen:
    """The oracle; given the number of layers, as far as a sketch sees."""
    touched = [
        name
        for name, value in made.items()
        if name in original
        and original[name].shape == value.shape
        and name in stored
        and not torch.equal(value, original[name])
    ]
    if not touched:
        return Seen(1.0, 0.0, 1.0, 1.0, 1.0, 0.0)
    moved, relative = [], []
    for name in touched:
        moved.append(float((stored[name] != original[name]).float().mean()))
        relative.append(float((made[name] - original[name]).norm() / original[name].norm().clamp_min(1e-12)))
    matrices = [name for name in touched if original[name].dim() == 2 and not names.has_tokens(name)]
    chosen = matrices[:: max(1, len(matrices) // SAMPLED)]
    figures = [_figures(original[name], made[name], stored[name], layers) for name in chosen] or [
        (1.0, 1.0, 1.0, 0.0)
    ]
    spikes, first, followed, ranks = zip(*figures, strict=True)
    return Seen(
        median(moved), median(relative), median(spikes), median(first), median(followed), median(ranks)
    )


def _figures(
    original: torch.Tensor, made: torch.Tensor, stored: torch.Tensor, layers: int | None
) -> tuple[float, float, float, float]:
    delta, change = made - original, stored - original
    energy = float((delta * delta).sum())
    factor = max(float((change * delta).sum()) / energy, 0.0)
    rest = change - factor * delta
    sigma = float(rest.square().mean().sqrt())
    height, width = delta.shape
    seen = sketched_rows(height, layers) if layers else height
    edge = 2 * sigma * (seen**0.5 + width**0.5)
    values = factor * torch.linalg.svdvals(delta) * (seen / height) ** 0.5
    total = float(values.square().sum())
    shown = float(values[values > edge].square().sum()) / total if total else 0.0
    cumulated = torch.cumsum(values.square(), 0)
    rank = 1 + int((cumulated < 0.99 * total).sum())
    stored_energy = float(change.square().sum())
    followed = factor * factor * energy / stored_energy if stored_energy else 0.0
    return shown, float(values[0]) / edge if edge else 2.0, followed, rank / min(seen, width)


def is_clear(sight: Sight, seen: Seen, *, quantised: bool) -> bool:
    """The edit must be named; otherwise other answers are as honest."""
    match sight:
        case Sight.LOW_RANK:
            # "low rank" is a statement about r ≪ min(m, n); above a half of it there is nothing to tell
            return seen.spikes >= 0.9 and seen.rank_share <= 0.5
        case Sight.DIRECTIONS:
            return seen.first >= 1
        case Sight.DENSE:
            return seen.followed >= 0.5 if quantised else seen.moved >= 0.01
        case Sight.MERGE:
            return seen.followed >= 0.5 and seen.moved >= 0.05
        case _:
            return True


def acceptable(
    truth: Kinds, container: Kinds, dense: K, *, clear: bool, optional: Kinds = frozenset()
) -> frozenset[Kinds]:
    """Every kind set that is right.

    Args:
        truth: kinds of the edit.
        container: kinds of the container.
        dense: what the change looks like when only its places can be told, full or partial fine-tuning.
        clear: the edit is visible.
        optional: kinds that may stand beside, such as the cast of what a quantiser leaves alone.
    """
    found = {truth | container}
    if not clear:
        for other in _subsets(truth):
            for said in ((), (dense,), (K.UNKNOWN,)):
                found.add(frozenset(other | set(said)) | container)
        found.discard(frozenset())
    return frozenset(kinds | extra for kinds in found for extra in (frozenset(), optional))


def _subsets(kinds: Kinds) -> Iterable[set[K]]:
    """Leaving out one or all of them."""
    return ({kind for kind in kinds if kind is not out} for out in kinds)


def unchanged(original: Mapping[str, torch.Tensor], stored: Weights) -> bool:
    """Nothing of the edit survived storing."""
    return original.keys() == stored.keys() and all(
        original[name].shape == value.shape and torch.equal(original[name].float(), value)
        for name, value in stored.items()
    )
