"""The directional change of one matrix: found in its spectrum, then fitted to the stored values."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from detector.grid import is_float
from detector.pairing import Pair
from detector.sample import Sample
from detector.spectrum import RELAXATION, SHRINK, Box, fit_rank, leading_vectors, significant

if TYPE_CHECKING:
    import torch

ALIGNED = 0.9
"""Cosine from which the input vector is taken to follow from the output direction."""
MAX_DIRECTIONS = 8
REPRODUCED = 0.9
"""Share of moved values that must follow from W and the directions for a matrix to count as reproduced."""
SCALING = 0.95
"""Share of the direction's energy from which scaling the rows accounts for it as well: directions of the
residual stream have many dimensions, even where a few of them are outliers."""
OWN_AXIS = 0.2
"""What W adds to u, as a share of what it adds to a random direction, up to which u is a singular vector."""
FITTING = 0.99
"""Share of a quantised matrix's values that must lie in their intervals for it to be explained."""
REFINEMENTS = 30
VARIANTS = ((False, 1), (True, 1), (False, 2), (True, 2))
"""Row lengths restored or not, and roundings allowed for, the simplest first."""


@dataclass(frozen=True, slots=True)
class Direction:
    """Directional change of one matrix."""

    pair: Pair
    basis: torch.Tensor
    """(m, k): output directions, orthonormal."""
    mixing: torch.Tensor
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
        return float(self.mixing.diagonal().mean().item())

    def change(self, weights: torch.Tensor) -> torch.Tensor:
        """The change of `weights`, (m, n) with residual dimensions first."""
        if self.normalised:
            lengths = _lengths(weights)
            return replace(self, normalised=False).change(weights / lengths) * lengths
        removed = self.basis @ (self.mixing @ (self.basis.T @ weights))
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
        unit = Sample(
            sample.weights / lengths,
            sample.delta / lengths,
            sample.half_fork / lengths,
            sample.half_original / lengths,
        )
        other = _best_variant(pair, unit, _aligned_bases(unit))
        if other is not None and other.reproduced >= REPRODUCED:
            return replace(other, normalised=True)
    return best


def _best_variant(pair: Pair, sample: Sample, bases: list[tuple[torch.Tensor, float]]) -> Direction | None:
    best: Direction | None = None
    for basis, alignment in bases:
        for variant in VARIANTS:
            found = _refined(pair, sample, basis, alignment, variant)
            if found.reproduced >= REPRODUCED:
                return found
            if best is None or found.reproduced > best.reproduced:
                best = found
    return best


def _lengths(weights: torch.Tensor) -> torch.Tensor:
    """(m, 1) lengths of the rows, 1 for rows of zeros."""
    lengths: torch.Tensor = weights.norm(dim=1, keepdim=True)
    return lengths + (lengths == 0)


def _denoised_bases(sample: Sample, half: torch.Tensor) -> list[tuple[torch.Tensor, float]]:
    """The same for the one direction that lies within the steps, where the steps drown its input side."""
    box = Box(sample.delta, half)
    if box.limit() < 1:
        return []
    return _aligned_bases(replace(sample, delta=fit_rank(box, 1)), edge=0.0)


