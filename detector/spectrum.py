"""Rank of a weight change, judged against the rounding of the stored values.

A change E that was added before rounding is known only up to an interval for each element: W' − W ± half a
step. Counting singular values of W' − W fails in both directions: bf16 residue is heteroscedastic and looks
like rank, and a small E moves few elements, so that a rank-8 change shows one direction or none. The
question asked here is the one that rounding leaves decidable: *is there a matrix of rank r inside all the
intervals?* It is answered by relaxed projections between the set of rank-r matrices and the box (von
Neumann's alternating projections; Lewis & Malick 2008 for the non-convex set). At the true rank the
distance to the box falls geometrically; one rank below, it stalls.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

OVERSAMPLING = 8
PROBES = 10
"""Gaussian vectors of the error bound: it fails with probability 10^-PROBES."""
ROUNDING = 1e-6
"""Share of a squared norm that float32 products lose."""
ARITHMETIC = 4e-6
"""Singular value, as a share of the largest, that float32 arithmetic makes up; float32 storage is finer."""
TRACY_WIDOM = 6.27
"""Quantile of the Tracy–Widom law of order 1 that is exceeded with probability 10⁻⁶, by the tail
exp(−⅔ s^1.5) / (4 √π s^0.75) (Bornemann, arXiv 0904.1581), which at 10⁻³ is a tenth off."""
RELAXATION = 1.7
"""Step of the projection onto the box: 1 is the plain method, 2 the reflection; 1.7 is four times as fast."""
SHRINK = 0.9
"""The box aimed at, as a share of the real one, so that elements come to rest inside."""
ITERATIONS = 40
FIRST_LOOK = 10
FAR = 0.1
"""Share of the distance left after `FIRST_LOOK` projections, above which more of them will not do."""
ACCEPTED = 1e-3
"""Largest distance left, as a share of the distance of the zero matrix. Measured on LoRAs and AdamW
fine-tunes of a 135M model: at the true rank 5e-4 or less, for dense changes 4e-2 and more."""
CLIFF = 6.0
"""One more rank is part of the change if it divides the distance left by this much. Measured: the last rank
of a LoRA divides it by 9 to 5 000, ranks beyond that by 3 at most."""
NEARLY = 0.03
"""Distance left at the largest testable rank, up to which it alone does not tell a dense change."""
SETTLED = 1e-5
"""Distance below which a smaller one means nothing: more rank always fits the last bits better."""
REPRODUCED = 0.8
"""Share of the moved values that must follow from the fitted change. Measured: AdamW fine-tunes of a 135M
model reach 0.45 at the largest rank allowed for; LoRAs have 0.84 and more at their own."""
SURE = 0.95
"""Share of the moved values from which a fit is good enough: more projections add a hundredth to it."""
LOOK = 5
"""Projections between two looks at what a fit reproduces."""
CONSTRAINTS_A_PARAMETER = 2.0
"""Moved elements for each of the r(m+n−r) parameters of a fit; with fewer, a dense change is fitted too."""


@dataclass(frozen=True, slots=True)
class RankEstimate:
    """What the intervals say about the rank of a change."""

    rank: int | None
    """Smallest rank that lies inside the intervals; None when none up to `limit` does."""
    limit: int
    """Largest rank that could have been told from a dense change on this many moved elements."""
    roundings: int
    """1 when the intervals are half a step wide, 2 when a second rounding had to be allowed."""
    residual: float
    """Distance left at `rank` (or at `limit`), as a share of the distance of the zero matrix."""
    reproduced: float
    """Share of the moved elements whose stored value the change of rank `rank` reproduces; the change of
    rank `limit` when there is none and `residual` is at most `NEARLY`."""
    moved: int
    """Elements that no change at all cannot explain."""


@dataclass(frozen=True, slots=True)
class Box:
    """Intervals for a change: `delta ± half`, both (m, n) float32."""

    delta: torch.Tensor
    half: torch.Tensor

    def distance(self, fitted: torch.Tensor) -> torch.Tensor:
        """Signed distance of each element of `fitted` to its interval."""
        off = fitted - self.delta
        return off - off.clamp(-self.half, self.half)

    def outside(self) -> torch.Tensor:
        """Elements whose interval does not hold zero."""
        return self.delta.abs() > self.half

    def moved(self) -> int:
        """Number of elements whose interval does not hold zero."""
        return int(self.outside().sum().item())

    def limit(self) -> int:
        """Largest r ≤ min(m, n) / 4 with `CONSTRAINTS_A_PARAMETER` moved elements for each parameter."""
        (rows, columns), moved, rank = self.delta.shape, self.moved(), 0
        while rank < min(rows, columns) // 4:
            parameters = (rank + 1) * (rows + columns - rank - 1)
            if parameters * CONSTRAINTS_A_PARAMETER > moved:
                break
            rank += 1
        return rank


@dataclass(frozen=True, slots=True)
class Leading:
    """The leading part of a singular value decomposition, with a bound of what sampling may have missed."""

    left: torch.Tensor
    """(m, count): left singular vectors."""
    values: torch.Tensor
    """(count): singular values, largest first; none is larger than the true one."""
    error: float
    """The squares of the true values are larger by `error`² at most, but with probability 10⁻¹⁰."""


def decompose(matrix: torch.Tensor, count: int) -> Leading:
    """Leading singular values and left vectors of an (m, n) matrix by `leading_vectors`, with their error.

    For the sampled range Q and E = A − QQᵀA, AᵀA = (QᵀA)ᵀ(QᵀA) + EᵀE, so that by Weyl's inequality
    σ̂² ≤ σ² ≤ σ̂² + ‖E‖². ‖E‖ is at most its Frobenius norm, which costs nothing, and at most
    (10·√(2/π)·max ‖(EEᵀ)²Eω‖)^(1/5) over ten Gaussian vectors ω, but with probability 10⁻¹⁰: equation 4.3 of
    Halko, Martinsson & Tropp (2011), applied to (EEᵀ)²E, whose norm is ‖E‖⁵.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    basis = _range(matrix, count, generator)
    inside = basis.T @ matrix
    left, values, _ = torch.linalg.svd(inside, full_matrices=False)
    count = min(count, *matrix.shape)
    total = float(matrix.square().sum(dtype=torch.float64).item())
    rest = total - float(inside.square().sum(dtype=torch.float64).item())
    frobenius = math.sqrt(max(rest, 0.0) + ROUNDING * total)

    def outside(vectors: torch.Tensor) -> torch.Tensor:
        return vectors - basis @ (basis.T @ vectors)

    size = math.sqrt(total) or 1.0  # fifth powers would leave the range of float32
    probe = outside(matrix @ torch.randn(matrix.shape[1], PROBES, generator=generator)) / size
    for _ in range(2):
        probe = outside(matrix @ (matrix.T @ outside(probe))) / size**2
    longest = float(probe.double().norm(dim=0).max().item()) + ROUNDING**2.5
    spectral = size * (10 * math.sqrt(2 / math.pi) * longest) ** 0.2
    return Leading((basis @ left)[:, :count], values[:count], min(frobenius, spectral))


