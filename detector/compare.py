"""Comparison of one tensor with its counterpart, block by block."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from detector.errors import UnreadableTensorError
from detector.floats import read_floats
from detector.formats.extent import count_read, extent_of
from detector.grid import LEGACY, counted_from_one, is_float, passed_through
from detector.interface import TensorDiff, TensorStatus, WeightReader
from detector.journal import Journal
from detector.pairing import Pair, blocks
from detector.passing import may_have_passed
from detector.stream import Outcome, Streams
from detector.tiles import Sums

if TYPE_CHECKING:
    import torch

VIA = ("F16", "BF16", "F8_E4M3", *LEGACY)
"""Narrower types that a fork may have passed through before it was stored as it is now."""
PREFILTER_ROWS = 8
EXACT = 0.9999
"""Share of equal values from which a quantised tensor counts as re-created; ties may break otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One tensor's `TensorDiff` before its spectrum, and what the edits need besides."""

    pair: Pair
    status: TensorStatus
    relative_norm: float
    fraction_changed: float
    scheme: str
    """Type that reproduces the fork's values from the original's; empty if none does."""
    agreement: float
    """Share of values equal to the original's after a round trip through the fork's own type."""
    within_a_step: bool
    """No value moved by more than one unit in the last place."""
    moved_rows: float
    """Share of rows with a moved value."""
    moved_columns: float
    non_finite: int
    """Values of the fork that are not numbers, where its bytes are not the original's."""
    cosine: float | None = None
    max_change: float = 0.0
    floor_ratio: float | None = None
    exponents: tuple[int, ...] = ()

    def as_diff(
        self, rank: int | None = None, energy: tuple[float, ...] = (), energy_error: float = 0.0
    ) -> TensorDiff:
        """The public form."""
        return TensorDiff(
            name=self.pair.name,
            status=self.status,
            layer=self.pair.layer,
            module=self.pair.module,
            relative_norm=self.relative_norm,
            fraction_changed=self.fraction_changed,
            rank=rank,
            energy=energy,
            energy_error=energy_error,
            cosine=self.cosine,
            max_change=self.max_change,
            floor_ratio=self.floor_ratio,
            exponents=self.exponents,
        )

    def as_record(self) -> dict[str, object]:
        """All but the pair, for a journal."""
        return {name: getattr(self, name) for name in _RECORDED}


_RECORDED = tuple(field.name for field in fields(Comparison) if field.name != "pair")


def recalled(pair: Pair, journal: Journal) -> Comparison | None:
    """The comparison of a pair as a journal has it; None if it has none, or one of another form."""
    record = journal.recall(pair.key)
    if record is None or set(record) != set(_RECORDED):
        return None
    numbers = (record["relative_norm"], record["fraction_changed"], record["agreement"], record["max_change"])
    if not isinstance(record["scheme"], str) or not all(
        isinstance(number, int | float) for number in numbers
    ):
        return None
    try:
        values = {**record, "status": TensorStatus(record["status"]), "exponents": tuple(record["exponents"])}
        return Comparison(pair=pair, **values)
    except (TypeError, ValueError):
        return None


def compare_pair(
    pair: Pair,
    original: WeightReader,
    fork: WeightReader,
    via: tuple[str, ...] = VIA,
    streams: Streams | None = None,
) -> Comparison:
    """Compare two tensors of the same shape.

    Args:
        pair: the two tensors.
        original: reader of the original.
        fork: reader of the fork.
        via: intermediate types to try.
        streams: threads and memory of the whole diff; those of this call alone by default.
    """
    if streams is None:
        with Streams() as own:
            return compare_pair(pair, original, fork, via, own)
    try:
        outcome = _by_bytes(pair, original, fork, streams) or _by_blocks(pair, original, fork, streams)
        scheme = _scheme(pair, outcome)
        if not scheme and via and pair.is_matrix and is_float(pair.fork.dtype):
            scheme = _passed_via(pair, original, fork, via, outcome.sums.first_moved or 0)
    except UnreadableTensorError:
        return _unreadable(pair)
    found = _conclude(pair, outcome, scheme)
    if found.status is TensorStatus.CHANGED and len(pair.fork.shape) == 1 and not found.within_a_step:
        left, right = original.values(pair.original.name).float(), fork.values(pair.fork.name).float()
        return replace(found, within_a_step=counted_from_one(left, right, pair.fork.dtype))
    return found


