"""Which known models a fork's change has to do with: correlation, against a null of shuffled rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import NormalDist
from typing import TYPE_CHECKING

from detector.edits.context import Context
from detector.edits.mixture import Target, solve
from detector.errors import UnreadableTensorError
from detector.formats.views import base_name
from detector.grid import LEGACY, effective_dtype, half_step, is_float, values_as_stored
from detector.interface import WeightReader
from detector.lineage import Bands
from detector.pairing import EMBEDDING_MODULES, Pair
from detector.roster import neuron_matrices
from detector.sample import load_sample

if TYPE_CHECKING:
    import torch

MAX_PARENTS = 4
FALSE_ALARMS = 1e-6
"""Chance that any unrelated known model is taken for a partner."""
SHUFFLES = 16
FEW_SHUFFLES = 1.5
"""Factor on the threshold: a standard error from 16 shuffles is itself 18 % uncertain, from 7 27 %."""
PROBES = 6
"""Matrices by which partners are chosen; a merge must hold in one of them to be tried on all."""
ELEMENTS = 1 << 18
"""Elements of a matrix that are fitted: a share is known to 1/500 of the noise of one value."""
SHORTLIST = 16
"""Candidates whose changes are kept in memory."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One matrix, or some rows of it."""

    name: str
    layer: int | None
    target: Target
    pair: Pair | None = None

    def moved(self) -> bool:
        """Anything changed."""
        return bool(self.target.moved.any().item())


Opened = Callable[[Cell], "torch.Tensor | None"]
"""The change of one known model in a cell; None where it has no such matrix, or an unlike one."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is to be explained, and by which models it may be."""

    names: tuple[str, ...]
    open: Callable[[str], Opened]
    cells: Callable[[], Iterator[Cell]]
    """Everything that is to be explained, one matrix at a time."""
    probes: tuple[Cell, ...]
    """The part of it by which partners are chosen."""


def select(case: Case) -> dict[str, float]:
    """Partners in the order of what they add, each with its correlation in standard errors of chance.

    Orthogonal matching pursuit: the best candidate is taken, its share subtracted, and the rest judged again.
    """
    threshold = FEW_SHUFFLES * NormalDist().inv_cdf(1 - FALSE_ALARMS / max(2 * len(case.names), 1))
    residuals = [cell.target.delta for cell in case.probes]
    pool: dict[str, list[torch.Tensor]] = {}
    for name in case.names:
        opened = case.open(name)
        deltas = [opened(cell) for cell in case.probes]
        usable = [
            delta if delta is not None else residual * 0
            for delta, residual in zip(deltas, residuals, strict=True)
        ]
        if abs(_sigmas(residuals, usable)) >= threshold:
            pool[name] = usable
            if len(pool) > SHORTLIST:
                del pool[min(pool, key=lambda one: abs(_sigmas(residuals, pool[one])))]
    chosen: dict[str, float] = {}
    while pool.keys() - chosen.keys() and len(chosen) < MAX_PARENTS:
        sigmas = {name: _sigmas(residuals, pool[name]) for name in pool if name not in chosen}
        best = max(sigmas, key=lambda name: abs(sigmas[name]))
        if abs(sigmas[best]) < threshold:
            break
        chosen[best] = sigmas[best]
        residuals = [
            _without(cell.target.delta, [pool[name][index] for name in chosen])
            for index, cell in enumerate(case.probes)
        ]
    return chosen


def pooled_shares(case: Case, parents: Mapping[str, Opened]) -> list[float]:
    """Least-squares shares of the parents over all probes together."""
    import torch

    targets, columns = [], list[list[torch.Tensor]]()
    for cell in case.probes:
        deltas = [opened(cell) for opened in parents.values()]
        known = [delta.flatten() for delta in deltas if delta is not None]
        if len(known) == len(deltas):
            targets.append(cell.target.delta.flatten())
            columns.append(known)
    if not targets:
        return [0.0] * len(parents)
    joined = [torch.cat([column[index] for column in columns]) for index in range(len(parents))]
    shares: list[float] = solve(torch.cat(targets), joined).tolist()
    return shares


