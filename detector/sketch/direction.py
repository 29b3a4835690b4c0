"""Directional edits from bands: one output direction, or a few, removed from what writes the residual stream.

The same rows of several residual writers are read. An edit −α·u·(uᵀW) leaves on them the rows of u, times
an input vector v = Wᵀu. Two things must hold, and neither does for an adapter or a fine-tune: the writers
agree on u (all of them, or the two of each layer), and v follows from u. The rest of u is not known, so v
is solved for it, `Wᵀx = v`, with the original at hand: x must have the rows that were read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING

from detector.grid import is_float, usable
from detector.interface import WeightReader
from detector.pairing import Pair
from detector.sketch.plan import by_module
from detector.sketch.reading import Values

if TYPE_CHECKING:
    import torch

NEOX_WRITERS = frozenset({"dense", "dense_4h_to_h"})
ROWS = 32
"""Rows of a writer; directions of chance agree to 1/√32 = 0.18."""
FEWEST_ROWS = 8
FEWEST_WRITERS = 3
MOST_WRITERS = 12
SHARED = 0.9
"""Median agreement of the writers' directions from which they are one."""
SHARED_COARSE = 0.8
"""The same where the values are quantised, whose rounding blurs each direction by itself. Measured in Q4_0
and Q6_K: 0.96 to 1.00 for a direction removed by 0.6 or all, 0.13 and less for adapters, fine-tunes and
none; two directions of which one is real have 0.71."""
LEADING = 0.35
"""Least median share of the change in the directions; a rank-16 LoRA has 0.2 in its first on 32 rows."""
ALIGNED = 0.5
"""Least mean cosine of the solved direction and the one seen. By chance three writers have 0 ± 0.1."""
SOLVED_WRITERS = 4
SOLVER_STEPS = 30
ROWS_AT_A_TIME = 1024
SPIKE = 0.7
"""Share of a direction that may lie in one row: a channel that is trained more than others is no
direction."""
MOST_DIRECTIONS = 4
LOUD = 1.05
"""Energy of a change over that of rounding from which rounding can be left out of it."""
NEARLY_ALL = 0.9
"""Share of the change that the fewest directions must have, over what any number of them has."""
FITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Directions that writers share."""

    count: int
    shared: float
    """Median agreement over all pairs of writers."""
    within: float
    """Median agreement of the writers of one layer."""
    leading: float
    alignment: float
    strength: float | None
    keeps_norms: bool
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class _Writer:
    values: Values
    left: torch.Tensor
    """(rows, k) leading output directions."""
    shares: tuple[float, ...]
    """Share of the energy in the first 1, 2… of them, that of rounding left out."""

    @property
    def layer(self) -> int | None:
        return self.values.pair.layer


def is_writer(pair: Pair) -> bool:
    """Its rows are residual-stream dimensions."""
    writes = pair.writes_residual or (pair.is_matrix and pair.module in NEOX_WRITERS)
    return writes and pair.layer is not None and not pair.fork.name.endswith("@T")


def choose(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """The writers to read: of a few layers evenly apart all of them, as long as they write as many rows."""
    writers = [pair for pair in pairs if is_writer(pair)]
    heights = [pair.fork.shape[0] for pair in writers]
    writers = [pair for pair in writers if pair.fork.shape[0] == max(set(heights), key=heights.count)]
    modules = by_module(writers)
    each = max(1, MOST_WRITERS // max(len(modules), 1))
    layers = sorted({pair.layer for pair in writers if pair.layer is not None})
    count = min(each, len(layers))
    wanted = {layers[index * len(layers) // count] for index in range(count)}
    chosen: dict[tuple[str, int], Pair] = {}
    for pair in writers:  # of several experts in a layer the first
        if pair.layer in wanted:
            chosen.setdefault((pair.module, pair.layer or 0), pair)
    return tuple(chosen.values())


def find_direction(writers: Sequence[Values], original: WeightReader) -> Found | None:
    """The directions that the writers share, if they are those of a directional edit."""
    usable = [_writer(values) for values in writers if values.delta.abs().amax() > 0]
    heights = {len(writer.left) for writer in usable}
    if len(usable) < FEWEST_WRITERS or len(heights) != 1 or max(heights) < FEWEST_ROWS:
        return None
    counts = range(1, min(MOST_DIRECTIONS, max(heights) // 4) + 1)
    found = list[Found]()
    for count in counts:
        if (each := _found(usable, count, original)) is not None:
            found.append(each)
            if (
                each.leading >= NEARLY_ALL
            ):  # more directions cannot have much more, and each try costs seconds
                break
    most = max((each.leading for each in found), default=0.0)
    return next((each for each in found if each.leading >= NEARLY_ALL * most), None)


def without(values: Values, found: Found) -> torch.Tensor:
    """The change of a writer that the directions do not account for, (rows, width)."""
    import torch

    delta, rows = values.delta, values.original
    basis = _writer(values).left[:, : found.count]
    if not found.keeps_norms:
        return delta - basis @ (basis.T @ delta)
    left = delta
    unit = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)
    for _ in range(FITS):  # Δ = B·Vᵀ + diag(c)·W: directions, and rows scaled back to their lengths
        right = torch.linalg.qr(left.T @ basis)[0]
        inner = unit @ right  # (rows, k)
        along = (delta * unit).sum(1, keepdim=True)
        gram = torch.eye(found.count) - inner[:, :, None] * inner[:, None, :]
        part = (delta @ right - along * inner)[:, :, None]
        weights = torch.linalg.lstsq(gram, part).solution[:, :, 0]
        scale = along - (weights * inner).sum(1, keepdim=True)
        left = delta - scale * unit
        basis = torch.linalg.qr(left @ right)[0]
    rest: torch.Tensor = left - basis @ (basis.T @ left)
    return rest


def _found(writers: list[_Writer], count: int, original: WeightReader) -> Found | None:
    bases = [writer.left[:, :count] for writer in writers]
    share = median(writer.shares[count - 1] for writer in writers)
    every = _agreement(writers, bases, lambda left, right: True)  # noqa: ARG005
    within = _agreement(
        writers, bases, lambda left, right: left.layer is not None and left.layer == right.layer
    )
    coarse = any(not is_float(writer.values.pair.fork.dtype) for writer in writers)
    shared = SHARED_COARSE if coarse else SHARED
    if share < LEADING or max(every, within) < shared or _spiked(bases) or _scaling(writers) >= share:
        return None
    alignment, strength = _alignment(writers, count, original)
    if alignment < ALIGNED:
        return None
    return Found(
        count=count,
        shared=every,
        within=within,
        leading=share,
        alignment=alignment,
        strength=strength,
        keeps_norms=_keeps_norms(writers, count),
        pairs=tuple(writer.values.pair for writer in writers),
    )


def _writer(values: Values) -> _Writer:
    import torch

    delta = values.delta.double()
    energies, vectors = torch.linalg.eigh(delta @ delta.T)
    energies, vectors = energies.flip(0).clamp_min(0), vectors.flip(1)
    rounding = _rounding(values)
    signal = energies - rounding / len(energies)
    if float(energies.sum().item()) < LOUD * rounding:  # what is left of so little is accident
        signal = energies
    shares = (signal.cumsum(0) / signal.sum().clamp_min(1e-300)).clamp(0, 1)[:MOST_DIRECTIONS]
    return _Writer(values, vectors[:, :MOST_DIRECTIONS].float(), tuple(shares.tolist()))


def _rounding(values: Values) -> float:
    """Energy of rounding alone; it is spread over all directions. 0 where the encoding has no known step."""
    return 0.0 if values.half_fork is None else values.half_fork.double().square().sum().item() / 3


def _agreement(
    writers: list[_Writer], bases: list[torch.Tensor], wanted: Callable[[_Writer, _Writer], bool]
) -> float:
    """Median overlap of two writers' directions; 0 without two pairs of them."""
    overlaps = [
        (bases[i].T @ bases[j]).norm().item() / math.sqrt(bases[i].shape[1])
        for i in range(len(writers))
        for j in range(i + 1, len(writers))
        if wanted(writers[i], writers[j])
    ]
    return median(overlaps) if len(overlaps) > 1 else 0.0


