"""Is a change a combination of the changes of other models, value by value?

Every merge method is linear in the parents where it acts: linear, task arithmetic and averages everywhere,
SLERP with a share of the original besides (its two coefficients need not add up to 1), TIES (Yadav et al.,
arXiv 2306.01708) and DARE (Yu et al., arXiv 2311.03099) on a subset of the values that differs from parent to
parent. The parents are known exactly, so a stored value of the fork must lie within one rounding of the
formula's; a correlation proves nothing, as two fine-tunes with a common ancestor have one too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

REPRODUCED = 0.9
"""Share of the moved values that must follow from the parents."""
NEARLY = 0.6
"""Share of them in a matrix of a merge of which the fit found only part of a formula: values that parents
were chosen for one by one lie near several combinations."""
CHANCE = 0.5
"""Largest share that may follow when the parents' rows are put in another order: above it, the stored values
are too coarse to tell."""
MIN_MOVED = 200
"""Moved values below which a fit of a few coefficients says nothing."""
REFINEMENTS = 8
SHRINK = 0.9
"""The interval aimed at, as a share of the real one, so that values come to rest inside."""
MAX_SPARSE_PARENTS = 2
"""With k parents a sparse merge has 2^k − 1 patterns; more than three fit too much by chance."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How one matrix's change follows from the parents' changes."""

    formula: str
    """`linear`, `stated` (linear, by shares of two decimals, as people write), `spherical` or `sparse`."""
    weights: tuple[float, ...]
    """Least-squares share of each parent's change."""
    reproduced: float
    """Share of the moved values within the allowed roundings of the formula."""
    chance: float
    """The same with the parents' rows in another order."""
    roundings: int
    floor_ratio: float
    """Squared residual over the energy of one rounding."""
    density: float
    """Share of values in which some parent shows."""

    @property
    def holds(self) -> bool:
        """The change follows from the parents, and would not from others."""
        return self.reproduced >= REPRODUCED and self.chance <= CHANCE

    @property
    def nearly(self) -> bool:
        """Most of the change follows from the parents, and would not from others."""
        return self.reproduced >= NEARLY and self.chance <= CHANCE


