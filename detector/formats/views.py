"""Parts of a stored tensor under a name of their own: what one checkpoint fuses, another stores apart.

A view is named `source@operation`, and may be the source of another:

    rows:a:b       rows a to b
    every:n:k      rows k, k+n, k+2n…
    heads:h:n:k    of rows laid out as (h, n, d), the k-th of n in each head: GPT-NeoX's query_key_value
    groups:g:n:a:b of rows laid out as (g, n, d), a to b of n in each group: the same with grouped queries
    index:e        slice e of a stored stack, such as one expert of many
    T              transposed

Every reader understands these names; a tensor that is stored under such a name comes before a view.
"""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from detector.interface import TensorInfo

if TYPE_CHECKING:
    import torch

_VIEW = re.compile(
    r"(?P<inner>.+)@(?P<kind>rows:\d{1,12}:\d{1,12}|every:\d{1,3}:\d{1,3}|heads:\d{1,6}:\d{1,3}:\d{1,3}|groups:\d{1,6}:\d{1,4}:\d{1,4}:\d{1,4}|index:\d{1,6}|T)"
)
_PLAIN = frozenset({"F64", "F32", "F16", "BF16"})

Operation = tuple[str, tuple[int, ...]]


class _Source(Protocol):
    """The part of a reader that views need."""

    def tensors(self) -> Mapping[str, TensorInfo]: ...

    def band(self, name: str, first_row: int, rows: int) -> torch.Tensor: ...

    def slab(self, name: str, index: int, first_row: int, rows: int) -> torch.Tensor:
        """`values(name)[index, first_row : first_row + rows]`."""
        ...


class _Costed(Protocol):
    """The part of a reader that knows what a read costs."""

    def tensors(self) -> Mapping[str, TensorInfo]: ...

    def band_bytes(self, name: str, rows: int) -> int: ...


def view(info: TensorInfo, *operations: str) -> TensorInfo:
    """The tensor that these operations make of `info`, such as `rows:0:64`.

    Raises:
        ValueError: they do not fit its shape.
    """
    name, shape = info.name, info.shape
    for operation in operations:
        name = f"{name}@{operation}"
        shape = shape_after(shape, _operation(operation))
    # Groups of a quantisation run along stored rows: of a transposed tensor the step is not known.
    dtype = f"{info.dtype}-T" if "T" in operations and info.dtype not in _PLAIN else info.dtype
    nbytes = info.nbytes * math.prod(shape) // max(math.prod(info.shape), 1)
    return TensorInfo(name, dtype, shape, nbytes)


def base_name(name: str) -> str:
    """The stored tensor that a view is made of; the name itself if it is none."""
    while match := _VIEW.fullmatch(name):
        name = match["inner"]
    return name


