"""The directional change of one matrix: found in its spectrum, then fitted to the stored values."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from detector.floats import Floats, square_sum
from detector.grid import is_float
from detector.pairing import Pair
from detector.sample import Sample
from detector.singular import leading_vectors, significant
from detector.spectrum import RELAXATION, SHRINK, Box, fit_rank

ALIGNED = 0.9
"""Cosine from which the input vector is taken to follow from the output direction."""
DOUBTFUL = 0.5
"""Cosine below which a direction far above rounding is not aligned, however little of a matrix is seen."""
CLEAR = 3.0
"""Singular values that are far above rounding, over what rounding exceeds in one matrix of a million."""
MAX_DIRECTIONS = 8
REPRODUCED = 0.9
"""Share of moved values that must follow from W and the directions for a matrix to count as reproduced."""
SCALING = 0.95
"""Share of the direction's energy from which scaling the rows accounts for it as well: directions of the
residual stream have many dimensions, even where a few of them are outliers."""
OWN_AXIS = 0.2
"""What W adds to u, as a share of what it adds to a random direction, up to which u is a singular vector."""
AS_LONG = 0.2
"""Singular value of a cut spectrum's change, over its first, that those behind the counted ones have."""
FITTING = 0.99
"""Share of a quantised matrix's values that must lie in their intervals for it to be explained."""
REFINEMENTS = 30
VARIANTS = ((False, 1), (True, 1), (False, 2), (True, 2))
"""Row lengths restored or not, and roundings allowed for, the simplest first."""


@dataclass(frozen=True, slots=True)
class Direction:
    """Directional change of one matrix."""

    pair: Pair
    basis: Floats
    """(m, k): output directions, orthonormal."""
    mixing: Floats
    """(k, k): the change is −basis · mixing · basisᵀ · W."""
    keeps_norms: bool
    """Every row is scaled back to its old length afterwards."""
    alignment: float
    reproduced: float
    roundings: int
    """1 when the values follow after one rounding, 2 when a second had to be allowed, 0 when the encoding has
    no known step, so that nothing can be reproduced."""
    fits: bool = False
    """Nothing is left to explain: nearly all values lie within the steps of a quantised matrix, or the rest
    is no more than the arithmetic of whoever made the edit, in a matrix stored more finely than that."""
    floor_ratio: float = 0.0
    """Squared residual over the energy of the roundings allowed for; 0 where nothing is reproduced."""
    normalised: bool = False
    """The directions are removed from the rows at unit length, which then get their old lengths back."""
    own_axis: bool = False
    """The directions are singular vectors of W, so that any change along them is aligned."""

    @property
    def rank(self) -> int:
        """Number of directions."""
        return int(self.basis.shape[1])

    @property
    def strength(self) -> float:
        """Mean share of the directions that is removed; negative when they were added."""
        return float(self.mixing.diagonal().mean())

    def change(self, weights: Floats) -> Floats:
        """The change of `weights`, (m, n) with residual dimensions first."""
        if self.normalised:
            lengths = _lengths(weights)
            return replace(self, normalised=False).change(weights / lengths) * lengths
        removed: Floats = self.basis @ (self.mixing @ (self.basis.T @ weights))
        if not self.keeps_norms:
            return -removed
        return _restore_norms(weights - removed, weights) - weights


def measure_direction(pair: Pair, sample: Sample) -> Direction | None:
    """The directional change of one matrix, refined to fit the stored values; None if there is none."""
    bases = _aligned_bases(sample)
    if sample.half_fork is None:
        if not bases:
            return None
        basis, alignment = bases[0]
        mixing, _ = _mixing(basis, sample.delta, sample.weights)
        return Direction(
            pair, basis, mixing, keeps_norms=False, alignment=alignment, reproduced=0.0, roundings=0
        )
    if not bases and not is_float(pair.fork.dtype):
        bases = _denoised_bases(sample, sample.half_fork)
    best = _best_variant(pair, sample, bases)
    if best is None or best.reproduced < REPRODUCED:
        lengths = _lengths(sample.weights)
        unit = _at_unit_length(sample, sample.half_fork, lengths)
        unit_bases = _aligned_bases(unit)
        if unit_bases:
            unit = replace(unit, half_original=sample.half_original / lengths)
        other = _best_variant(pair, unit, unit_bases)
        if other is not None and other.reproduced >= REPRODUCED:
            return replace(other, normalised=True)
    return best


def is_unaligned(sample: Sample) -> bool:
    """Whether the leading directions, far above rounding, have next to nothing to do with W."""
    if sample.half_fork is None:
        return False
    unit = _at_unit_length(sample, sample.half_fork, _lengths(sample.weights))
    return _is_far_from_aligned(sample) and _is_far_from_aligned(unit)


