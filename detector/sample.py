"""The part of a matrix pair that its spectrum is judged on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.floats import Floats, effective_dtype_of, half_step_of, half_ulp_of, read_floats
from detector.formats.extent import extent_of
from detector.formats.views import view_cost
from detector.grid import is_float
from detector.interface import TensorInfo, WeightReader
from detector.pairing import EMBEDDING_MODULES, Pair

READ_ELEMENTS = 1 << 18
"""Elements decoded at a time, where all of a row is decoded to keep some of it."""
MAPPED_ELEMENTS = 1 << 24
"""The same where nothing is decoded that is not kept."""
ELEMENTS = 1 << 20
"""Elements a matrix is cut down to: the rank and the output direction of a change survive in a part of it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A matrix pair. For residual writers the rows are residual-stream dimensions, all of them."""

    weights: Floats
    """(m, n) of the original."""
    delta: Floats
    """fork − original."""
    half_fork: Floats | None
    """Half a rounding step of the fork's values; None when its encoding has no known step."""
    half_original: Floats


def load_sample(pair: Pair, original: WeightReader, fork: WeightReader, elements: int = ELEMENTS) -> Sample:
    """At most `elements` elements of a matrix pair, evenly spread.

    The embedding is cut by tokens and turned, so that residual dimensions come first; the other residual
    writers are cut by columns; all other matrices by rows.
    """
    ours, theirs = _cuts(pair, original, fork, elements)
    half_fork = _half(theirs, pair.fork.dtype)
    half_original = _half(ours, pair.original.dtype)
    if half_original is None:
        half_original = half_ulp_of(ours.values, "BF16")
    delta = np.subtract(theirs.values, ours.values, out=theirs.values)
    return Sample(
        weights=_turned(ours.values, pair),
        delta=_turned(delta, pair),
        half_fork=None if half_fork is None else _turned(half_fork, pair),
        half_original=_turned(half_original, pair),
    )


def load_delta(pair: Pair, original: WeightReader, fork: WeightReader, elements: int) -> Floats:
    """`load_sample(...).delta`."""
    ours, theirs = _cuts(pair, original, fork, elements)
    return _turned(np.subtract(theirs.values, ours.values, out=theirs.values), pair)


def is_scattered(pair: Pair, elements: int) -> bool:
    """The sample is a few values of every row."""
    rows, columns = pair.fork.shape
    return pair.writes_residual and pair.module not in EMBEDDING_MODULES and rows * columns > elements


def _turned(part: Floats, pair: Pair) -> Floats:
    return np.ascontiguousarray(part.T) if pair.module in EMBEDDING_MODULES else part


def _cuts(pair: Pair, original: WeightReader, fork: WeightReader, elements: int) -> tuple[_Cut, _Cut]:
    rows, columns = pair.fork.shape
    first, last, step = 0, rows, 1
    if pair.writes_residual and pair.module not in EMBEDDING_MODULES:
        step = -(-rows * columns // elements)
    else:
        count = min(rows, max(1, elements // columns))
        first = (rows - count) // 2
        last = first + count
    ours = _cut(original, pair.original, first, last, step)
    return ours, _cut(fork, pair.fork, first, last, step)


@dataclass(frozen=True, slots=True)
class _Cut:
    """Every so many columns of some rows."""

    values: Floats
    half: Floats | None
    """Half a step of values whose step follows from their whole row; None for plain and unknown types."""


def _cut(reader: WeightReader, info: TensorInfo, first: int, last: int, step: int) -> _Cut:
    """Read rows `first` to `last`, some at a time, and keep every `step`-th column.

    A down projection of a large model has a gigabyte of values, of which a few megabytes are kept.
    """
    extent = extent_of(reader, info.name)
    most = MAPPED_ELEMENTS if extent is not None and extent.plain else READ_ELEMENTS
    at_once = max(1, most // info.shape[1]) if view_cost(reader, info, 1) < info.nbytes else last
    values, halves = [], []
    for row in range(first, last, at_once):
        count = min(at_once, last - row)
        if is_float(info.dtype):
            values.append(read_floats(reader, info, row, count, step))
            continue
        whole = read_floats(reader, info, row, count)
        values.append(np.ascontiguousarray(whole[:, ::step]))
        half = half_step_of(whole, info.dtype)
        if half is not None:
            halves.append(half[:, ::step])
    joined = np.concatenate(values) if len(values) > 1 else values[0]
    return _Cut(joined, np.concatenate(halves) if halves else None)


def _half(cut: _Cut, dtype: str) -> Floats | None:
    """Half a step of each value; a wide container of narrow numbers has the step of the numbers."""
    if not is_float(dtype):
        return cut.half
    half, effective = half_ulp_of(cut.values, dtype), effective_dtype_of(cut.values, dtype)
    if effective == dtype:
        return half
    return np.maximum(half_ulp_of(cut.values, effective), half)  # its subnormals
