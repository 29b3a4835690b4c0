"""Changes under quantisation: what is left when the original went through the same quantiser.

With its own quantiser repeated, an original differs from a pure quantisation nowhere, and from that of an
edited model in those codes alone that the edit pushed over a boundary. A value moves by one step s with
probability |Δ| / s, so the mean of the difference is Δ, and its mean size |Δ|: far less noise than the step
itself makes. Other encodings leave the whole rounding error, in which only strong directions show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.edits.context import Context
from detector.grid import BY_ROW, LEGACY, under_scales_of, usable, values_as_stored
from detector.pairing import Pair
from detector.singular import leading_vectors

if TYPE_CHECKING:
    import torch

ELEMENTS = 1 << 20
FLIPS = 4
"""Matrices of random signs; the largest of five values is the real one with chance 1/5."""
OVER_EDGE = 1.05
"""Factor on the largest singular value under random signs from which one counts as a spike. Its own spread is
1 to 3 % for matrices of 64 rows and more."""
MAX_SPIKES = 32
DEFLATIONS = 4
SELF_CONSISTENT = 0.999
"""Share of a fork's values that its own round-to-nearest quantiser gives back; searched scales give less."""


@dataclass(frozen=True, slots=True)
class Coded:
    """A quantised matrix pair, as many whole rows as `ELEMENTS` allow."""

    pair: Pair
    weights: torch.Tensor
    """(m, n) of the original, as stored."""
    values: torch.Tensor
    """(m, n) of the fork, as stored."""
    delta: torch.Tensor
    """(m, n) fork − original, the latter quantised alike if `exact`."""
    exact: bool
    """The quantiser can be repeated."""

    @property
    def differing(self) -> float:
        """Share of values with another code than the original's."""
        return float((self.delta.abs() > 1e-6 * self.weights.abs().max()).float().mean().item())


@dataclass(frozen=True, slots=True)
class Spikes:
    """Singular values of a change above those of the same values with random signs.

    Random signs keep the size of every error, however unequal, and destroy what they have in common (Hong,
    Sheng & Dobriban, arXiv 2012.02985).
    """

    count: int
    largest: float
    """First singular value over the edge."""
    is_extreme: bool
    """It is larger than under each set of random signs; chance is 1 / (1 + `FLIPS`) without a common part."""
    share: float
    """Squared norm of the change that the spikes stand for, noise taken off, over the norm of W squared."""
    visible: float
    """Squared norm, over that of W, from which a rank-one change would show."""


def load_coded(context: Context, pair: Pair) -> Coded:
    """Both sides of a quantised matrix.

    Raises:
        UnreadableTensorError: the encoding is not decoded.
    """
    import torch

    rows, columns = pair.fork.shape
    count = min(rows, max(1, ELEMENTS // columns))
    first = (rows - count) // 2
    weights = usable(context.original.band(pair.original.name, first, count))
    values = usable(context.fork.band(pair.fork.name, first, count))
    dtype = pair.fork.dtype
    if dtype in LEGACY and columns % LEGACY[dtype] == 0:
        again = values_as_stored(values, dtype)
        tolerance = 1e-3 * values.abs().mean()
        if ((again - values).abs() <= tolerance).float().mean().item() >= SELF_CONSISTENT:
            stored = values_as_stored(weights, pair.original.dtype)
            by_row = dtype in BY_ROW
            expected = under_scales_of(stored, values, dtype) if by_row else values_as_stored(stored, dtype)
            delta = values - expected
            return Coded(pair, weights, values, torch.where(delta.abs() <= tolerance, 0.0, delta), exact=True)
    delta = values - weights
    shrunk = (delta * weights).sum() / weights.square().sum().clamp_min(1e-30)
    return Coded(pair, weights, values, delta - shrunk * weights, exact=False)


def spikes(coded: Coded, seed: int = 0) -> Spikes:
    """Compare the spectrum of the change with that of the same values under random signs.

    Spikes are taken out before the signs are drawn anew, as their own energy would count as noise (Dobriban &
    Owen, arXiv 1711.04155).
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    vectors, values = (torch.from_numpy(part) for part in leading_vectors(coded.delta.numpy(), MAX_SPIKES))
    count, tops = 0, list[float]()
    for _ in range(DEFLATIONS):
        basis = vectors[:, :count]
        rest = coded.delta - basis @ (basis.T @ coded.delta)
        tops = []
        for _ in range(FLIPS):
            signs = torch.randint(0, 2, rest.shape, generator=generator) * 2.0 - 1
            tops.append(float(leading_vectors((rest * signs).numpy(), MAX_SPIKES)[1][0]))
        above = int((values > OVER_EDGE * max(tops)).sum().item())
        if above <= count:
            break
        count = above
    rows, columns = coded.delta.shape
    edge = max(sum(tops) / FLIPS, 1e-30)
    noise = (edge / (math.sqrt(rows) + math.sqrt(columns))) ** 2
    norm = max(coded.weights.square().sum().item(), 1e-30)
    energies = [_true_energy(value, rows * noise, columns * noise) for value in values[:count].tolist()]
    return Spikes(
        count=count,
        largest=values[0].item() / edge,
        is_extreme=values[0].item() > max(tops),
        share=sum(energies) / norm,
        visible=_true_energy(OVER_EDGE * edge, rows * noise, columns * noise) / norm,
    )


def _true_energy(observed: float, rows: float, columns: float) -> float:
    """θ² of a spike that is observed at y = √((θ² + m)(θ² + n)) / θ (Benaych-Georges & Nadakuditi 2012).

    Args:
        observed: singular value y.
        rows: number of rows times the noise's variance.
        columns: number of columns times the noise's variance.
    """
    middle = observed**2 - rows - columns
    root = middle**2 - 4 * rows * columns
    return (middle + math.sqrt(root)) / 2 if middle > 0 and root > 0 else 0.0