def _is_far_from_aligned(sample: Sample) -> bool:
    vectors, _, strong = _strong(sample, CLEAR * significant(_noise(sample)))
    found = (_mixing(vectors[:, :rank], sample.delta, sample.weights)[1] for rank in range(1, strong + 1))
    return strong > 0 and max(float(alignments.min()) for alignments in found) < DOUBTFUL


def _at_unit_length(sample: Sample, half: Floats, lengths: Floats) -> Sample:
    """With rows of length one, but for the steps of the original."""
    weights, delta, half = (part / lengths for part in (sample.weights, sample.delta, half))
    return Sample(weights, delta, half, sample.half_original)


def _best_variant(pair: Pair, sample: Sample, bases: list[tuple[Floats, float]]) -> Direction | None:
    best: Direction | None = None
    for basis, alignment in bases:
        for variant in VARIANTS:
            found = _refined(pair, sample, basis, alignment, variant)
            if found.reproduced >= REPRODUCED:
                return found
            if best is None or found.reproduced > best.reproduced:
                best = found
    return best


def _lengths(weights: Floats) -> Floats:
    """(m, 1) lengths of the rows, 1 for rows of zeros."""
    lengths = _norms(weights)[:, None]
    return np.where(lengths > 0, lengths, np.float32(1))


def _norms(matrix: Floats) -> Floats:
    """Lengths of the rows."""
    found: Floats = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
    return found


def _denoised_bases(sample: Sample, half: Floats) -> list[tuple[Floats, float]]:
    """The same for the one direction that lies within the steps, where the steps drown its input side."""
    box = Box(sample.delta, half)
    if box.limit() < 1:
        return []
    return _aligned_bases(replace(sample, delta=fit_rank(box, 1)), edge=0.0)


def _aligned_bases(sample: Sample, edge: float | None = None) -> list[tuple[Floats, float]]:
    """Leading output subspaces whose input side follows from W, smallest first."""
    vectors, values, strong = _strong(sample, edge)
    bases, shares = [], []
    for rank in range(1, strong + 1):
        if rank < strong and values[rank - 1] < 1.2 * values[rank]:
            continue  # two of a size: their order is arbitrary, take both or neither
        basis = vectors[:, :rank]
        mixing, alignments = _mixing(basis, sample.delta, sample.weights)
        if float(alignments.min()) >= ALIGNED:
            shares.append(square_sum(basis @ (mixing @ (basis.T @ sample.weights))))
            bases.append((basis, float(alignments.min())))
    if not bases or _explained_by_scaling(sample) >= SCALING * max(shares) or _is_cut(sample):
        return []
    return [base for base, share in zip(bases, shares, strict=True) if share >= 0.9 * max(shares)]


