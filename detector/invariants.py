"""What a disguised copy still has in common with its original.

Function-preserving changes of a transformer are permutations of neurons, of heads and of the residual
channels, rotations of the residual stream, scalings of neurons and gains folded into the next matrices (Zhu
et al., arXiv 2502.12292, section 4; Ashkboos et al., arXiv 2404.00456). Whoever wants to hide where a model
comes from can use all of them. These are quantities that survive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from detector.grid import usable
from detector.neurons import READINGS, Pairs, unit_rows, with_gain

if TYPE_CHECKING:
    import torch

ELSEWHERE = 0.8
"""Cosine from which a neuron at another place is the same one. Of 16 384 independent ones of width 64 the
nearest has 0.55; isotropic rows reach 0.8 with a chance of 1e-11 there."""
RIVAL = 0.1
"""Least distance to the next best candidate."""
ELEMENTS_AT_A_TIME = 1 << 20
COMMON = 16
"""One component of the angles between tokens is taken out for this many rows."""


def gain_agreement(pairs: Pairs) -> float:
    """log10 of the p-value of the rank correlation between two models' norm gains.

    The null is exact by symmetry: the residual channels of an independent model are exchangeable, as their
    order means nothing to initialisation and training. Gains are averaged over the layers by rank, since the
    channels are the same in all of them; the tail is the normal approximation of Spearman's coefficient,
    bounded by the number of permutations.

    Args:
        pairs: gains of the original and of the fork, (width) each. Constant vectors say nothing.
    """
    import torch

    usable = [(left, right) for left, right in pairs if left.shape == right.shape and _varies(left, right)]
    if not usable or len({len(left) for left, _ in usable}) > 1:
        return 0.0
    sides = [torch.stack([_ranks(pair[side]) for pair in usable]).mean(0) for side in (0, 1)]
    left, right = (_ranks(side) for side in sides)
    count = len(left)
    left, right = left - left.mean(), right - right.mean()
    rho = float((left @ right / (left.norm() * right.norm()).clamp_min(1e-30)).item())
    z = rho * math.sqrt(count - 1)
    return max(_log10_normal_tail(z), -math.lgamma(count + 1) / math.log(10), -300.0)


def token_angles(left: torch.Tensor, right: torch.Tensor) -> float:
    """Correlation of the angles between the same tokens' rows in two embeddings; 0 if there are too few.

    Tokens mean the same to any model, so that the leading components of these angles agree between models
    that were trained apart (0.94 of all, for two seeds on the same text). They are taken out; what is left
    is accident, and agrees in copies alone.
    """
    import torch

    rows = min(len(left), len(right))
    if rows < 16:
        return 0.0
    cosines = []
    for side in (left[:rows], right[:rows]):
        unit = unit_rows(side - side.mean(0, keepdim=True)).double()
        cosines.append(unit @ unit.T)
    count = max(1, rows // COMMON)
    common = torch.cat([torch.linalg.eigh(each).eigenvectors[:, -count:] for each in cosines], dim=1)
    basis = torch.linalg.qr(common)[0]
    rest = torch.eye(rows, dtype=torch.float64) - basis @ basis.T
    above = torch.triu_indices(rows, rows, 1)
    first, second = ((rest @ each @ rest)[above[0], above[1]] for each in cosines)
    first, second = first - first.mean(), second - second.mean()
    return float((first @ second / (first.norm() * second.norm()).clamp_min(1e-30)).item())


def found_elsewhere(
    read: Callable[[int, int], torch.Tensor],
    height: int,
    gain: torch.Tensor | None,
    fork: tuple[torch.Tensor, torch.Tensor | None],
) -> int:
    """Neurons of a band that are like exactly one neuron of a whole layer, each like another one.

    Args:
        read: rows of the original's matrix, by first row and count.
        height: of that matrix.
        gain: before the original's neurons.
        fork: the band, (rows, width), and the gain before it.
    """
    import torch

    counts, step = [], max(1, ELEMENTS_AT_A_TIME // fork[0].shape[1])
    for reading in READINGS if gain is not None and fork[1] is not None else READINGS[:1]:
        wanted = unit_rows(with_gain(fork[0], fork[1], reading))
        best, places = torch.zeros(len(wanted), 2), torch.zeros(len(wanted), dtype=torch.long)
        for first in range(0, height, step):
            rows = usable(read(first, min(step, height - first)))
            cosines = (wanted @ unit_rows(with_gain(rows, gain, reading)).T).abs()
            top = cosines.topk(min(2, cosines.shape[1]), dim=1)
            places = torch.where(top.values[:, 0] > best[:, 0], top.indices[:, 0] + first, places)
            best = torch.cat([best, top.values], dim=1).topk(2, dim=1).values
        alike = (best[:, 0] >= ELSEWHERE) & (best[:, 0] - best[:, 1] >= RIVAL)
        counts.append(len(set(places[alike].tolist())))
    return max(counts)


def _varies(*vectors: torch.Tensor) -> bool:
    """Not gains that were folded away, or never trained: no value is that of half the channels."""
    import torch

    counts = [torch.unique(vector, return_counts=True)[1] for vector in vectors]
    return all(len(count) >= 8 and 2 * int(count.max().item()) <= int(count.sum().item()) for count in counts)


def _ranks(vector: torch.Tensor) -> torch.Tensor:
    """Mid-ranks, so that ties carry no order."""
    import torch

    _, inverse, counts = torch.unique(vector, return_inverse=True, return_counts=True)
    ends = counts.cumsum(0)
    middle: torch.Tensor = (ends - (counts - 1) / 2)[inverse]
    return middle.to(torch.float64)


def _log10_normal_tail(z: float) -> float:
    """log10 of P(Z ≥ z); the asymptotic series where the function underflows."""
    if z < 30:
        return math.log10(max(math.erfc(z / math.sqrt(2)) / 2, 1e-300))
    return (-z * z / 2 - math.log(z * math.sqrt(2 * math.pi))) / math.log(10)
