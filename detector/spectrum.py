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

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from detector.floats import Floats, square_sum
from detector.singular import leading_vectors, noise_edge

Mask = npt.NDArray[np.bool_]

ARITHMETIC = 4e-6
"""Singular value, as a share of the largest, that float32 arithmetic makes up; float32 storage is finer."""
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
SLACK = 0.02
"""Share of an interval by which a value may lie outside of it: float32 arithmetic."""
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
    floor_ratio: float = 0.0
    """Squared residual of the change of rank `rank` over the energy of the roundings allowed for."""


@dataclass(frozen=True)
class Box:
    """Intervals for a change: `delta ± half`, both (m, n)."""

    delta: Floats
    half: Floats
    leading: Floats | None = None
    """Leading left singular vectors of `delta`, if they are at hand: projections begin there."""

    def distance(self, fitted: Floats) -> Floats:
        """Distance of each element of `fitted` to its interval."""
        off = self._off(fitted)
        off -= self.half
        return np.maximum(off, np.float32(0), out=off)

    def holds(self, fitted: Floats) -> Mask:
        """Elements of `fitted` in their intervals, or as good as in them."""
        return np.less_equal(self._off(fitted), self._room)

    def _off(self, fitted: Floats) -> Floats:
        off = np.subtract(fitted, self.delta)
        return np.abs(off, out=off)

    @functools.cached_property
    def _room(self) -> Floats:
        return self.half * np.float32(1 + SLACK)

    @functools.cached_property
    def outside(self) -> Mask:
        """Elements whose interval does not hold zero."""
        return np.greater(np.abs(self.delta), self.half)

    @functools.cached_property
    def moved(self) -> int:
        """Number of elements whose interval does not hold zero."""
        return int(np.count_nonzero(self.outside))

    @functools.cached_property
    def farthest(self) -> float:
        """Squared distance of the zero matrix."""
        return square_sum(self.distance(np.zeros_like(self.delta)))

    def floor_ratio(self, fitted: Floats) -> float:
        """Squared distance of `fitted` to the middles of the intervals over what rounding leaves of it."""
        return square_sum(self.delta - fitted) / max(square_sum(self.half) / 3, 1e-300)

    def limit(self) -> int:
        """Largest r ≤ min(m, n) / 4 with `CONSTRAINTS_A_PARAMETER` moved elements for each parameter."""
        (rows, columns), moved, rank = self.delta.shape, self.moved, 0
        while rank < min(rows, columns) // 4:
            parameters = (rank + 1) * (rows + columns - rank - 1)
            if parameters * CONSTRAINTS_A_PARAMETER > moved:
                break
            rank += 1
        return rank


def fit_rank(box: Box, rank: int, iterations: int = ITERATIONS) -> Floats:
    """The rank-`rank` matrix found by `iterations` relaxed projections."""
    for fitted in _projections(box, rank, iterations):
        result = fitted
    return result


def fit_values(box: Box, rank: int, iterations: int) -> tuple[Floats, float]:
    """The same by `iterations` projections at most, and what it reproduces; fewer where that is enough."""
    share = 0.0
    for step, fitted in enumerate(_projections(box, rank, iterations), start=1):
        result = fitted
        if step % LOOK == 0 or step == iterations:
            share = reproduced(box, fitted)
            if share >= SURE:
                break
    return result, share