def _sigmas(residuals: list[torch.Tensor], deltas: list[torch.Tensor]) -> float:
    """Inner product over what the candidate gives with its rows turned round by some places.

    Rows of a feed-forward matrix are exchangeable between models that share nothing; what all rows have in
    common, such as outlier columns, is in the null as well. In a head it is most of the change: every
    matrix counts by what it stands out from its own null, or one head would drown all other matrices.
    """
    import torch

    height = min((len(delta) for delta in deltas), default=0)
    count = min(SHUFFLES, height - 1)
    if count < 1:
        return 0.0
    total = torch.zeros(count + 1, dtype=torch.float64)
    for residual, delta in zip(residuals, deltas, strict=True):
        step = max(len(delta) // (count + 1), 1)
        own = residual - residual.mean(0)
        products = torch.tensor(
            [(own * delta.roll(turn * step, 0)).sum().item() for turn in range(count + 1)],
            dtype=torch.float64,
        )
        total += products / products[1:].square().mean().sqrt().clamp_min(1e-300)
    error = total[1:].square().mean().sqrt().item()
    return total[0].item() / error if error > 0 else 0.0


def _without(delta: torch.Tensor, parents: list[torch.Tensor]) -> torch.Tensor:
    rest = delta
    for coefficient, parent in zip(solve(delta, parents).tolist(), parents, strict=True):
        rest = rest - coefficient * parent
    return rest


# --- bands ------------------------------------------------------------------------------------------------


def bands_case(context: Context) -> Case:
    """The fork's sampled neurons, and the known models'."""
    cells = tuple(_band_cells(context))
    original = context.relatives.bands[0] if context.relatives.bands else Bands({}, None)

    def opened(name: str) -> Opened:
        return partial(_band_delta, original, context.relatives.known[name], context.relatives.layers)

    return Case(tuple(context.relatives.known), opened, lambda: iter(cells), cells)


def _band_cells(context: Context) -> Iterator[Cell]:
    import torch

    if context.relatives.bands is None:
        return
    original, fork = context.relatives.bands
    types = {layer: info.dtype for layer, info in neuron_matrices(context.fork).get(fork.kind, {}).items()}
    ours = neuron_matrices(context.original).get(original.kind, {})
    dtype = next((info.dtype for info in ours.values()), "BF16")
    height = _height(original, context.relatives.known)
    for layer, source in sorted(context.relatives.layers.items()):
        if layer in fork.layers and source in original.layers and layer in types:
            base, values = (torch.from_numpy(band) for band in (original.layers[source], fork.layers[layer]))
            rows = min(len(base), len(values), height)
            if base.shape[1:] == values.shape[1:] and rows > 1:
                target = _target(base[:rows], values[:rows] - base[:rows], (dtype, types[layer]))
                if target is not None:
                    yield Cell(f"{layer}", layer, target)


def _height(original: Bands, known: Mapping[str, Bands]) -> int:
    """Rows that the first known model of this shape has; all of one shape have as many."""
    for bands in known.values():
        for layer, band in bands.layers.items():
            if layer in original.layers and band.shape[1:] == original.layers[layer].shape[1:]:
                return len(band)
    return 0


def _band_delta(original: Bands, known: Bands, layers: Mapping[int, int], cell: Cell) -> torch.Tensor | None:
    import torch

    source = layers[cell.layer] if cell.layer is not None else -1
    band, base = known.layers.get(source), original.layers[source]
    if band is None or band.shape[1:] != base.shape[1:]:
        return None
    rows = len(cell.target.delta)
    if len(band) < rows:
        return None
    return _if_alike(torch.from_numpy(band[:rows] - base[:rows]), torch.from_numpy(base[:rows]))


def _if_alike(delta: torch.Tensor, base: torch.Tensor) -> torch.Tensor | None:
    """None for a model that does not derive from the original, or whose rows are others."""
    return delta if 0 < delta.norm().item() < base.norm().item() else delta * 0


def _target(base: torch.Tensor, delta: torch.Tensor, dtypes: tuple[str, str]) -> Target | None:
    """Whole rows of a change, given the types of both sides; None where the fork's has no known step."""
    before, after = dtypes
    values = base + delta
    effective = effective_dtype(values, "F32") if after in {"F32", "F16"} else after
    half = half_step(values, effective if effective == "BF16" else after)
    if half is None:
        return None
    if is_float(after) or after not in LEGACY or values.shape[-1] % LEGACY[after]:
        return Target(delta, base, half)
    stores = (partial(_stored, through=before, dtype=after), partial(values_as_stored, dtype=after))
    return Target(delta, base, half, stores)


def _stored(values: torch.Tensor, through: str, dtype: str) -> torch.Tensor:
    """Quantised from a checkpoint in the original's type, which most merges are converted from."""
    return values_as_stored(values_as_stored(values, through), dtype)


# --- full weights -----------------------------------------------------------------------------------------


def weights_case(context: Context) -> Case:
    """Every changed matrix, and the known models whose weights can be read."""
    pairs = [c.pair for c in sorted(context.changed_matrices(), key=lambda c: c.relative_norm)]
    count = min(PROBES, len(pairs))
    chosen = [pairs[index * (len(pairs) - 1) // max(count - 1, 1)] for index in range(count)]

    def cells() -> Iterator[Cell]:
        return (cell for pair in pairs if (cell := _weights_cell(context, pair)) is not None)

    def opened(name: str) -> Opened:
        return partial(_weights_delta, context, context.relatives.parents[name])

    probes = tuple(cell for pair in chosen if (cell := _weights_cell(context, pair)) is not None)
    return Case(tuple(context.relatives.parents), opened, cells, probes)


def _weights_cell(context: Context, pair: Pair) -> Cell | None:
    import torch

    sample = context.sample(pair, ELEMENTS)
    weights, delta = torch.from_numpy(sample.weights), torch.from_numpy(sample.delta)
    whole = sample.delta.shape[1] == pair.fork.shape[1] and pair.module not in EMBEDDING_MODULES
    target = None
    if whole and not is_float(pair.fork.dtype):
        target = _target(weights, delta, (pair.original.dtype, pair.fork.dtype))
    elif sample.half_fork is not None:
        target = Target(delta, weights, torch.from_numpy(sample.half_fork))
    return None if target is None else Cell(pair.name, pair.layer, target, pair)


def _weights_delta(context: Context, parent: WeightReader, cell: Cell) -> torch.Tensor | None:
    """The same part of the parent's matrix, minus the original's."""
    import torch

    if cell.pair is None:
        return None
    stored = base_name(cell.pair.original.name)
    ours, theirs = context.original.tensors().get(stored), parent.tensors().get(stored)
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return None
    info = replace(cell.pair.original, dtype=theirs.dtype)
    try:
        sample = load_sample(replace(cell.pair, fork=info), context.original, parent, ELEMENTS)
    except UnreadableTensorError:
        return None
    return _if_alike(torch.from_numpy(sample.delta), torch.from_numpy(sample.weights))