@dataclass(frozen=True, slots=True)
class Target:
    """One matrix's change, and what its stored values allow."""

    delta: torch.Tensor
    """(m, n) fork − original, float32."""
    base: torch.Tensor
    """(m, n) the original."""
    half: torch.Tensor
    """(m, n) half a rounding step of the fork's values."""
    stores: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = ()
    """Ways to quantise as the fork may have been, where that can be repeated: steps as wide as the change
    leave no interval to judge by, equal codes do."""
    moved: torch.Tensor = field(init=False)
    """(m, n) values that the original alone does not give."""

    def __post_init__(self) -> None:
        moved = self.delta.abs() > self.half
        if self.stores:
            moved = ~self._same(self.base, self.stores[0])
        object.__setattr__(self, "moved", moved)

    def share(self, fitted: torch.Tensor, roundings: int) -> float:
        """Share of the moved values that follow from a change."""
        count = max(int(self.moved.sum().item()), 1)
        if not self.stores:
            inside = (self.delta - fitted).abs() <= 1.02 * roundings * self.half
            return int((inside & self.moved).sum().item()) / count
        values = self.base + fitted
        return (
            max(int((self._same(values, store) & self.moved).sum().item()) for store in self.stores) / count
        )

    def _same(self, values: torch.Tensor, store: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The same code; the block's scale may differ by a bit."""
        return (store(values) - self.base - self.delta).abs() <= 0.5 * self.half


def fit_parents(target: Target, parents: list[torch.Tensor], stated: tuple[float, ...]) -> Fit | None:
    """The simplest formula that reproduces the change, or the best that was found.

    Args:
        target: the change.
        parents: (m, n) parent − original, at least one.
        stated: shares that other matrices suggest; coarse steps leave too little of one to fit its own.

    Returns:
        None if too few values moved to tell.
    """
    if int(target.moved.sum().item()) < MIN_MOVED:
        return None
    best: Fit | None = None
    formulas = ["linear", "stated", "spherical"]
    if len(parents) <= MAX_SPARSE_PARENTS and not target.stores:
        formulas.append("sparse")
    rolled = [parent.roll(len(parent) // 2, 0) for parent in parents]
    for formula in formulas:
        for roundings in (1, 2) if not target.stores else (1,):
            fit = _fit(formula, target, parents, roundings, stated)
            if best is None or fit.reproduced > best.reproduced:
                best = fit
            if fit.reproduced >= REPRODUCED:
                break
        if best is not None and best.reproduced >= REPRODUCED:
            break
    if best is None or best.reproduced < NEARLY:
        return best
    return replace(best, chance=_fit(best.formula, target, rolled, best.roundings, stated).reproduced)


def _fit(
    formula: str, target: Target, parents: list[torch.Tensor], roundings: int, stated: tuple[float, ...]
) -> Fit:
    if formula == "stated":
        fitted = _combine(parents, list(stated))
    else:
        fitted = _fitted(formula, target, parents, roundings)
    floor = target.half.square().sum().item() / 3
    return Fit(
        formula=formula,
        weights=tuple(round(value, 4) for value in solve(target.delta, parents).tolist()),
        reproduced=target.share(fitted, roundings),
        chance=1.0,
        roundings=roundings,
        floor_ratio=(target.delta - fitted).square().sum().item() / max(floor, 1e-300),
        density=(fitted != 0).float().mean().item(),
    )


def solve(target: torch.Tensor, columns: list[torch.Tensor]) -> torch.Tensor:
    """Least-squares coefficients; the smallest ones where columns depend on each other."""
    import torch

    matrix = torch.stack([column.flatten() for column in columns]).double()
    gram, right = matrix @ matrix.T, matrix @ target.flatten().double()
    solution: torch.Tensor = torch.linalg.pinv(gram, rcond=1e-10, hermitian=True) @ right
    return solution.float()


def _fitted(formula: str, target: Target, parents: list[torch.Tensor], roundings: int) -> torch.Tensor:
    half = roundings * target.half
    if formula == "sparse":
        return _sparse(target.delta, parents, half)
    return _refined(target.delta, [*parents, target.base] if formula == "spherical" else parents, half)


def _refined(delta: torch.Tensor, columns: list[torch.Tensor], half: torch.Tensor) -> torch.Tensor:
    """The combination of `columns` that lies in the most intervals, by alternating projections."""
    lower, upper = delta - SHRINK * half, delta + SHRINK * half
    target, fitted = delta, delta
    for _ in range(REFINEMENTS):
        coefficients = solve(target, columns).tolist()
        fitted = _combine(columns, coefficients)
        target = fitted.clamp(lower, upper)
    return fitted


def _combine(columns: list[torch.Tensor], coefficients: list[float]) -> torch.Tensor:
    total = columns[0] * coefficients[0]
    for column, coefficient in zip(columns[1:], coefficients[1:], strict=True):
        total = total + column * coefficient
    return total


def _sparse(delta: torch.Tensor, parents: list[torch.Tensor], half: torch.Tensor) -> torch.Tensor:
    """Each value is nothing, or a combination of the parents in one of the patterns, whichever is nearest."""
    import torch

    patterns = [
        subset for size in range(1, len(parents) + 1) for subset in combinations(range(len(parents)), size)
    ]
    single = [_common_ratio(delta, parent, half) for parent in parents]
    best, best_inside = torch.zeros_like(delta), -1
    whole = [1.0] * len(parents)
    # Where parents meet they are added (DARE), or averaged (TIES); elsewhere a value is all of one's (SCE).
    for first, share in ((single, 1.0), (single, 0.5), (whole, 0.5)):
        if best_inside >= REPRODUCED * delta.numel():
            break
        coefficients = [[first[i] * (share if len(p) > 1 else 1.0) for i in p] for p in patterns]
        for _ in range(REFINEMENTS):
            nearest, which = _nearest(delta, parents, patterns, coefficients)
            for index, pattern in enumerate(patterns):
                chosen = (which == index + 1) & ((delta - nearest).abs() <= 2 * half) & (delta.abs() > half)
                if int(chosen.sum().item()) > 10 * len(pattern):
                    columns = [parents[i][chosen] for i in pattern]
                    coefficients[index] = solve(delta[chosen], columns).tolist()
        nearest, _ = _nearest(delta, parents, patterns, coefficients)
        inside = int(((delta - nearest).abs() <= half).sum().item())
        if inside > best_inside:
            best, best_inside = nearest, inside
    return best


def _nearest(
    delta: torch.Tensor,
    parents: list[torch.Tensor],
    patterns: list[tuple[int, ...]],
    coefficients: list[list[float]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each value the nearest candidate, and its number; 0 stands for no change."""
    import torch

    nearest, distance = torch.zeros_like(delta), delta.abs()
    which = torch.zeros_like(delta, dtype=torch.int8)
    for index, (pattern, shares) in enumerate(zip(patterns, coefficients, strict=True), start=1):
        candidate = _combine([parents[i] for i in pattern], shares)
        off = (delta - candidate).abs()
        closer = off < distance
        nearest = torch.where(closer, candidate, nearest)
        distance = torch.where(closer, off, distance)
        which = torch.where(closer, torch.full_like(which, index), which)
    return nearest, which


def _common_ratio(delta: torch.Tensor, parent: torch.Tensor, half: torch.Tensor) -> float:
    """The commonest delta / parent of the moved values, by the half-sample mode (Bickel & Frühwirth 2006)."""
    usable = (delta.abs() > half) & (parent.abs() > 4 * half)
    ratios = (delta[usable] / parent[usable]).sort().values
    ratios = ratios[ratios.abs() < 100]
    while len(ratios) > 8:
        count = (len(ratios) + 1) // 2
        widths = ratios[count - 1 :] - ratios[: len(ratios) - count + 1]
        first = int(widths.argmin().item())
        ratios = ratios[first : first + count]
    return float(ratios.mean().item()) if len(ratios) else 1.0
