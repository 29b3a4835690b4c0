"""Where two checkpoints differ, as a grid of layers and modules: what the terminal and the SVG draw.

A cell pools every tensor of its layer and module: a projection with its bias, all experts of a layer. It
shows the largest relative change among them; where none changed, the gravest of what else there is to say.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from reports.charts import BREAKS
from reports.diff import DiffDocument, SampledTensorView
from reports.numbers import significant

LEVELS = len(BREAKS)
"""Shades of a change: 1 for the least, up to 9."""
MOST_ROWS = 28
MOST_OUTSIDE = 16


class State(Enum):
    """What a cell without a measured change says, and the character for it. The gravest first."""

    UNREAD = ("?", "not measured")
    RESHAPED = ("/", "another shape")
    ADDED = ("+", "only in the fork")
    MISSING = ("-", "only in the original")
    UNSEEN = (":", "no change in the sampled rows")
    CAST = ("~", "equal after rounding")
    IDENTICAL = ("=", "identical")

    def __init__(self, mark: str, words: str) -> None:
        self.mark = mark
        self.words = words


_GRAVITY = {state: rank for rank, state in enumerate(State)}
_STATUS = {
    "identical": State.IDENTICAL,
    "cast": State.CAST,
    "reshaped": State.RESHAPED,
    "added": State.ADDED,
    "missing": State.MISSING,
    "unreadable": State.UNREAD,
}
_ORDER = (
    "q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn", "q_norm", "k_norm", "o_proj",
    "out_proj", "dense", "gate", "router", "gate_proj", "up_proj", "gate_up_proj", "w1", "w3",
    "dense_h_to_4h", "c_fc", "down_proj", "w2", "dense_4h_to_h", "c_proj",
)  # fmt: skip
"""Rows from the top, in the order in which a layer computes; others follow by name, norms last."""
_RANK = {name: rank for rank, name in enumerate(_ORDER)}
_POOLED = re.compile(r"\.(experts|shared_experts?)\.")
_INDEX = re.compile(r"\.\d+\.")
_VIEW = re.compile(r"@[a-zA-Z]+[:\d]*$")


@dataclass(frozen=True, slots=True)
class Spot:
    """One cell."""

    value: float | None
    """Largest relative change; None where nothing changed."""
    state: State | None
    """Where nothing changed, or besides it; None: every tensor here changed."""
    changed: int
    tensors: int

    @property
    def level(self) -> int:
        """Shade of the change, 1 to 9; 0 where nothing changed."""
        return 0 if self.value is None else level_of(self.value)

    def __add__(self, other: Spot) -> Spot:
        values = [value for value in (self.value, other.value) if value is not None]
        states = [state for state in (self.state, other.state) if state is not None]
        return Spot(
            max(values, default=None),
            min(states, key=_GRAVITY.__getitem__, default=None),
            self.changed + other.changed,
            self.tensors + other.tensors,
        )

    def words(self) -> str:
        """For a tooltip."""
        if self.value is None:
            return self.state.words if self.state else "no tensor"
        said = f"changed by {significant(self.value)}"
        return f"{said} at most, {self.changed} of {self.tensors} tensors" if self.tensors > 1 else said


@dataclass(frozen=True, slots=True)
class Grid:
    """Modules by layers, and what lies outside the layers."""

    layers: tuple[int, ...]
    modules: tuple[str, ...]
    spots: Mapping[tuple[int, str], Spot]
    outside: tuple[tuple[str, Spot], ...]
    """Embeddings, head, final norm, other towers."""
    rest: int
    """Modules that are not shown, as there are too many."""

    def states(self) -> tuple[State, ...]:
        """Those that occur, the gravest first."""
        found = {spot.state for spot in self.all_spots() if spot.value is None}
        return tuple(state for state in State if state in found)

    def all_spots(self) -> tuple[Spot, ...]:
        """Every cell."""
        return (*self.spots.values(), *(spot for _, spot in self.outside))


@dataclass(frozen=True, slots=True)
class Column:
    """One or several adjoining layers."""

    first: int
    last: int
    spots: tuple[Spot | None, ...]
    """By module; None where there is no such tensor."""


def level_of(value: float) -> int:
    """Shade of a relative change, 1 to 9, as in the site's heatmaps; the smallest change is still one."""
    return max(1, bisect_left(BREAKS, value)) if math.isfinite(value) else LEVELS


def bounds() -> tuple[str, ...]:
    """What the shades mean, the least first."""
    return (*(f"≤ {significant(bound)}" for bound in BREAKS[1:]), f"> {significant(BREAKS[-1])}")


