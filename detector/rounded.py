"""Originals that were rounded to a coarser type before anything else was done to them.

A fork made on a dequantised base (QLoRA, Dettmers et al., arXiv 2305.14314) is D(Q(W)) + Δ. Against W its
change is the rounding error e = D(Q(W)) − W and the edit together, and e has no structure: whatever was done
looks like a fine-tune. But e follows from W, and nobody's training correlates with it: where ⟨Δ', e⟩ / ⟨e, e⟩
of the whole change Δ' is 1 within its error, the rounding is in it. Against D(Q(W)) the edit is there alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from detector.floats import read_floats, square_sum
from detector.formats.dtypes import torch_dtype
from detector.formats.views import Views, base_name
from detector.grid import BY_ROW, LEGACY, half_ulp, is_float, through_gguf, usable, values_as_stored
from detector.interface import TensorInfo, WeightReader
from detector.nested import NESTED, nested_scales, through_nested
from detector.pairing import Pair
from detector.singular import leading_vectors

if TYPE_CHECKING:
    import torch

SCHEMES = (*LEGACY, "F8_E4M3", "F8_E5M2")
"""Roundings that follow from the values of a row alone."""
LOUD = 4.0
"""Energy of a rounding over that of the stored types' own below which it hides nothing."""
WHOLE = 0.02
"""Distance of the coefficient from 1 that arithmetic explains: scales of another library, ties."""
CANCELLED = 0.1
"""The same without the leading directions of the change."""
SIGMAS = 4.0
"""The same in standard errors, of which other changes make some."""
CHANCE = 10.0
"""Standard errors from zero; a change that has nothing to do with the rounding has one or two."""
DIRECTIONS = 16
"""Leading output directions of a change that are left out: an adapter of many times the rounding's size."""
LIKELY = 3.0
"""`CHANCE` for a type that other matrices of the fork went through."""
FINEST, FINE = 0.002, 0.015
"""Relative error that no rounding is below, and that all but those to eight bits exceed."""
CORNER_ROWS, CORNER_WIDTH = 4, 512
"""Part of a band on which most types are refuted."""
TILE = 1 << 22
"""Values that are held at once."""
SCALE_STEP = 0.05
"""Largest relative distance of two neighbouring scales of scales, about: of 256 levels in a block's range."""
ROWS, ELEMENTS = 64, 1 << 17
"""Rows of a matrix that are asked, and values if there are more of them in few rows."""


def rounding_of(
    before: torch.Tensor, after: torch.Tensor, dtypes: tuple[str, str], likely: Sequence[str] = ()
) -> str:
    """The type whose rounding of whole rows of the original is part of the change; empty for no type.

    Args:
        before: (m, n) rows of the original, float32.
        after: the fork's.
        dtypes: stored types of the two; only of floats is anything known.
        likely: types that other matrices went through; no others are tried then.
    """
    if before.dim() != 2 or not before.numel() or not all(is_float(dtype) for dtype in dtypes):
        return ""
    width = min(CORNER_WIDTH, before.shape[1])
    corner = (before[:CORNER_ROWS, :width], after[:CORNER_ROWS, :width])
    plausible = [
        scheme
        for scheme in likely or SCHEMES
        if scheme not in dtypes
        and not before.shape[1] % LEGACY.get(scheme, 1)
        and (likely or scheme in BY_ROW or (not width % LEGACY.get(scheme, 1) and _may_be(*corner, scheme)))
    ]
    chance = LIKELY if likely else CHANCE
    found = {scheme: _left_by(before, after, scheme, dtypes, chance) for scheme in plausible}
    known = {scheme: left for scheme, left in found.items() if left is not None}
    return min(known, key=lambda scheme: known[scheme], default="")


def _may_be(before: torch.Tensor, after: torch.Tensor, scheme: str) -> bool:
    """The change is as large as the rounding, and has its sign, as far as a corner tells."""
    delta, error = _beside(before, after - before, values_as_stored(before, scheme) - before)
    coefficient, spread = _coefficient(delta, error)
    return abs(coefficient - 1) <= 0.5 + SIGMAS * spread and 2 * float(delta.norm()) >= float(error.norm())


