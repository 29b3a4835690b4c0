"""Reading bands of both sides, and what they say about each tensor alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from detector.compare import VIA
from detector.errors import UnreadableTensorError
from detector.formats.dtypes import torch_dtype
from detector.grid import (
    BY_ROW,
    LEGACY,
    counted_from_one,
    effective_dtype,
    error_over_model,
    half_step,
    half_ulp,
    is_float,
    passed_through,
    usable,
    values_as_stored,
)
from detector.interface import WeightReader
from detector.pairing import Pair
from detector.prefetch import read_together
from detector.rewriting import was_pruned
from detector.rounded import seen_through
from detector.sketch.plan import Bands, cost

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

CORNER, CORNER_WIDTH = 2, 256
"""Rows and columns on which most types are refuted."""
AT_ONCE = 64 << 20
"""Bytes of the fork that are held at a time."""
RECREATED = 0.995
"""Share of codes that must follow from the original; ties may break otherwise in another quantiser."""
INSIDE = 0.999
"""Share of the original's values that must lie in the fork's rounding intervals."""
SCALED = 0.9
"""Share of a change that factors must account for; of an independent one it is one over the rows read."""
FEWEST_TO_SCALE = 4
NOISE_RATIO = 1.5
"""Squared error over what a scheme's steps predict, up to which quantisation alone may explain it."""


@dataclass(frozen=True, slots=True)
class Values:
    """Rows of a pair, float32, (rows, width); of a vector (1, width)."""

    pair: Pair
    first: int
    """First row of the first band."""
    original: torch.Tensor
    fork: torch.Tensor
    half_fork: torch.Tensor | None
    """Half a rounding step of the fork's values; None when its encoding has no known step."""
    half_original: torch.Tensor
    broken: int
    """Values of the fork that are not numbers."""
    rounded: str = ""
    """Coarser type that the original went through first; `original` is what it left."""
    via: str = ""
    """Narrower type that alone gives the fork's values."""

    @property
    def delta(self) -> torch.Tensor:
        """Fork − original."""
        return self.fork - self.original


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the survey saw of one pair."""

    bands: Bands
    equal: bool
    """The rows hold the original's values in the fork's type, exactly or, where that is quantised, as far as
    its rounding shows."""
    explained: bool
    """Not equal, but the difference may be a quantiser's that we do not know: nothing follows from it."""
    via: str
    """A narrower type that the values passed through, if that alone explains them."""
    rounded: str
    """A coarser type that the original passed through first, whatever was done then."""
    relative_norm: float
    moved: float
    """Share of the values that differ."""
    moved_rows: float
    rescaled: bool
    """The change multiplies columns, or rows, by factors of their own, and does little else."""
    zeroed: bool
    """What moved is zero now, as pruning leaves it, or many values are that were not."""
    small: bool
    """No value moved by more than one bf16 step."""
    broken: int
    """Values that are not numbers."""

    @property
    def pair(self) -> Pair:
        """The two tensors."""
        return self.bands.pair

    @property
    def changed(self) -> bool:
        """The rows differ by more than a change of type."""
        return not (self.equal or self.explained or self.via)


def measure(
    plans: Sequence[Bands],
    original: WeightReader,
    fork: WeightReader,
    work: Callable[[Bands, Values], T],
) -> list[T]:
    """`work` of every pair's bands, read together; pairs whose encoding is not decoded are left out."""
    found: list[T] = []
    for group in _groups(plans, fork):
        read = read_together([partial(_load, plan, original, fork) for plan in group])
        for plan, rows in zip(group, read, strict=True):
            if rows is not None:
                found.append(work(plan, _values(plan, *rows, original)))
    return found


def look(bands: Bands, values: Values) -> Seen:
    """Compare the rows of one pair."""
    pair, left, right = bands.pair, values.original, values.fork
    same_type = pair.fork.dtype == pair.original.dtype
    expected = left if same_type else values_as_stored(left, pair.fork.dtype)
    unequal = expected != right
    equal = (not values.rounded and not bool(unequal.any())) or (
        not is_float(pair.fork.dtype) and not same_type and _within_rounding(values, unequal)
    )
    delta = values.delta
    energy = delta.square().sum().item() / max(left.square().sum().item(), 1e-30)
    explained = not equal and not is_float(pair.fork.dtype) and not same_type and _may_be_rounding(values)
    steps = delta.abs() <= 2.001 * half_ulp(left, "BF16")
    return Seen(
        bands=bands,
        equal=equal,
        explained=explained,
        via="" if equal or explained or (values.rounded and bool(unequal.any())) else values.via,
        rounded=values.rounded,
        relative_norm=energy**0.5,
        moved=unequal.float().mean().item(),
        moved_rows=unequal.any(1).float().mean().item(),
        rescaled=pair.is_matrix and _rescaled(left, delta),
        zeroed=pair.is_matrix and is_float(pair.fork.dtype) and _zeroed(left, right),
        small=bool(steps.all()),
        broken=values.broken,
    )