def _spiked(bases: list[torch.Tensor]) -> bool:
    """Most of the direction is one row."""
    return median(basis.square().sum(1).amax().item() / basis.shape[1] for basis in bases) > SPIKE


def _scaling(writers: list[_Writer]) -> float:
    """Median share of the change that scales rows, as weight decay and folded gains do."""
    shares = []
    for writer in writers:
        delta, rows = writer.values.delta, writer.values.original
        dots = (delta * rows).sum(1).square() / rows.square().sum(1).clamp_min(1e-30)
        shares.append((dots.sum() / delta.square().sum().clamp_min(1e-30)).item())
    return median(shares)


def _alignment(writers: list[_Writer], count: int, original: WeightReader) -> tuple[float, float | None]:
    """Mean cosine of the directions seen and those solved for; median strength where it is a single one."""
    step = max(1, len(writers) // SOLVED_WRITERS)
    cosines, strengths = list[float](), list[float]()
    for writer in writers[::step][:SOLVED_WRITERS]:
        values = writer.values
        weights = _whole(values.pair, original)
        basis = writer.left[:, :count]
        inputs = values.delta[:, : weights.shape[1]].T @ basis  # (n, k): −α·Wᵀu
        solved = _solve(weights, inputs)
        seen = solved[values.first : values.first + len(basis)]
        cosines.append((basis * seen).sum().item() / max(basis.norm().item() * seen.norm().item(), 1e-30))
        if count == 1:
            strengths.append(_strength(weights, solved, seen, basis, inputs))
    strong = abs(fmean(cosines)) >= SHARED and strengths
    return abs(fmean(cosines)), median(strengths) if strong else None


def _strength(
    weights: torch.Tensor, solved: torch.Tensor, seen: torch.Tensor, basis: torch.Tensor, inputs: torch.Tensor
) -> float:
    """α of Δ = −α·r·(rᵀW), with r the solved direction at length one."""
    unit = solved / solved.norm().clamp_min(1e-30)
    expected = weights.T @ unit
    part = (basis * seen).sum() / solved.norm().clamp_min(1e-30)  # of r in the rows read, along u
    along = (inputs * expected).sum() / expected.square().sum().clamp_min(1e-30)
    return -(along / part.clamp(-1, 1)).item() if part.abs() > 0 else 0.0


def _whole(pair: Pair, original: WeightReader) -> torch.Tensor:
    """The original's matrix in float32, no more columns than it takes to solve for a direction."""
    import torch

    height, width = pair.original.shape
    whole = torch.empty(height, min(width, height * 3 // 2))
    for first in range(0, height, ROWS_AT_A_TIME):
        rows = original.band(pair.original.name, first, min(ROWS_AT_A_TIME, height - first))
        whole[first : first + len(rows)] = rows[:, : whole.shape[1]].float()
    return usable(whole)


def _solve(weights: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """(m, k): x with Wᵀx ≈ inputs, by conjugate gradients on the normal equations, stopped early.

    Stopping early leaves out what the inputs' rounding would be blown up to in W's weakest directions.
    """
    import torch

    target = weights @ inputs
    x = torch.zeros_like(target)
    residual, step = target.clone(), target.clone()
    energy = residual.square().sum(0)
    for _ in range(SOLVER_STEPS):
        image = weights @ (weights.T @ step)
        rate = energy / (step * image).sum(0).clamp_min(1e-30)
        x = x + step * rate
        residual = residual - image * rate
        following = residual.square().sum(0)
        step = residual + step * (following / energy.clamp_min(1e-30))
        energy = following
    return x


def _keeps_norms(writers: list[_Writer], count: int) -> bool:
    """Rows have their old lengths, where taking the directions out alone would have changed them."""
    kept, plain = list[float](), list[float]()
    for writer in writers:
        before = writer.values.original.double().square().sum(1)
        after = writer.values.fork.double().square().sum(1)
        basis = writer.left[:, :count].double()
        removed = writer.values.original.double() + basis @ (basis.T @ writer.values.delta.double())
        kept.append(((after - before) / before.clamp_min(1e-30)).abs().mean().item())
        plain.append(((removed.square().sum(1) - before) / before.clamp_min(1e-30)).abs().mean().item())
    return median(plain) > 0 and median(kept) < 0.25 * median(plain)
