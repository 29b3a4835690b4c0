"""What a disguised copy still has in common with its original.

Function-preserving changes of a transformer are permutations of neurons, of heads and of the residual
channels, rotations of the residual stream, scalings of neurons and gains folded into the next matrices (Zhu
et al., arXiv 2502.12292, section 4; Ashkboos et al., arXiv 2404.00456). Whoever wants to hide where a model
comes from can use all of them. These are quantities that survive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from detector.floats import Floats
from detector.neurons import READINGS, Pairs, unit_rows, with_gain

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
    usable = [(left, right) for left, right in pairs if left.shape == right.shape and _varies(left, right)]
    if not usable or len({len(left) for left, _ in usable}) > 1:
        return 0.0
    sides = [np.stack([_ranks(pair[side]) for pair in usable]).mean(0) for side in (0, 1)]
    left, right = (_ranks(side) for side in sides)
    count = len(left)
    left, right = left - left.mean(), right - right.mean()
    rho = float(left @ right / max(np.linalg.norm(left) * np.linalg.norm(right), 1e-30))
    z = rho * math.sqrt(count - 1)
    return max(_log10_normal_tail(z), -math.lgamma(count + 1) / math.log(10), -300.0)


def token_angles(left: Floats, right: Floats) -> float:
    """Correlation of the angles between the same tokens' rows in two embeddings; 0 if there are too few.

    Tokens mean the same to any model, so that the leading components of these angles agree between models
    that were trained apart (0.94 of all, for two seeds on the same text). They are taken out; what is left
    is accident, and agrees in copies alone.
    """
    rows = min(len(left), len(right))
    if rows < 16:
        return 0.0
    cosines = []
    for side in (left[:rows], right[:rows]):
        unit = unit_rows(side - side.mean(0, keepdims=True)).astype(np.float64)
        cosines.append(unit @ unit.T)
    count = max(1, rows // COMMON)
    common = np.concatenate([np.linalg.eigh(each).eigenvectors[:, -count:] for each in cosines], axis=1)
    basis = np.linalg.qr(common)[0]
    rest = np.eye(rows) - basis @ basis.T
    above = np.triu_indices(rows, 1)
    first, second = ((rest @ each @ rest)[above] for each in cosines)
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / max(np.linalg.norm(first) * np.linalg.norm(second), 1e-30))


def found_elsewhere(
    read: Callable[[int, int], Floats],
    height: int,
    gain: Floats | None,
    fork: tuple[Floats, Floats | None],
) -> int:
    """Neurons of a band that are like exactly one neuron of a whole layer, each like another one.

    Args:
        read: rows of the original's matrix, by first row and count; they are `usable`.
        height: of that matrix.
        gain: before the original's neurons.
        fork: the band, (rows, width), and the gain before it.
    """
    counts, step = [], max(1, ELEMENTS_AT_A_TIME // fork[0].shape[1])
    for reading in READINGS if gain is not None and fork[1] is not None else READINGS[:1]:
        wanted = unit_rows(with_gain(fork[0], fork[1], reading))
        best, places = np.zeros((len(wanted), 2)), np.zeros(len(wanted), np.int64)
        for first in range(0, height, step):
            rows = read(first, min(step, height - first))
            cosines = np.abs(wanted @ unit_rows(with_gain(rows, gain, reading)).T)
            nearest = cosines.argmax(1)
            places = np.where(cosines.max(1) > best[:, 0], nearest + first, places)
            top = np.partition(cosines, -2, axis=1)[:, -2:] if cosines.shape[1] > 1 else cosines
            best = np.sort(np.concatenate([best, top], axis=1), axis=1)[:, :-3:-1]
        alike = (best[:, 0] >= ELSEWHERE) & (best[:, 0] - best[:, 1] >= RIVAL)
        counts.append(len(set(places[alike].tolist())))
    return max(counts)


def _varies(*vectors: Floats) -> bool:
    """Not gains that were folded away, or never trained: no value is that of half the channels."""
    counts = [np.unique(vector, return_counts=True)[1] for vector in vectors]
    return all(len(count) >= 8 and 2 * int(count.max()) <= int(count.sum()) for count in counts)


def _ranks(vector: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Mid-ranks, so that ties carry no order."""
    _, inverse, counts = np.unique(vector, return_inverse=True, return_counts=True)
    middle: npt.NDArray[np.float64] = (counts.cumsum() - (counts - 1) / 2)[inverse]
    return middle


def _log10_normal_tail(z: float) -> float:
    """log10 of P(Z ≥ z); the asymptotic series where the function underflows."""
    if z < 30:
        return math.log10(max(math.erfc(z / math.sqrt(2)) / 2, 1e-300))
    return (-z * z / 2 - math.log(z * math.sqrt(2 * math.pi))) / math.log(10)