def _strong(sample: Sample, edge: float | None) -> tuple[Floats, Floats, int]:
    """Leading output vectors and singular values of the change; how many are above what rounding makes."""
    vectors, values = leading_vectors(sample.delta, MAX_DIRECTIONS + 1)
    least = significant(_noise(sample)) if edge is None else max(edge, 1e-3 * float(values[0]))
    most = min(MAX_DIRECTIONS, min(sample.weights.shape) // 4)  # M fits anything where W has as few columns
    return vectors, values, int(np.count_nonzero(values[:most] > least))


def _is_cut(sample: Sample) -> bool:
    """The directions behind the most that are counted are aligned, too: W lost a whole part of its spectrum.

    Compression by singular values takes W's own directions away, each of which is aligned by construction.
    """
    behind = min(2 * MAX_DIRECTIONS, min(sample.weights.shape) // 4)
    if behind <= MAX_DIRECTIONS:
        return False
    vectors, values = leading_vectors(sample.delta, behind)
    if float(values[-1]) < AS_LONG * float(values[0]):  # what scaled rows leave beside one direction
        return False
    basis = vectors[:, MAX_DIRECTIONS:]
    alignments = np.sort(_mixing(basis, sample.delta, sample.weights)[1])
    return float(alignments[(len(alignments) - 1) // 2]) >= ALIGNED


def _explained_by_scaling(sample: Sample) -> float:
    """Energy of the change that scaling each row of W accounts for; weight decay and folded gains do that."""
    dots = np.einsum("ij,ij->i", sample.delta, sample.weights)
    squares = np.einsum("ij,ij->i", sample.weights, sample.weights)
    return float((np.square(dots) / np.maximum(squares, 1e-30)).sum())


def _refined(
    pair: Pair, sample: Sample, basis: Floats, alignment: float, variant: tuple[bool, int]
) -> Direction:
    """Fit basis and strength to the intervals of the stored values."""
    keeps_norms, roundings = variant
    weights, half = sample.weights, _half(sample, roundings)
    mixing, _ = _mixing(basis, sample.delta, weights)
    direction = Direction(pair, basis, mixing, keeps_norms, alignment, 0.0, roundings)
    box = Box(sample.delta, half)
    reach = np.float32(SHRINK) * half
    lower, upper = sample.delta - reach, sample.delta + reach
    change = direction.change(weights)
    for _ in range(REFINEMENTS):
        target = np.maximum(change, lower)
        np.minimum(target, upper, out=target)
        target -= change
        target *= np.float32(RELAXATION)
        target += change
        if keeps_norms:
            edited = weights - basis @ (mixing @ (basis.T @ weights))
            target = _restore_norms(weights + target, edited) - weights
        basis = np.linalg.qr(target @ (target.T @ basis))[0]
        mixing, _ = _mixing(basis, target, weights)
        direction = Direction(pair, basis, mixing, keeps_norms, alignment, 0.0, roundings)
        change = direction.change(weights)
    fits = _leaves_nothing(box, change) if is_float(pair.fork.dtype) else _inside(box, change) >= FITTING
    floor = square_sum(box.delta - change) / max(square_sum(half) / 3, 1e-300)
    share = _follows(box, change)
    return Direction(pair, basis, mixing, keeps_norms, alignment, share, roundings, fits, floor)


def _leaves_nothing(box: Box, change: Floats) -> bool:
    """A millionth of the energy: float32 storage is finer than float32 arithmetic over long rows."""
    return square_sum(box.delta - change) <= 1e-6 * square_sum(box.delta)


def _follows(box: Box, change: Floats) -> float:
    """Share of the values that moved, or that this change would have moved, that it gives."""
    outside, inside = box.outside, box.holds(change)
    return int(np.count_nonzero(inside & outside)) / max(int(np.count_nonzero(outside | ~inside)), 1)


def _inside(box: Box, change: Floats) -> float:
    """Share of all values, moved or not, whose interval holds the change."""
    return int(np.count_nonzero(box.holds(change))) / max(change.size, 1)


def _mixing(basis: Floats, delta: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Least-squares M in basisᵀ·Δ = −M·basisᵀ·W, and for each direction the cosine of the two sides."""
    change, rows = basis.T @ delta, basis.T @ weights
    mixing = -np.linalg.lstsq(rows.T, change.T)[0].T
    residual = np.square(change + mixing @ rows).sum(1)
    explained = 1 - residual / np.maximum(np.square(change).sum(1), 1e-30)
    return mixing, np.sqrt(np.maximum(explained, 0))


def _half(sample: Sample, roundings: int) -> Floats:
    if sample.half_fork is None:
        raise AssertionError("nothing is refined where no step is known")
    return sample.half_fork if roundings == 1 else sample.half_fork + sample.half_original


def _noise(sample: Sample) -> Floats:
    """Half of the steps that rounding may have moved the values by.

    Where the encoding has no known step, the change itself tells: under random signs its values have variance
    Δ², that of a step of 2√3 |Δ| (sign-flip parallel analysis: Hong, Sheng & Dobriban, arXiv 2012.02985).
    """
    return np.abs(sample.delta) * np.float32(math.sqrt(3)) if sample.half_fork is None else sample.half_fork


def _restore_norms(edited: Floats, weights: Floats) -> Floats:
    """`edited` with the row lengths of `weights`."""
    lengths = _norms(weights) / np.maximum(_norms(edited), np.float32(1e-30))
    restored: Floats = np.multiply(edited, lengths[:, None])
    return restored


def is_own_axis(basis: Floats, sample: Sample) -> bool:
    """The directions are W's own singular vectors, as far as the change's input side tells.

    W takes an input vector v of the change to σ·u there, and elsewhere to a vector that has much besides u:
    the part outside of u is compared with that of random output directions. v is taken from the change, and
    not as Wᵀu, since errors of u along W's long axes would drown a short one.
    """
    weights = sample.weights
    drawn = np.random.default_rng(0).standard_normal(basis.shape, dtype=np.float32)

    def outside(outputs: Floats, inputs: Floats) -> float:
        image = weights @ np.linalg.qr(inputs)[0]
        return float(np.linalg.norm(image - outputs @ (outputs.T @ image)))

    random = np.linalg.qr(drawn)[0]
    return outside(basis, sample.delta.T @ basis) <= OWN_AXIS * outside(random, weights.T @ random)
