"""Is the change of some rows of small rank, dense, or neither to tell?

Rows of a matrix of rank r have rank r as well, as soon as there are more than r of them. Two tests, since
one is blind where the other sees. Far above rounding the energy of the change beyond its r leading
directions is compared with the energy of rounding (‖Δ‖² − Σ s² ≤ Σ step²/12, reduced by the dimensions
taken out), and the last direction must stand out, because the spectrum of a fine-tune falls to the floor
without a step. Near rounding, the question is whether a matrix of rank r lies inside all rounding intervals
(`spectrum`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from detector.rewriting import inputs_of, is_gone, is_wide_enough, leading_outputs
from detector.sketch.reading import Values
from detector.spectrum import NEARLY, REPRODUCED, estimate_rank

if TYPE_CHECKING:
    import torch

MOST = 0.6
"""Rank, as a share of the rows read, from which a change of these rows cannot be told from a dense one."""
SLACK = 1.35
"""Energy left over that of rounding; measured 0.9 to 1.25 on merged LoRAs of rank 1 to 64 in bf16 and
fp16."""
CLIFF = 3.0
"""Least ratio of the energies of the last direction of a change and of the one behind it."""
LOUD = 3.0
"""Energy of the change over that of rounding from which the first test is made."""
DENSE = 2.5
"""Energy beyond the largest testable rank, over that of rounding, from which the change is dense."""
NOTHING_LEFT = 2.0
"""Energy beside a directional edit, over that of rounding, up to which there is nothing; two roundings have
2."""
FEWEST_ROWS = 8
COLUMNS = 2048
"""Columns that the interval test is made on; it takes seconds on more."""
ADAPTER_RANKS = 32
"""Ranks that must have been tested before a change counts as dense, unless all of the matrix was read: most
adapters have no more."""
LEAST_LIMIT, LEAST_LIMIT_WHOLE = 16, 8
"""The same for the interval test, which reaches a quarter of the rows only."""


class Form(StrEnum):
    """What the change of a matrix looks like."""

    NONE = "none"
    """Nothing above rounding."""
    LOW = "low-rank"
    DENSE = "dense"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Shape:
    """Form of a change, and its rank where that is low; for a dense one the rank that it is above."""

    form: Form
    rank: int = 0


def classify(values: Values, rest: torch.Tensor | None = None) -> Shape:
    """The form of a change.

    Args:
        values: rows of a pair.
        rest: (rows, width), what another edit leaves of the change; only that is judged.
    """
    delta, half = values.delta if rest is None else rest, values.half_fork
    whole = len(delta) == values.pair.fork.shape[0]
    if half is None:
        return Shape(Form.UNDECIDED)
    half_original = values.half_original
    if rest is None:  # rows that nothing moved, as of tokens that no text had, would pass for a small rank
        moved = delta.any(1)
        delta, half, half_original = delta[moved], half[moved], half_original[moved]
    if min(delta.shape) < FEWEST_ROWS:
        return Shape(Form.UNDECIDED)
    energies, floor = _energies(delta), half.double().square().sum().item() / 3
    total = float(energies.sum().item())
    if rest is not None and total <= NOTHING_LEFT * floor:
        return Shape(Form.NONE)
    loud = _by_floor(energies, floor, whole=whole) if total >= LOUD * floor else None
    if loud is None:
        loud = (
            Shape(Form.UNDECIDED)
            if rest is not None
            else _by_intervals(delta, half, half_original, whole=whole)
        )
    return Shape(Form.UNDECIDED) if rest is None and loud.form is Form.LOW and _is_cut(values) else loud


def _is_cut(values: Values) -> bool:
    """The rows lost what they had along the change's leading input directions, as in SVD compression."""
    delta = values.delta.numpy()
    if not is_wide_enough(delta):
        return False
    inputs = inputs_of(delta, leading_outputs(delta)[0])
    return is_gone(values.original.numpy() @ inputs, values.fork.numpy() @ inputs)


def _by_floor(energies: torch.Tensor, floor: float, *, whole: bool) -> Shape | None:
    """Judge the energies (largest first) of a loud change; None when they do not settle it."""
    rows = len(energies)
    limit = int(MOST * rows)
    tails = energies.sum() - energies.cumsum(0)
    for rank in range(1, limit + 1):
        left = float(tails[rank - 1].item())
        if left <= SLACK * floor * (1 - rank / rows):
            stands_out = float((energies[rank - 1] / energies[rank].clamp_min(1e-30)).item()) >= CLIFF
            return Shape(Form.LOW, rank) if stands_out else None
    if not whole and limit < ADAPTER_RANKS:
        return Shape(Form.UNDECIDED)
    if float(tails[limit - 1].item()) >= DENSE * floor * (1 - limit / rows):
        return Shape(Form.DENSE, limit)
    return None


def _by_intervals(
    delta: torch.Tensor, half: torch.Tensor, half_original: torch.Tensor, *, whole: bool
) -> Shape:
    columns = min(delta.shape[1], COLUMNS)
    found = estimate_rank(*(part[:, :columns].numpy() for part in (delta, half, half_original)))
    if found.rank is not None and found.reproduced >= REPRODUCED:
        return Shape(Form.LOW, found.rank)
    least = LEAST_LIMIT_WHOLE if whole else LEAST_LIMIT
    if found.rank is None and found.limit >= least and found.residual > NEARLY:
        return Shape(Form.DENSE, found.limit)
    return Shape(Form.UNDECIDED)


def _energies(delta: torch.Tensor) -> torch.Tensor:
    """Squared singular values, largest first, float64."""
    import torch

    wide = delta.double() if delta.shape[0] <= delta.shape[1] else delta.T.double()
    energies: torch.Tensor = torch.linalg.eigvalsh(wide @ wide.T)
    return energies.flip(0).clamp_min(0)