def _load(
    bands: Bands, original: WeightReader, fork: WeightReader
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Rows of both sides as they are stored: those of a whole group are held, and float32 is larger."""
    import torch

    try:
        theirs = [fork.band(bands.pair.fork.name, first, rows) for first, rows in bands.places]
        ours = [original.band(bands.pair.original.name, first, rows) for first, rows in bands.places]
    except UnreadableTensorError:
        return None
    return _flat(torch.cat(ours)), _flat(torch.cat(theirs))


def _values(bands: Bands, left: torch.Tensor, right: torch.Tensor, original: WeightReader) -> Values:
    import torch

    pair = bands.pair
    before, after = usable(left), usable(right)
    half_original = _half(left, pair.original.dtype)
    values = Values(
        pair=pair,
        first=bands.places[0][0],
        original=before,
        fork=after,
        half_fork=_half(right, pair.fork.dtype),
        half_original=half_ulp(usable(left), "BF16") if half_original is None else half_original,
        broken=int((~torch.isfinite(right.float())).sum().item()),
    )
    if not bool((before != after).any()):
        return values
    via = _via(values)
    if via or not pair.is_matrix:
        return replace(values, via=via)
    rounded, before = seen_through(pair, original, bands.places, before, after)
    return replace(values, original=before, rounded=rounded, via=rounded)


def _groups(plans: Sequence[Bands], fork: WeightReader) -> Iterable[list[Bands]]:
    group, held = list[Bands](), 0
    for plan in plans:
        size = cost([plan], fork)
        if group and held + size > AT_ONCE:
            yield group
            group, held = [], 0
        group.append(plan)
        held += size
    if group:
        yield group


def _flat(rows: torch.Tensor) -> torch.Tensor:
    return rows.reshape(1, -1) if rows.dim() == 1 else rows.reshape(rows.shape[0], -1)


def _half(stored: torch.Tensor, dtype: str) -> torch.Tensor | None:
    """Half a step of each value; a wide container of narrow numbers has the step of the numbers."""
    effective = effective_dtype(stored, dtype) if is_float(dtype) else dtype
    values = usable(stored)
    half = half_step(values, effective)
    if half is None or effective == dtype:
        return half
    return half.maximum(half_ulp(values, dtype))


def _within_rounding(values: Values, unequal: torch.Tensor) -> bool:
    """The original's own codes but for ties, or values that all lie in the fork's rounding intervals."""
    if values.pair.fork.dtype in LEGACY and unequal.float().mean().item() <= 1 - RECREATED:
        return True
    if values.half_fork is None:
        return False
    inside = values.delta.abs() <= values.half_fork * 1.02 + 1e-12
    return inside.float().mean().item() >= INSIDE


def _may_be_rounding(values: Values) -> bool:
    """A type whose scales may have been searched, and a difference no larger than its own error.

    Q8_0 is always rounded to nearest, so that its intervals are exact.
    """
    dtype = values.pair.fork.dtype
    if dtype == "Q8_0":
        return False
    ratio = error_over_model(values.fork, values.delta, dtype, values.half_fork)
    return ratio is None or ratio <= NOISE_RATIO


def _rescaled(original: torch.Tensor, delta: torch.Tensor) -> bool:
    """Best factors of rows or columns account for most of the change, and are not one factor for all."""
    if min(delta.shape) < FEWEST_TO_SCALE:
        return False
    for axis in (0, 1):
        squares = original.square().sum(axis).clamp_min(1e-30)
        factors = (original * delta).sum(axis) / squares
        explained = (factors.square() * squares).sum() / delta.square().sum().clamp_min(1e-30)
        if explained >= SCALED and factors.std() > 0.1 * factors.mean().abs():
            return True
    return False


def _zeroed(original: torch.Tensor, fork: torch.Tensor) -> bool:
    zeros = int(((fork == 0) & (original != 0)).sum().item())
    moved = int((fork != original).sum().item())
    return was_pruned(zeros, moved, fork.numel())


def _via(values: Values) -> str:
    """A type that reproduces the fork's values from the original's; tried on a corner first."""
    pair = values.pair
    if not pair.is_matrix and counted_from_one(values.original, values.fork, pair.fork.dtype):
        return pair.fork.dtype
    if not pair.is_matrix or not is_float(pair.fork.dtype):
        return ""
    return next(
        (
            name
            for name in VIA
            if name not in {pair.fork.dtype, pair.original.dtype}
            and _passed_through(values, name, CORNER)
            and _passed_through(values, name, len(values.fork))
        ),
        "",
    )


def _passed_through(values: Values, name: str, rows: int) -> bool:
    """The first rows, of the corner only its width, follow from the original's through this type."""
    width = (
        values.original.shape[-1]
        if rows > CORNER or name in BY_ROW
        else min(CORNER_WIDTH, values.original.shape[-1])
    )
    if name in LEGACY and width % LEGACY[name]:
        return False
    left, right = values.original[:rows, :width], values.fork[:rows, :width]
    return passed_through(left, right.to(torch_dtype(values.pair.fork.dtype)), name)