def grid(document: DiffDocument) -> Grid:
    """Pool the tensors of a document. One pass; tens of thousands of tensors are no matter."""
    inside: dict[tuple[int, str], Spot] = {}
    outside: dict[str, Spot] = {}
    for name, layer, module, spot in _spots(document):
        if layer is None:
            label = _outside_label(name, module)
            outside[label] = outside[label] + spot if label in outside else spot
        else:
            key = (layer, _row_label(name, module))
            inside[key] = inside[key] + spot if key in inside else spot
    rows = sorted({module for _, module in inside}, key=_row_order)
    shown = rows[:MOST_ROWS]
    kept = set(shown)
    return Grid(
        layers=tuple(sorted({layer for layer, _ in inside})),
        modules=tuple(shown),
        spots={key: spot for key, spot in inside.items() if key[1] in kept},
        outside=tuple(
            sorted(outside.items(), key=lambda item: (-(item[1].value or 0), item[0]))[:MOST_OUTSIDE]
        ),
        rest=len(rows) - len(shown) + max(0, len(outside) - MOST_OUTSIDE),
    )


def columns(shown: Grid, most: int) -> tuple[Column, ...]:
    """The layers in at most so many columns, each of the same number of adjoining layers."""
    width = max(1, -(-len(shown.layers) // max(most, 1)))
    chunks = [shown.layers[start : start + width] for start in range(0, len(shown.layers), width)]
    return tuple(
        Column(
            chunk[0],
            chunk[-1],
            tuple(
                _pooled(shown.spots[layer, module] for layer in chunk if (layer, module) in shown.spots)
                for module in shown.modules
            ),
        )
        for chunk in chunks
    )


def _pooled(spots: Iterable[Spot]) -> Spot | None:
    total: Spot | None = None
    for spot in spots:
        total = spot if total is None else total + spot
    return total


def _spots(document: DiffDocument) -> Iterable[tuple[str, int | None, str, Spot]]:
    for tensor in document.tensors:
        if isinstance(tensor, SampledTensorView):
            state = None if tensor.changed else State.UNSEEN if tensor.rows else State.IDENTICAL
        else:
            state = _STATUS.get(tensor.status)
        value = tensor.relative_norm if state is None else None
        yield tensor.name, tensor.layer, tensor.module, Spot(value, state, int(state is None), 1)
    for other in document.unsampled:
        state = _STATUS.get(other.status, State.UNREAD)
        yield other.name, other.layer, other.module, Spot(None, state, 0, 1)


def _row_label(name: str, module: str) -> str:
    """Experts are a row of their own beside a shared feed-forward of the same module name."""
    match = _POOLED.search(name)
    base = _VIEW.sub("", module)
    return base if match is None else f"{match[1]}.{base}"


def _outside_label(name: str, module: str) -> str:
    """Other towers by their first name; embeddings, head and final norm by their own."""
    parts = [part for part in name.split(".") if part not in ("model", "transformer", "gpt_neox")]
    deep = len(parts) > 2 or _INDEX.search(name) is not None
    return parts[0] if deep and parts else _VIEW.sub("", module)


def _row_order(label: str) -> tuple[int, int, str]:
    stem = label.rpartition(".")[2]
    norm = "norm" in stem or stem.startswith("ln_")
    return (1 if norm and stem not in _RANK else 0, _RANK.get(stem, len(_RANK)), label)


def in_words(shown: Grid) -> str:
    """What the picture shows, for those who do not see it."""
    spots = shown.all_spots()
    changed = sum(spot.changed for spot in spots)
    total = sum(spot.tensors for spot in spots)
    if not total:
        return "No tensor is shown."
    if not changed:
        return f"None of the {total:,} tensors shown was seen to change."
    inside = [(spot.value, f"layer {key[0]}, {key[1]}") for key, spot in shown.spots.items()]
    places = [*inside, *((spot.value, label) for label, spot in shown.outside)]
    value, place = max((value, place) for value, place in places if value is not None)
    rows = [module for module in shown.modules if _touched(shown, module)]
    touched = _listed([*rows, *(label for label, spot in shown.outside if spot.changed)])
    return (
        f"{changed:,} of the {total:,} tensors shown changed ({touched}); "
        f"the largest relative change is {significant(value)}, in {place}."
    )


def _touched(shown: Grid, module: str) -> bool:
    return any(spot.changed for (_, name), spot in shown.spots.items() if name == module)


def _listed(names: Sequence[str], most: int = 6) -> str:
    text = ", ".join(names[:most])
    return f"{text} and {len(names) - most} more" if len(names) > most else text