def estimate_rank(delta: Floats, half_fork: Floats, half_original: Floats) -> RankEstimate:
    """Smallest rank inside the intervals of a change.

    Args:
        delta: fork − original, (m, n) float32.
        half_fork: half the step of the fork's values.
        half_original: half the step of the original's values, for forks from which something was subtracted
            and for edits that were rounded twice.
    """
    delta, half_fork, half_original = (lying(part) for part in (delta, half_fork, half_original))
    boxes = (Box(delta, np.maximum(half_fork, half_original)), Box(delta, half_fork + half_original))
    limits = [box.limit() for box in boxes]
    best = RankEstimate(None, limits[0], 1, 1.0, 0.0, boxes[0].moved)
    least, leading = _least(boxes[-1], limits[0])
    boxes = (replace(boxes[0], leading=leading), replace(boxes[1], leading=leading))
    for rank in _ranks(boxes, limits, least):
        for roundings, (box, limit) in enumerate(zip(boxes, limits, strict=True), start=1):
            if rank > limit:
                continue
            trail = _Trail(box, rank)
            residual = trail.residual
            if residual > ACCEPTED:
                best = (
                    best
                    if best.residual <= residual
                    else replace(best, roundings=roundings, residual=residual)
                )
                continue
            below = max(rank // 2, min(least, rank) - 1)
            found = _settle(box, roundings, (below, rank), trail)
            if found.reproduced >= REPRODUCED or roundings == len(boxes) or rank > limits[-1]:
                return found
            best = found  # close, but values are off by more than one rounding: try the wider intervals
        if best.rank is not None:
            return best
    if best.residual > NEARLY or not limits[0]:
        return best
    return replace(best, reproduced=fit_values(boxes[0], limits[0], 2 * ITERATIONS)[1])


def lying(matrix: Floats) -> Floats:
    """The matrix, or its transpose if it is higher than wide: what is orthonormalised is then short."""
    return matrix if matrix.shape[0] <= matrix.shape[1] else np.ascontiguousarray(matrix.T)


def _least(box: Box, limit: int) -> tuple[int, Floats | None]:
    """Directions longer than rounding makes them: a change of smaller rank lies in no interval.

    By Weyl's inequality σ of the (r+1)-th is at most the norm of what a change of rank r leaves, and what
    that leaves is rounding. Also the leading vectors themselves.
    """
    if limit < 1:
        return 0, None
    vectors, values = leading_vectors(box.delta, limit + 1)
    level = max(noise_edge(box.half), ARITHMETIC * float(values[0]))
    return int(np.count_nonzero(values > level)), vectors


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


def _settle(box: Box, roundings: int, between: tuple[int, int], trail: _Trail) -> RankEstimate:
    """Find the smallest accepted rank, go on while one more is worth a cliff, and measure the fit there.

    Args:
        box: the intervals.
        roundings: that they allow for.
        between: a rank that is too small, and one that was accepted.
        trail: of the latter.
    """
    limit = box.limit()
    low, high = between
    while high - low > 1:
        middle = (low + high) // 2
        lower = _Trail(box, middle)
        if lower.residual <= ACCEPTED:
            high, trail = middle, lower
        else:
            low = middle
    while trail.residual > SETTLED and high < limit:
        higher = _Trail(box, high + 1)
        if higher.residual * CLIFF > trail.residual:
            break
        high, trail = high + 1, higher
    fit = trail.fit()
    return RankEstimate(
        high, limit, roundings, fit.residual, fit.reproduced, box.moved, floor_ratio=fit.floor_ratio
    )


@dataclass(frozen=True, slots=True)
class _Fit:
    """Of a `RankEstimate`."""

    residual: float
    reproduced: float
    floor_ratio: float


class _Trail:
    """Projections at one rank: how far they come, and what they fit if they are gone on with."""

    def __init__(self, box: Box, rank: int) -> None:
        self._box = box
        self._steps = enumerate(_projections(box, rank, 2 * ITERATIONS), start=1)
        self._fit: _Fit | None = None
        self.residual = self._followed()
        """Distance left where they were given up."""

    def _followed(self) -> float:
        """Given up early when it stalls, or is next to nothing."""
        last = 1.0
        for step, fitted in islice(self._steps, ITERATIONS):
            self._look(step, fitted)
            if step not in {FIRST_LOOK, 20, ITERATIONS}:
                continue
            share = _share(self._box, fitted)
            if share > FAR or share <= SETTLED or (step == 20 and share > max(0.5 * last, ACCEPTED)):
                return share
            last = share
        return last

    def _look(self, step: int, fitted: Floats) -> None:
        if self._fit is None and step % LOOK == 0:
            share = reproduced(self._box, fitted)
            if share >= SURE or step == 2 * ITERATIONS:
                self._fit = _Fit(_share(self._box, fitted), share, self._box.floor_ratio(fitted))

    def fit(self) -> _Fit:
        """What `fit_values` comes to in twice the usual number of projections."""
        while self._fit is None:
            self._look(*next(self._steps))
        return self._fit


def reproduced(box: Box, fitted: Floats) -> float:
    """Share of the moved elements whose stored value follows from `fitted` by rounding."""
    return int(np.count_nonzero(box.holds(fitted) & box.outside)) / max(box.moved, 1)


def _is_far(box: Box, rank: int) -> bool:
    """A tenth of the distance is left where `_residual` looks for the first time."""
    return _share(box, fit_rank(box, rank, FIRST_LOOK)) > FAR


def _share(box: Box, fitted: Floats) -> float:
    return square_sum(box.distance(fitted)) / max(box.farthest, 1e-300)


def _projections(box: Box, rank: int, iterations: int) -> Iterator[Floats]:
    """Each `fitted` is overwritten by the next.

    With G = YᵀY = LLᵀ the columns of Y·L⁻ᵀ are orthonormal; in float64 that costs less than to decompose Y in
    float32, and is as exact. And if Y = A·R, the columns of Aᵀ·(Y·L⁻ᵀ)·L⁻¹ are R after a step of subspace
    iteration, as good as orthonormal.
    """
    left = box.leading
    left = leading_vectors(box.delta, rank)[0] if left is None or left.shape[1] < rank else left[:, :rank]
    right = np.linalg.qr(box.delta.T @ left)[0]
    reach = np.float32(SHRINK) * box.half
    lower, upper = box.delta - reach, box.delta + reach
    current, fitted = box.delta.copy(), np.empty_like(box.delta)
    for _ in range(iterations):
        left, inverse = _orthonormal(current @ right)
        coefficients = current.T @ left
        np.matmul(left, coefficients.T, out=fitted)
        right = coefficients @ inverse
        np.maximum(fitted, lower, out=current)
        np.minimum(current, upper, out=current)
        current -= fitted
        current *= np.float32(RELAXATION)
        current += fitted
        yield fitted


def _orthonormal(columns: Floats) -> tuple[Floats, Floats]:
    """Orthonormal columns of the same span, Y·L⁻ᵀ, and L⁻¹."""
    wide = columns.astype(np.float64)
    gram = wide.T @ wide
    gram[np.diag_indices_from(gram)] += 1e-14 * (np.trace(gram) or 1.0)  # columns may depend on each other
    inverse = np.linalg.inv(np.linalg.cholesky(gram))
    return (wide @ inverse.T).astype(np.float32), inverse.astype(np.float32)