def _aligned_bases(sample: Sample, edge: float | None = None) -> list[tuple[torch.Tensor, float]]:
    """Leading output subspaces whose input side follows from W, smallest first."""
    vectors, values = leading_vectors(sample.delta, MAX_DIRECTIONS + 1)
    least = significant(_noise(sample)) if edge is None else max(edge, 1e-3 * float(values[0]))
    most = min(MAX_DIRECTIONS, min(sample.weights.shape) // 4)  # M fits anything where W has as few columns
    strong = int((values[:most] > least).sum().item())
    bases, shares = [], []
    for rank in range(1, strong + 1):
        if rank < strong and values[rank - 1] < 1.2 * values[rank]:
            continue  # two of a size: their order is arbitrary, take both or neither
        basis = vectors[:, :rank]
        mixing, alignments = _mixing(basis, sample.delta, sample.weights)
        if alignments.min().item() >= ALIGNED:
            change = basis @ (mixing @ (basis.T @ sample.weights))
            shares.append(change.square().sum().item())
            bases.append((basis, alignments.min().item()))
    if not bases or _explained_by_scaling(sample) >= SCALING * max(shares):
        return []
    return [base for base, share in zip(bases, shares, strict=True) if share >= 0.9 * max(shares)]


def _explained_by_scaling(sample: Sample) -> float:
    """Energy of the change that scaling each row of W accounts for; weight decay and folded gains do that."""
    dots = (sample.delta * sample.weights).sum(1)
    return (dots.square() / sample.weights.square().sum(1).clamp_min(1e-30)).sum().item()


def _refined(
    pair: Pair, sample: Sample, basis: torch.Tensor, alignment: float, variant: tuple[bool, int]
) -> Direction:
    """Fit basis and strength to the intervals of the stored values."""
    import torch

    keeps_norms, roundings = variant
    weights, half = sample.weights, _half(sample, roundings)
    mixing, _ = _mixing(basis, sample.delta, weights)
    direction = Direction(pair, basis, mixing, keeps_norms, alignment, 0.0, roundings)
    box = Box(sample.delta, half)
    lower, upper = sample.delta - SHRINK * half, sample.delta + SHRINK * half
    change = direction.change(weights)
    for _ in range(REFINEMENTS):
        target = torch.lerp(change, torch.clamp(change, lower, upper), RELAXATION)
        if keeps_norms:
            edited = weights - basis @ (mixing @ (basis.T @ weights))
            target = _restore_norms(weights + target, edited) - weights
        basis = torch.linalg.qr(target @ (target.T @ basis))[0]
        mixing, _ = _mixing(basis, target, weights)
        direction = Direction(pair, basis, mixing, keeps_norms, alignment, 0.0, roundings)
        change = direction.change(weights)
    fits = _leaves_nothing(box, change) if is_float(pair.fork.dtype) else _inside(box, change) >= FITTING
    floor = (box.delta - change).square().sum().item() / max(half.square().sum().item() / 3, 1e-300)
    share = _follows(box, change)
    return Direction(pair, basis, mixing, keeps_norms, alignment, share, roundings, fits, floor)


def _leaves_nothing(box: Box, change: torch.Tensor) -> bool:
    """A millionth of the energy: float32 storage is finer than float32 arithmetic over long rows."""
    rest = (box.delta - change).square().sum().item()
    return rest <= 1e-6 * box.delta.square().sum().item()


def _follows(box: Box, change: torch.Tensor) -> float:
    """Share of the values that moved, or that this change would have moved, that it gives."""
    outside, inside = box.outside(), box.distance(change).abs() <= 0.02 * box.half
    return (inside & outside).sum().item() / max((outside | ~inside).sum().item(), 1)


def _inside(box: Box, change: torch.Tensor) -> float:
    """Share of all values, moved or not, whose interval holds the change."""
    return (box.distance(change).abs() <= 0.02 * box.half).float().mean().item()


def _mixing(
    basis: torch.Tensor, delta: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Least-squares M in basisᵀ·Δ = −M·basisᵀ·W, and for each direction the cosine of the two sides."""
    import torch

    change, rows = basis.T @ delta, basis.T @ weights
    mixing = -torch.linalg.lstsq(rows.T, change.T).solution.T
    residual = (change + mixing @ rows).square().sum(1)
    explained = 1 - residual / change.square().sum(1).clamp_min(1e-30)
    return mixing, explained.clamp_min(0).sqrt()


def _half(sample: Sample, roundings: int) -> torch.Tensor:
    if sample.half_fork is None:
        raise AssertionError("nothing is refined where no step is known")
    return sample.half_fork if roundings == 1 else sample.half_fork + sample.half_original


def _noise(sample: Sample) -> torch.Tensor:
    """Half of the steps that rounding may have moved the values by.

    Where the encoding has no known step, the change itself tells: under random signs its values have variance
    Δ², that of a step of 2√3 |Δ| (sign-flip parallel analysis: Hong, Sheng & Dobriban, arXiv 2012.02985).
    """
    return sample.delta.abs() * math.sqrt(3) if sample.half_fork is None else sample.half_fork


def _restore_norms(edited: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """`edited` with the row lengths of `weights`."""
    import torch

    lengths = weights.norm(dim=1) / edited.norm(dim=1).clamp_min(1e-30)
    return torch.mul(edited, lengths[:, None])


def is_own_axis(basis: torch.Tensor, sample: Sample) -> bool:
    """The directions are W's own singular vectors, as far as the change's input side tells.

    W takes an input vector v of the change to σ·u there, and elsewhere to a vector that has much besides u:
    the part outside of u is compared with that of random output directions. v is taken from the change, and
    not as Wᵀu, since errors of u along W's long axes would drown a short one.
    """
    import torch

    weights = sample.weights
    drawn = torch.randn(basis.shape, generator=torch.Generator().manual_seed(0))

    def outside(outputs: torch.Tensor, inputs: torch.Tensor) -> float:
        image = weights @ torch.linalg.qr(inputs)[0]
        return float((image - outputs @ (outputs.T @ image)).norm().item())

    random = torch.linalg.qr(drawn)[0]
    return outside(basis, sample.delta.T @ basis) <= OWN_AXIS * outside(random, weights.T @ random)
