"""Does an edit act on the directions that carry the original's refusals? What the weights say, as a number.

Given the original's refusal direction r of each layer (`evals.direction`), for every changed matrix that
writes the residual stream: (1) the leading output directions of its change, U, and how much of r they hold,
‖Uᵀr‖²; (2) the share of the change's energy that lies along r; (3) to first order, what the change does to
the writing of r when a refused prompt is read: rᵀΔx, with x the original's own input to the matrix on
refused prompts less that on answered ones.

(1) is pooled over the matrices and judged against the same change and other directions. A random direction
would expect rank/width, but real changes and real activations share a few outlier dimensions, so the null is
taken from the activations themselves: differences of means between random halves of *harmless* prompts.

What this is not: a measurement of behaviour. An edit can remove refusals without touching this direction, and
touch it without removing any. It is never evidence for more than `CONSISTENT`, and no verdict uses it. The
direction is only compared with; nothing here, or elsewhere in forkwatch, applies it to a model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detector.errors import MalformedWeightsError
from detector.formats.names import layer_of, module_of
from detector.formats.peft import PeftReader
from detector.formats.roles import CONV1D
from detector.interface import Certainty, WeightReader
from detector.pairing import EMBEDDING_MODULES, RESIDUAL_WRITERS, Pair, blocks, pair_tensors
from detector.parallel import one_thread_a_product
from detector.sample import load_sample
from detector.singular import leading_vectors

if TYPE_CHECKING:
    import torch

LEADING = 4
"""Output directions of a change that are looked at: as many as a directional edit is named for."""
SPLITS = 9999
"""Random halvings of the harmless prompts; the smallest p-value is 1 / 10 000."""
ALPHA = 1e-3
"""Largest p-value that is called alignment: a watch sees thousands of forks, and training is no random
change. Harmless fine-tunes of the tiny families, 36 of them, have .0017 and more, our safety adapter taken
out .0002 at most; on SmolLM2-135M it is .24 and .0001."""


@dataclass(frozen=True, slots=True)
class Directions:
    """A release's refusal direction and what it is judged against. All tensors float32, on the CPU."""

    direction: torch.Tensor
    """(layers, width), unit rows."""
    harmless: torch.Tensor
    """(prompts, layers, width), centred: activations on harmless prompts."""
    inputs: Mapping[str, torch.Tensor]
    """Residual writer → (inputs): its input on refused prompts less that on answered ones, in the mean."""
    sources: tuple[int, ...]
    """By layer: the layer whose direction stands for it; `best` where it has no stable one of its own."""
    best: int
    """The layer that tells best; it stands for tensors that are in none."""
    written: float
    """What all residual writers of the original write along their layer's direction, on these inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """How a change lies to the refusal direction."""

    alignment: float
    """Root mean square, over the matrices, of the part of the direction that lies in the leading output
    directions of the change; 0 to 1. The larger of two: each layer's own direction, and the best layer's."""
    expected: float
    """Median of the same number for directions that tell harmless prompts apart."""
    extreme: float
    """Its 99.9 % quantile."""
    p_value: float
    """Share of those directions that align as well or better, the direction itself counted in."""
    energy: float
    """Share of the energy of the change that lies along the direction; 1 / width if it ignores it."""
    write_change: float | None
    """Change of what is written along the direction on refused prompts, as a share of what the original
    writes: −1 if nothing is left of it. First order, activations as in the original; None where no input is
    known."""
    matrices: int
    """Changed residual writers that were looked at."""
    layers: tuple[int, int] | None
    """The first and last layer of these; None when none is in a layer."""
    splits: int
    """Directions that the p-value is taken from."""
    certainty: Certainty
    """`CONSISTENT` when the p-value is at most `ALPHA`, else `UNKNOWN`."""


@dataclass(frozen=True, slots=True)
class NoIntent:
    """Nothing was measured, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Change:
    """The change of one residual writer."""

    layer: int | None
    vectors: torch.Tensor
    """(width, k): leading output directions."""
    along: float
    """‖rᵀΔ‖²."""
    energy: float
    """‖Δ‖²."""
    write: float | None
    """rᵀΔx."""