def leading_vectors(matrix: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Leading left singular vectors (m, count) and singular values (count) of an (m, n) matrix.

    Randomised range finder with two power iterations (Halko, Martinsson & Tropp 2011), fixed seed.
    """
    import torch

    basis = _range(matrix, count, torch.Generator().manual_seed(0))
    left, values, _ = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    count = min(count, *matrix.shape)
    return (basis @ left)[:, :count], values[:count]


def _range(matrix: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Orthonormal columns that span the leading left singular vectors, and a few more."""
    import torch

    width = min(count + OVERSAMPLING, *matrix.shape)
    basis = torch.linalg.qr(matrix @ torch.randn(matrix.shape[1], width, generator=generator))[0]
    for _ in range(2):
        basis = torch.linalg.qr(matrix @ (matrix.T @ basis))[0]
    return torch.as_tensor(basis)


def noise_edge(half: torch.Tensor) -> float:
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
    variance = half.square() / 3
    rows, columns = variance.sum(1).max().item(), variance.sum(0).max().item()
    return math.sqrt(rows) + math.sqrt(columns)


def significant(half: torch.Tensor) -> float:
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


def fit_rank(box: Box, rank: int, iterations: int = ITERATIONS) -> torch.Tensor:
    """The rank-`rank` matrix found by `iterations` relaxed projections."""
    for fitted in _projections(box, rank, iterations):
        result = fitted
    return result


def fit_values(box: Box, rank: int, iterations: int) -> tuple[torch.Tensor, float]:
    """The same by `iterations` projections at most, and what it reproduces; fewer where that is enough."""
    share = 0.0
    for step, fitted in enumerate(_projections(box, rank, iterations), start=1):
        result = fitted
        if step % LOOK == 0 or step == iterations:
            share = reproduced(box, fitted)
            if share >= SURE:
                break
    return result, share


def estimate_rank(delta: torch.Tensor, half_fork: torch.Tensor, half_original: torch.Tensor) -> RankEstimate:
    """Smallest rank inside the intervals of a change.

    Args:
        delta: fork − original, (m, n) float32.
        half_fork: half the step of the fork's values.
        half_original: half the step of the original's values, for forks from which something was subtracted
            and for edits that were rounded twice.
    """
    import torch

    boxes = (Box(delta, torch.maximum(half_fork, half_original)), Box(delta, half_fork + half_original))
    limits = [box.limit() for box in boxes]
    best = RankEstimate(None, limits[0], 1, 1.0, 0.0, boxes[0].moved())
    least = _least(boxes[-1], limits[0])
    for rank in _ranks(boxes, limits, least):
        for roundings, (box, limit) in enumerate(zip(boxes, limits, strict=True), start=1):
            if rank > limit:
                continue
            residual = _residual(box, rank)
            if residual > ACCEPTED:
                best = (
                    best
                    if best.residual <= residual
                    else replace(best, roundings=roundings, residual=residual)
                )
                continue
            below = max(rank // 2, min(least, rank) - 1)
            found = _settle(box, roundings, (below, rank), residual)
            if found.reproduced >= REPRODUCED or roundings == len(boxes) or rank > limits[-1]:
                return found
            best = found  # close, but values are off by more than one rounding: try the wider intervals
        if best.rank is not None:
            return best
    if best.residual > NEARLY or not limits[0]:
        return best
    return replace(best, reproduced=fit_values(boxes[0], limits[0], 2 * ITERATIONS)[1])


def _least(box: Box, limit: int) -> int:
    """Directions longer than rounding makes them: a change of smaller rank lies in no interval.

    By Weyl's inequality σ of the (r+1)-th is at most the norm of what a change of rank r leaves, and what
    that leaves is rounding.
    """
    if limit < 1:
        return 0
    values = leading_vectors(box.delta, limit + 1)[1]
    level = max(noise_edge(box.half), ARITHMETIC * float(values[0]))
    return int((values > level).sum().item())


def _ranks(boxes: tuple[Box, Box], limits: list[int], least: int) -> Iterator[int]:
    """Ranks to try: the smallest that is possible, if it can be told; then powers of two above it.

    A matrix of smaller rank is one of the largest, too: where that is far away, none of them comes nearer.
    """
    if 0 < least <= limits[0]:
        yield least
    ranks = [rank for rank in _powers_of_two(limits[0]) if rank > least] or [limits[0]][: limits[0]]
    if all(limit > 1 and _is_far(box, limit) for box, limit in zip(boxes, limits, strict=True)):
        ranks = ranks[-1:]
    yield from ranks


def _powers_of_two(limit: int) -> list[int]:
    """1, 2, 4… and `limit` itself."""
    powers = [1 << exponent for exponent in range(limit.bit_length())]
    return powers if not powers or powers[-1] == limit else [*powers, limit]


def _settle(box: Box, roundings: int, between: tuple[int, int], residual: float) -> RankEstimate:
    """Find the smallest accepted rank, go on while one more is worth a cliff, and measure the fit there.

    Args:
        box: the intervals.
        roundings: that they allow for.
        between: a rank that is too small, and one that was accepted.
        residual: of the latter.
    """
    limit = box.limit()
    low, high = between
    while high - low > 1:
        middle = (low + high) // 2
        share = _residual(box, middle)
        if share <= ACCEPTED:
            high, residual = middle, share
        else:
            low = middle
    while residual > SETTLED and high < limit:
        share = _residual(box, high + 1)
        if share * CLIFF > residual:
            break
        high, residual = high + 1, share
    fitted, share = fit_values(box, high, 2 * ITERATIONS)
    return RankEstimate(high, limit, roundings, _share(box, fitted), share, box.moved())


def reproduced(box: Box, fitted: torch.Tensor) -> float:
    """Share of the moved elements whose stored value follows from `fitted` by rounding."""
    outside = box.outside()
    inside = box.distance(fitted).abs() <= 0.02 * box.half
    return (inside & outside).sum().item() / max(outside.sum().item(), 1)


def _residual(box: Box, rank: int) -> float:
    """Distance left after the projections, given up early when it stalls, or is next to nothing."""
    last = 1.0
    for step, fitted in enumerate(_projections(box, rank, ITERATIONS), start=1):
        if step not in {FIRST_LOOK, 20, ITERATIONS}:
            continue
        share = _share(box, fitted)
        if share > FAR or share <= SETTLED or (step == 20 and share > max(0.5 * last, ACCEPTED)):
            return share
        last = share
    return last


def _is_far(box: Box, rank: int) -> bool:
    """A tenth of the distance is left where `_residual` looks for the first time."""
    return _share(box, fit_rank(box, rank, FIRST_LOOK)) > FAR


def _share(box: Box, fitted: torch.Tensor) -> float:
    zero = box.distance(fitted * 0).square().sum().item()
    return box.distance(fitted).square().sum().item() / max(zero, 1e-300)


def _projections(box: Box, rank: int, iterations: int) -> Iterator[torch.Tensor]:
    import torch

    left, _ = leading_vectors(box.delta, rank)
    right = torch.linalg.qr(box.delta.T @ left)[0]
    lower, upper = box.delta - SHRINK * box.half, box.delta + SHRINK * box.half
    current, fitted = box.delta.clone(), torch.empty_like(box.delta)
    for _ in range(iterations):
        left = torch.linalg.qr(current @ right)[0]
        coefficients = current.T @ left
        torch.matmul(left, coefficients.T, out=fitted)
        right = torch.linalg.qr(coefficients)[0]
        torch.clamp(fitted, lower, upper, out=current)
        torch.lerp(fitted, current, RELAXATION, out=current)
        yield fitted
