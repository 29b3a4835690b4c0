"""Leading singular values with a stated error, and those that rounding alone would give."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from detector.floats import Floats, square_sum

OVERSAMPLING = 8
PROBES = 10
"""Gaussian vectors of the error bound: it fails with probability 10^-PROBES."""
ROUNDING = 1e-6
"""Share of a squared norm that float32 products lose."""
TRACY_WIDOM = 6.27
"""Quantile of the Tracy–Widom law of order 1 that is exceeded with probability 10⁻⁶, by the tail
exp(−⅔ s^1.5) / (4 √π s^0.75) (Bornemann, arXiv 0904.1581), which at 10⁻³ is a tenth off."""


@dataclass(frozen=True, slots=True)
class Leading:
    """The leading part of a singular value decomposition, with a bound of what sampling may have missed."""

    left: Floats
    """(m, count): left singular vectors."""
    values: Floats
    """(count): singular values, largest first; none is larger than the true one."""
    error: float
    """The squares of the true values are larger by `error`² at most, but with probability 10⁻¹⁰."""


def decompose(matrix: Floats, count: int) -> Leading:
    """Leading singular values and left vectors of an (m, n) matrix by `leading_vectors`, with their error.

    For the sampled range Q and E = A − QQᵀA, AᵀA = (QᵀA)ᵀ(QᵀA) + EᵀE, so that by Weyl's inequality
    σ̂² ≤ σ² ≤ σ̂² + ‖E‖². ‖E‖ is at most its Frobenius norm, which costs nothing, and at most
    (10·√(2/π)·max ‖(EEᵀ)²Eω‖)^(1/5) over ten Gaussian vectors ω, but with probability 10⁻¹⁰: equation 4.3 of
    Halko, Martinsson & Tropp (2011), applied to (EEᵀ)²E, whose norm is ‖E‖⁵.
    """
    basis = _range(matrix, count)
    inside = basis.T @ matrix
    left, values = _left_of(inside)
    count = min(count, *matrix.shape)
    total = square_sum(matrix)
    frobenius = math.sqrt(max(total - square_sum(inside), 0.0) + ROUNDING * total)

    def outside(vectors: Floats) -> Floats:
        found: Floats = vectors - basis @ (basis.T @ vectors)
        return found

    size = np.float32(math.sqrt(total) or 1.0)  # fifth powers would leave the range of float32
    probe = outside(matrix @ _drawn(matrix.shape[1], PROBES, 1)) / size
    for _ in range(2):
        probe = outside(matrix @ (matrix.T @ outside(probe))) / size**2
    longest = math.sqrt(np.square(probe, dtype=np.float64).sum(0).max()) + ROUNDING**2.5
    spectral = float(size) * (10 * math.sqrt(2 / math.pi) * longest) ** 0.2
    return Leading((basis @ left)[:, :count], values[:count], min(frobenius, spectral))


def leading_vectors(matrix: Floats, count: int) -> tuple[Floats, Floats]:
    """Leading left singular vectors (m, count) and singular values (count) of an (m, n) matrix.

    Randomised range finder with two power iterations (Halko, Martinsson & Tropp 2011), fixed seed.
    """
    basis = _range(matrix, count)
    left, values = _left_of(basis.T @ matrix)
    count = min(count, *matrix.shape)
    return (basis @ left)[:, :count], values[:count]


def _range(matrix: Floats, count: int) -> Floats:
    """Orthonormal columns that span the leading left singular vectors, and a few more."""
    width = min(count + OVERSAMPLING, *matrix.shape)
    basis = np.linalg.qr(matrix @ _drawn(matrix.shape[1], width, 0))[0]
    for _ in range(2):
        basis = np.linalg.qr(matrix @ (matrix.T @ basis))[0]
    return basis


def _left_of(inside: Floats) -> tuple[Floats, Floats]:
    """Left singular vectors and singular values of a matrix of few rows, from its Gram matrix in float64."""
    wide = inside.astype(np.float64)
    energies, vectors = np.linalg.eigh(wide @ wide.T)
    values = np.sqrt(np.maximum(energies[::-1], 0))
    return vectors[:, ::-1].astype(np.float32), values.astype(np.float32)


@functools.lru_cache(maxsize=64)
def _drawn(rows: int, width: int, seed: int) -> Floats:
    """The same Gaussian numbers whenever they are asked for."""
    drawn = np.random.default_rng(seed).standard_normal((rows, width), dtype=np.float32)
    drawn.flags.writeable = False
    return drawn


def noise_edge(half: Floats) -> float:
    """Largest singular value that rounding alone is expected to give.

    Rounding errors are independent and uniform within ± `half`, of variance half²/3, but not of one variance:
    a float's step follows its size, and the Marchenko–Pastur edge σ(√m + √n) holds for one variance only. For
    a variance profile v the expected norm is at most (1 + ε)(max_i √Σ_j v_ij + max_j √Σ_i v_ij), plus a term
    of the order of the largest deviation times √log (Bandeira & van Handel, Ann. Probab. 44, 2016, theorem
    3.1, after Latała 2005). Returned is that sum without ε and the last term; for one variance it is the
    Marchenko–Pastur edge.

    Args:
        half: half a rounding step of each element, (m, n).
    """
    squares = np.square(half)
    rows, columns = float(squares.sum(1).max()), float(squares.sum(0).max())
    return math.sqrt(rows / 3) + math.sqrt(columns / 3)


def significant(half: Floats) -> float:
    """Singular value that rounding alone exceeds in one matrix of a million.

    The largest singular value of independent errors of one variance follows the Tracy–Widom law of order 1
    about the Marchenko–Pastur edge (Johnstone, Ann. Statist. 29, 2001), whose quantile is applied to
    `noise_edge`. For variances that differ that edge is too high already, and the level lower.

    Args:
        half: half a rounding step of each element, (m, n).
    """
    rows, columns = (math.sqrt(max(size - 0.5, 0.5)) for size in half.shape)
    width = (1 / rows + 1 / columns) ** (1 / 3) / (rows + columns)
    return noise_edge(half) * math.sqrt(1 + TRACY_WIDOM * width)