def _by_bytes(pair: Pair, original: WeightReader, fork: WeightReader, streams: Streams) -> Outcome | None:
    """Compare stored bytes, and values as they lie there; None where values have to be decoded first."""
    left, right = extent_of(original, pair.original.name), extent_of(fork, pair.fork.name)
    if left is None or right is None:
        return None
    outcome = None
    try:
        if left.plain and right.plain:
            outcome = streams.measure(left, right, (pair.original.dtype, pair.fork.dtype), pair.fork.shape)
        elif left.layout == right.layout and streams.equal(left, right):
            outcome = Outcome(Sums(), identical=True, moved_columns=0.0)
    finally:
        for reader, nbytes in zip((original, fork), streams.taken(), strict=True):
            count_read(reader, nbytes)
    return outcome


def _by_blocks(pair: Pair, original: WeightReader, fork: WeightReader, streams: Streams) -> Outcome:
    """Compare decoded values, some rows at a time."""
    return streams.measure_blocks(blocks(pair, original, fork), (pair.original.dtype, pair.fork.dtype))


def _scheme(pair: Pair, outcome: Outcome) -> str:
    """The fork's type if a round trip of the original through it gives the fork's values; else empty."""
    sums = outcome.sums
    agreement = 1 - sums.moved / max(sums.elements, 1)
    exact = agreement >= (1.0 if is_float(pair.fork.dtype) else EXACT)
    return pair.fork.dtype if outcome.identical or sums.unequal == 0 or exact else ""


def _conclude(pair: Pair, outcome: Outcome, scheme: str) -> Comparison:
    sums = outcome.sums
    status = TensorStatus.CAST if scheme else TensorStatus.CHANGED
    if (outcome.identical or sums.unequal == 0) and pair.original.dtype == pair.fork.dtype:
        status = TensorStatus.IDENTICAL
    changed = status is TensorStatus.CHANGED
    share = sums.moved / max(sums.elements, 1)
    return Comparison(
        pair=pair,
        status=status,
        relative_norm=math.sqrt(sums.delta_square / max(sums.square, 1e-300)) if changed else 0.0,
        fraction_changed=share if changed else 0.0,
        scheme=scheme,
        agreement=1 - share,
        within_a_step=sums.within_a_step,
        moved_rows=sums.moved_rows / max(sums.rows, 1),
        moved_columns=outcome.moved_columns,
        non_finite=sums.non_finite,
        cosine=sums.cosine() if changed else None,
        max_change=sums.largest if changed else 0.0,
        floor_ratio=sums.delta_square / sums.floor if changed and sums.floor else None,
        exponents=sums.exponents() if changed else (),
    )


def _unreadable(pair: Pair) -> Comparison:
    return Comparison(
        pair=pair,
        status=TensorStatus.UNREADABLE,
        relative_norm=0.0,
        fraction_changed=0.0,
        scheme="",
        agreement=0.0,
        within_a_step=False,
        moved_rows=0.0,
        moved_columns=0.0,
        non_finite=0,
    )


def _passed_via(
    pair: Pair, original: WeightReader, fork: WeightReader, via: tuple[str, ...], moved_row: int
) -> str:
    """First type of `via` that the original's values passed through to become the fork's; else empty.

    Rows from `moved_row` on are tried first: rows that did not change pass through nearly any type.
    """
    before = read_floats(original, pair.original, moved_row, PREFILTER_ROWS)
    after = read_floats(fork, pair.fork, moved_row, PREFILTER_ROWS)
    others = (name for name in via if name != pair.fork.dtype)
    plausible = tuple(name for name in others if may_have_passed(before, after, pair.fork.dtype, name))
    for left, right in blocks(pair, original, fork) if plausible else ():
        values = left.float()
        plausible = tuple(name for name in plausible if _passed_through(values, right, name))
        if not plausible:
            break
    return plausible[0] if plausible else ""


def _passed_through(values: torch.Tensor, fork: torch.Tensor, via: str) -> bool:
    if via in LEGACY and (values.dim() != 2 or values.shape[-1] % LEGACY[via]):
        return False
    return passed_through(values, fork, via)