def load_directions(path: Path, *, sources: tuple[int, ...], best: int, written: float) -> Directions:
    """Read the file that `evals.direction` left.

    Raises:
        MalformedWeightsError: it holds something else.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = {name: rows.to(torch.float32) for name, rows in load_file(path).items()}
        direction, harmless = tensors.pop("direction"), tensors.pop("harmless")
    except (KeyError, OSError, SafetensorError) as error:
        raise MalformedWeightsError("the refusal direction cannot be read") from error
    finite = all(bool(torch.isfinite(rows).all()) for rows in (direction, harmless, *tensors.values()))
    shaped = direction.dim() == 2 and harmless.dim() == 3 and harmless.shape[1:] == direction.shape
    if not shaped or not finite or len(sources) != len(direction) or max(best, *sources) >= len(direction):
        raise MalformedWeightsError("the refusal direction is not one")
    inputs = {name.removeprefix("input:"): rows for name, rows in tensors.items()}
    return Directions(direction, harmless, inputs, sources, best, written)


@one_thread_a_product()
def measure_intent(
    original: WeightReader, fork: WeightReader, directions: Directions, changed: frozenset[str]
) -> Intent | NoIntent:
    """Compare the change of a fork's residual writers with the refusal direction.

    Args:
        original: the release.
        fork: the fork, of the release's architecture; a `PeftReader` for an adapter shipped alone.
        directions: of the release.
        changed: names of the fork's tensors that changed; an adapter changes what it says it does.

    Raises:
        MalformedWeightsError: a file turns out malformed while it is read.
        UnreadableTensorError: an encoding that is not decoded.
        CrawlerError: bytes could not be had.
    """
    if isinstance(fork, PeftReader):
        changes = list(_adapter_changes(original, fork, directions))
    else:
        changes = list(_changes(original, fork, directions, changed))
    if not changes:
        return NoIntent("no matrix that writes the residual stream was changed")
    aligned, null = _alignment(changes, directions)
    energy = sum(change.energy for change in changes)
    writes = [change.write for change in changes if change.write is not None]
    numbers = (aligned, energy, *writes, *null.tolist())
    if not all(map(math.isfinite, numbers)) or energy <= 0:
        return NoIntent("the change holds values that are too large to compare")
    p_value = (1 + int((null >= aligned).sum().item())) / (1 + len(null))
    layers = [change.layer for change in changes if change.layer is not None]
    return Intent(
        alignment=round(aligned, 4),
        expected=round(null.quantile(0.5).item(), 4),
        extreme=round(null.quantile(0.999).item(), 4),
        p_value=round(p_value, 4),
        energy=float(f"{sum(change.along for change in changes) / energy:.3g}"),
        write_change=round(sum(writes) / directions.written, 4) if writes and directions.written else None,
        matrices=len(changes),
        layers=(min(layers), max(layers)) if layers else None,
        splits=len(null),
        certainty=Certainty.CONSISTENT if p_value <= ALPHA else Certainty.UNKNOWN,
    )


def _changes(
    original: WeightReader, fork: WeightReader, directions: Directions, changed: frozenset[str]
) -> Iterator[_Change]:
    """Of full weights; a matrix is streamed, and its output directions are those of a sample of it."""
    import torch

    width = directions.direction.shape[1]
    for pair in pair_tensors(original.tensors(), fork.tensors()).pairs:
        # GPT-2's other writers are left out: their shape does not always tell which way round they are.
        turned = pair.module in EMBEDDING_MODULES
        writes = pair.writes_residual and pair.module not in CONV1D
        if pair.name not in changed or not writes or pair.fork.shape[turned] != width:
            continue
        delta = torch.from_numpy(load_sample(pair, original, fork).delta)
        if not delta.any():
            continue
        layer = _known_layer(pair.original.name, directions)
        along, energy, write = _stream(pair, original, fork, directions, turned=turned)
        yield _Change(layer, _outputs(delta), along, energy, write)


def _stream(
    pair: Pair, original: WeightReader, fork: WeightReader, directions: Directions, *, turned: bool
) -> tuple[float, float, float | None]:
    """‖rᵀΔ‖², ‖Δ‖² and rᵀΔx of a matrix, some rows at a time, in float64."""
    import torch

    direction = _direction_of(_known_layer(pair.original.name, directions), directions).double()
    given = directions.inputs.get(pair.original.name)
    energy, first = 0.0, 0
    along: torch.Tensor | float = 0.0
    for left, right in blocks(pair, original, fork):
        delta = torch.nan_to_num(right.double() - left.double(), nan=0.0, posinf=0.0, neginf=0.0)
        energy += delta.square().sum().item()
        if turned:
            along += (delta @ direction).square().sum().item()
        else:
            along = along + direction[first : first + len(delta)] @ delta
        first += len(delta)
    if isinstance(along, float):
        return along, energy, None
    write = (along @ given.double()).item() if given is not None and given.shape == along.shape else None
    return along.square().sum().item(), energy, write


def _adapter_changes(
    original: WeightReader, adapter: PeftReader, directions: Directions
) -> Iterator[_Change]:
    """Of an adapter that is shipped alone: its products are the change."""
    import torch

    infos = original.tensors()
    width = directions.direction.shape[1]
    for name in adapter.targets:
        turned = module_of(name) in EMBEDDING_MODULES
        if module_of(name) not in RESIDUAL_WRITERS - CONV1D or name not in infos:
            continue
        shape = adapter.shape(name)
        if shape != tuple(infos[name].shape) or shape[turned] != width:
            continue
        delta = adapter.delta(name, original.values(name) if adapter.is_dora(name) else None)
        delta = torch.nan_to_num(delta.T if turned else delta, nan=0.0, posinf=0.0, neginf=0.0).double()
        if not delta.any():
            continue
        layer = _known_layer(name, directions)
        along = _direction_of(layer, directions).double() @ delta
        given = directions.inputs.get(name)
        write = (along @ given.double()).item() if given is not None and given.shape == along.shape else None
        yield _Change(layer, _outputs(delta), along.square().sum().item(), delta.square().sum().item(), write)


def _outputs(delta: torch.Tensor) -> torch.Tensor:
    """Leading output directions; scaled first, since a hostile value may be too large to square."""
    import torch

    delta = torch.nan_to_num(delta.float(), nan=0.0, posinf=0.0, neginf=0.0)
    scaled = delta / delta.abs().max().clamp_min(1e-30)
    return torch.from_numpy(leading_vectors(scaled.numpy(), LEADING)[0])


def _known_layer(name: str, directions: Directions) -> int | None:
    layer = layer_of(name)
    return layer if layer is not None and layer < len(directions.direction) else None


def _direction_of(layer: int | None, directions: Directions) -> torch.Tensor:
    return directions.direction[directions.best if layer is None else directions.sources[layer]]


def _alignment(changes: list[_Change], directions: Directions) -> tuple[float, torch.Tensor]:
    """The pooled alignment, and that of `SPLITS` directions of the null, (splits).

    The same halving is used in every layer, so that the null directions hang together as the real ones do.
    """
    import torch

    signs = _halvings(len(directions.harmless))
    found, null = [], []
    for own in (True, False):
        squares, nulls = [], []
        for change in changes:
            layer = directions.best
            if own and change.layer is not None:
                layer = directions.sources[change.layer]
            rows = directions.harmless[:, layer]
            lengths = ((rows @ rows.T @ signs) * signs).sum(0).clamp_min(1e-30)
            squares.append((change.vectors.T @ directions.direction[layer]).square().sum())
            nulls.append((change.vectors.T @ rows.T @ signs).square().sum(0) / lengths)
        found.append(torch.stack(squares).mean().sqrt())
        null.append(torch.stack(nulls).mean(0).sqrt())
    return torch.stack(found).max().item(), torch.stack(null).amax(0)


def _halvings(count: int) -> torch.Tensor:
    """(prompts, splits): ±1, balanced, drawn with a fixed seed."""
    import torch

    generator = torch.Generator().manual_seed(0)
    order = torch.rand(count, SPLITS, generator=generator).argsort(0).argsort(0)
    return torch.where(order < count // 2, 1.0, -1.0)