def view_cost(reader: _Costed, info: TensorInfo, rows: int) -> int:
    """Bytes of so many rows of a tensor or of a view of one."""
    stored = reader.tensors()[base_name(info.name)]
    if "@T" in info.name or reader.band_bytes(stored.name, 1) >= stored.nbytes:
        return stored.nbytes
    if info.name == stored.name:
        return reader.band_bytes(info.name, rows)
    height = info.shape[0] if info.shape else 1
    return -(-info.nbytes * min(rows, height) // max(height, 1))


def operations(name: str) -> tuple[str, tuple[Operation, ...]]:
    """The tensor that a view is made of, and what is done to it, first things first; of any name."""
    steps = []
    while match := _VIEW.fullmatch(name):
        name = match["inner"]
        steps.append(_operation(match["kind"]))
    return name, tuple(reversed(steps))


def taken(values: torch.Tensor, operation: Operation) -> torch.Tensor:
    """What `rows`, `every` or `heads` takes of a tensor at hand.

    Raises:
        ValueError: another operation, or one that does not fit.
    """
    kind, numbers = operation
    if kind not in {"rows", "every", "heads", "groups"}:
        raise ValueError(kind)
    shape = shape_after(tuple(values.shape), operation)
    if kind == "rows":
        return values[numbers[0] : numbers[1]]
    if kind == "every":
        return values[numbers[1] :: numbers[0]]
    heads, parts, start, end = _slots(numbers)
    size = values.shape[0] // (heads * parts)
    return values.reshape(heads, parts, size, *values.shape[1:])[:, start:end].reshape(shape)


class Views:
    """Reads views of one reader's tensors, and keeps the last matrix that had to be transposed."""

    def __init__(self, source: _Source) -> None:
        # The reader has its views: held for good, the two would keep each other, and the files open, until a
        # collection of cycles.
        self._source: _Source = weakref.proxy(source)
        self._kept: tuple[str, torch.Tensor] | None = None

    def band(self, name: str, first_row: int, rows: int) -> torch.Tensor:
        """Rows of a view.

        Raises:
            KeyError: the name is no view of a tensor that is there.
        """
        shape = self.shape(name)
        first = min(max(first_row, 0), shape[0])
        return self._rows(name, first, min(max(first_row + rows, first), shape[0]))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor or of a view.

        Raises:
            KeyError: neither.
        """
        if (info := self._source.tensors().get(name)) is not None:
            return info.shape
        match = _VIEW.fullmatch(name)
        if match is None:
            raise KeyError(name)
        try:
            return shape_after(self.shape(match["inner"]), _operation(match["kind"]))
        except ValueError as error:
            raise KeyError(name) from error

    def _rows(self, name: str, first: int, last: int) -> torch.Tensor:
        match = None if name in self._source.tensors() else _VIEW.fullmatch(name)
        if match is None:
            return self._source.band(name, first, last - first)
        inner, (kind, numbers) = match["inner"], _operation(match["kind"])
        if kind == "rows":
            return self._rows(inner, first + numbers[0], last + numbers[0])
        if kind == "index":
            return self._source.slab(inner, numbers[0], first, last - first)
        if kind == "every":
            step, offset = numbers
            end = offset + step * last if last == first else offset + step * (last - 1) + 1
            return self._rows(inner, offset + step * first, end)[::step]
        if kind in {"heads", "groups"}:
            return self._heads(inner, _slots(numbers), first, last)
        return self._transposed(inner)[first:last]

    def _heads(self, inner: str, numbers: tuple[int, ...], first: int, last: int) -> torch.Tensor:
        heads, parts, start, end = numbers
        height, *rest = self.shape(inner)
        size = height // (heads * parts)
        own_size = (end - start) * size
        low, high = first // own_size, -(-last // own_size)
        rows = self._rows(inner, low * parts * size, high * parts * size)
        own = rows.reshape(high - low, parts, size, *rest)[:, start:end].reshape(-1, *rest)
        return own[first - low * own_size : last - low * own_size]

    def _transposed(self, inner: str) -> torch.Tensor:
        if self._kept is None or self._kept[0] != inner:
            self._kept = None  # the old one is freed before the new one is read
            self._kept = (inner, self._rows(inner, 0, self.shape(inner)[0]).T.contiguous())
        return self._kept[1]


def _slots(numbers: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Heads, parts, first and last part of `heads` or `groups`."""
    heads, parts, start, *end = numbers
    return heads, parts, start, end[0] if end else start + 1


def _operation(text: str) -> Operation:
    kind, *numbers = text.split(":")
    return kind, tuple(int(number) for number in numbers)


def shape_after(shape: tuple[int, ...], operation: Operation) -> tuple[int, ...]:
    """Shape of what an operation leaves.

    Raises:
        ValueError: it does not fit.
    """
    kind, numbers = operation
    height, rest = (shape[0], shape[1:]) if shape else (0, ())
    if kind == "rows" and numbers[0] < numbers[1] <= height:
        return (numbers[1] - numbers[0], *rest)
    if kind == "index" and len(shape) == 3 and numbers[0] < height:
        return rest
    if kind == "every" and numbers[0] > numbers[1] and height and height % numbers[0] == 0:
        return (height // numbers[0], *rest)
    if kind in {"heads", "groups"}:
        heads, parts, start, end = _slots(numbers)
        if start < end <= parts and heads and height and height % (heads * parts) == 0:
            return (height // parts * (end - start), *rest)
    if kind == "T" and len(shape) == 2:
        return (shape[1], shape[0])
    raise ValueError(f"{kind} does not fit {shape}")