def _left_by(
    before: torch.Tensor, after: torch.Tensor, scheme: str, dtypes: tuple[str, str], chance: float
) -> float | None:
    """Squared norm of the change beside the rounding; None if that is not in it."""
    import torch

    delta = after - before
    error = values_as_stored(before, scheme) - before
    floor = sum(half_ulp(before, dtype).square().sum().item() for dtype in dtypes) / 3
    if error.square().sum().item() <= LOUD * floor or 2 * float(delta.norm()) < float(error.norm()):
        return None
    rest = (delta - error).square().sum().item()
    delta, error = _beside(before, delta, error)
    if _is_part(delta, error, WHOLE, chance):
        return rest
    if min(delta.shape) < 4 * DIRECTIONS:
        return None
    # What an adapter adds is in few directions, the rounding in all. Those where the two add up are taken out
    # first, so that of what is left a little more cancels.
    outputs = torch.from_numpy(leading_vectors(delta.numpy(), DIRECTIONS)[0])
    delta, error = (part - outputs @ (outputs.T @ part) for part in (delta, error))
    return rest if _is_part(delta, error, CANCELLED, chance) else None


def _beside(
    before: torch.Tensor, delta: torch.Tensor, error: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both without their share of the values, which a rounding changes a little and other edits a lot."""
    energy = before.square().sum().clamp_min(1e-30)
    changed, rounded = ((part * before).sum() / energy for part in (delta, error))
    return delta - changed * before, error - rounded * before


def _is_part(delta: torch.Tensor, error: torch.Tensor, off: float, chance: float) -> bool:
    """The whole of a rounding is in a change, beyond chance."""
    coefficient, spread = _coefficient(delta, error)
    return abs(coefficient - 1) <= off + SIGMAS * spread and coefficient >= chance * spread


def _coefficient(delta: torch.Tensor, error: torch.Tensor) -> tuple[float, float]:
    """Share of the rounding that is in a change, and its standard error."""
    energy = max(error.square().sum().item(), 1e-30)
    spread = ((delta - error).square() * error.square()).sum().sqrt().item() / energy
    return (delta * error).sum().item() / energy, spread


class RoundedReader:
    """A `WeightReader` of an original, some of whose matrices went through a coarser type and back."""

    def __init__(self, original: WeightReader, schemes: Mapping[str, str]) -> None:
        """`schemes`: stored name of a matrix → type that it went through."""
        self._original, self._schemes = original, dict(schemes)
        self._views = Views(self)
        self._scales: dict[str, torch.Tensor] = {}

    @property
    def format(self) -> str:
        """Of the original."""
        return self._original.format

    @property
    def headers(self) -> tuple[str, ...]:
        """Of the original."""
        return self._original.headers

    @property
    def bytes_read(self) -> int:
        """Of the original."""
        return self._original.bytes_read

    def tensors(self) -> Mapping[str, TensorInfo]:
        """Of the original."""
        return self._original.tensors()

    def raw(self, name: str) -> bytes:
        """Stored bytes of the original."""
        return self._original.raw(name)

    def band_bytes(self, name: str, rows: int) -> int:
        """Of the original."""
        return self._original.band_bytes(name, rows)

    def slab(self, name: str, index: int, first_row: int, rows: int) -> torch.Tensor:
        """Rows of one matrix of a stack; stacks are left as they are."""
        return self.band(name, index, 1)[0, first_row : first_row + rows]

    def values(self, name: str) -> torch.Tensor:
        """All values of one tensor or view."""
        shape = self._views.shape(name)
        return self.band(name, 0, shape[0]) if shape else self._original.values(name)

    def band(self, name: str, first_row: int, rows: int) -> torch.Tensor:
        """Rows of one tensor or view, in the original's type."""
        if name not in self.tensors():
            return self._views.band(name, first_row, rows)
        scheme = self._schemes.get(name)
        if scheme is None:
            return self._original.band(name, first_row, rows)
        stored = usable(self._original.band(name, first_row, rows))
        dtype = torch_dtype(self.tensors()[name].dtype)
        if scheme != NESTED:
            return values_as_stored(stored, scheme).to(dtype)
        if name not in self._scales:
            self._scales[name] = nested_scales(self._original, name)
        first = first_row * stored.shape[1] // LEGACY["BNB-NF4"]
        return through_nested(stored, self._scales[name][first:]).to(dtype)


def rounded_first(original: WeightReader, fork: WeightReader, sizes: Mapping[Pair, float]) -> dict[str, str]:
    """Matrices of the original that were rounded before anything else happened, by stored name, and how.

    Args:
        original: reader of the original.
        fork: reader of the fork.
        sizes: changed matrices with ‖Δ‖ / ‖W‖. One of each module is asked first.
    """
    pairs = [pair for pair, size in sizes.items() if _is_as_large(pair, size, original, fork)]
    stored = [pair for pair in pairs if _is_stored(pair)]
    probes = {pair.module: pair for pair in stored}
    asked = {_asked(pair, original, fork, ()).removesuffix("-NESTED") for pair in probes.values()}
    likely = tuple(sorted(asked - {""}))
    if not likely:
        return {}
    found = {pair.original.name: _asked(pair, original, fork, likely) for pair in stored}
    return {name: scheme for name, scheme in found.items() if scheme}


def only_ties(
    pair: Pair, plain: WeightReader, rounded: WeightReader, fork: WeightReader, scheme: str
) -> bool:
    """Where the fork is not the rounded original, it is as near to the original: ties of another library.

    Args:
        pair: a matrix in plain floats.
        plain: reader of the original.
        rounded: of the original after `scheme`.
        fork: reader of the fork.
        scheme: with double quantisation scales tie, too, and take their block with them.
    """
    import torch

    height, width = pair.original.shape
    eps = torch.finfo(torch_dtype(pair.fork.dtype)).eps
    rows = max(1, TILE // width)
    for first in range(0, height, rows):
        names = (plain, pair.original), (rounded, pair.original), (fork, pair.fork)
        before, ours, theirs = (usable(reader.band(info.name, first, rows)) for reader, info in names)
        step = eps * theirs.abs()
        if scheme == NESTED:
            near = (theirs - ours).abs() <= SCALE_STEP * ours.abs() + step
        else:
            near = (theirs - before).abs() <= (ours - before).abs() * (1 + 1e-4) + step
        if not bool((near | (ours == theirs)).all()):
            return False
    return True


def _is_as_large(pair: Pair, size: float, original: WeightReader, fork: WeightReader) -> bool:
    """The change may hold a rounding, as far as numpy tells: most forks need no torch."""
    if not _is_stored(pair) or size < FINEST:
        return False
    if size >= FINE:
        return True
    before = read_floats(original, pair.original, 0, CORNER_ROWS * 4)
    delta = read_floats(fork, pair.fork, 0, CORNER_ROWS * 4) - before
    scale = np.maximum(np.abs(before).max(1, keepdims=True), 1e-30) / 127
    rounded = [np.round(before / scale) * scale]
    if before.shape[1] % LEGACY["Q8_0"] == 0:
        rounded.append(through_gguf(before, "Q8_0"))
    for error in (values - before for values in rounded):
        energy = max(square_sum(error), 1e-30)
        spread = math.sqrt(square_sum((delta - error) * error)) / energy
        if abs(float((delta * error).sum()) / energy - 1) <= 0.5 + SIGMAS * spread:
            return True
    return False


def _is_stored(pair: Pair) -> bool:
    """A matrix of the original's own, in plain floats on both sides."""
    plain = is_float(pair.original.dtype) and is_float(pair.fork.dtype)
    return plain and len(pair.original.shape) == 2 and base_name(pair.original.name) == pair.original.name


def _asked(pair: Pair, original: WeightReader, fork: WeightReader, likely: Sequence[str]) -> str:
    """The type that a few rows passed through; empty if none."""
    rows = min(pair.original.shape[0], max(ROWS, ELEMENTS // pair.original.shape[1]))
    first = (pair.original.shape[0] - rows) // 2
    before = usable(original.band(pair.original.name, first, rows))
    after = usable(fork.band(pair.fork.name, first, rows))
    return seen_through(pair, original, ((first, rows),), before, after, likely)[0]


def seen_through(  # noqa: PLR0913  # a matrix, its rows on both sides, and what is known of others
    pair: Pair,
    original: WeightReader,
    places: Sequence[tuple[int, int]],
    before: torch.Tensor,
    after: torch.Tensor,
    likely: Sequence[str] = (),
) -> tuple[str, torch.Tensor]:
    """The type that some rows of the original passed through, and these rows after it.

    Args:
        pair: the matrix; empty and `before` come back if it is no plain one.
        original: its reader: double quantisation follows from the whole matrix.
        places: first row and number of rows, of each band.
        before: those rows, float32.
        after: the fork's.
        likely: types that other matrices passed through.
    """
    import torch

    dtypes = (pair.original.dtype, pair.fork.dtype)
    found = rounding_of(before, after, dtypes, likely) if _is_stored(pair) else ""
    if not found:
        return "", before
    best, chosen, left = "", before, float("inf")
    for scheme in (found, NESTED) if found == "BNB-NF4" else (found,):
        reader = RoundedReader(original, {pair.original.name: scheme})
        rows = torch.cat([reader.band(pair.original.name, *place) for place in places]).float()
        rest = (after - rows).square().sum().item()
        if rest < left:
            best, chosen, left = scheme, rows, rest
    return best, chosen
