"""Stage 4: what can be said about a fork from its headers and a few row bands, before it is downloaded.

Row-major storage makes a band of rows one contiguous range, so the fork is read with HTTP range requests. The
bands say which tensors changed, whether the fork descends from the original at all (an unrelated model is not
downloaded), and whether the residual writers share one changed output direction. They prove nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.edits.adapter import adapter_lineage, find_adapter_claim
from detector.edits.context import layer_range, module_names
from detector.errors import NothingComparedError, UnreadableTensorError
from detector.formats.names import layer_of
from detector.formats.peft import PeftReader
from detector.grid import is_float, values_as_stored
from detector.interface import (
    Certainty,
    Edit,
    EditDetail,
    EditKind,
    Evidence,
    Lineage,
    LineageStatus,
    Sketch,
    WeightReader,
)
from detector.lineage import judge_lineage, sample_bands, shared_module
from detector.pairing import EMBEDDING, HEAD, Pair, Pairing, pair_tensors

if TYPE_CHECKING:
    import torch

ROWS = ((16, 8), (8, 4), (8, 2), (8, 1), (4, 1), (1, 1))
"""Rows a band: of attention and feed-forward outputs, of other matrices. The first that fits is taken."""
LINEAGE_ROWS = (32, 16, 8)
LINEAGE_LAYERS = 8
SHARED = 0.9
"""Median cosine between matrices from which their changed direction is one: 8 random dimensions give 0.3."""
LEADING = 0.6
"""Least median share of a band's change in that direction; a rank-16 LoRA has 0.32 on 8 rows."""
FEWEST_WRITERS = 4


@dataclass(frozen=True, slots=True)
class _BandChange:
    """The change of a residual writer on its band."""

    pair: Pair
    delta: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Bands:
    """What the tensor bands showed."""

    changed: tuple[Pair, ...]
    unchanged: tuple[Pair, ...]
    writers: tuple[_BandChange, ...]


def sketch_weights(original: WeightReader, fork: WeightReader, *, budget_bytes: int) -> Sketch:
    """Sample a fork.

    Args:
        original: the release, which is local.
        fork: the fork, which may be remote.
        budget_bytes: bytes of the fork to read besides its headers; when they do not reach for a row of every
            tensor, tensors are skipped evenly and appear in neither list of the result.

    Raises:
        NothingComparedError: the two have no tensor name in common.
        CrawlerError: bytes could not be had.
    """
    total = sum(info.nbytes for info in fork.tensors().values())
    if isinstance(fork, PeftReader):
        lineage = adapter_lineage(original, fork)
        edits = (find_adapter_claim(original, fork),)
        spent = original.bytes_read + fork.bytes_read
        return Sketch(lineage, tuple(fork.targets), (), edits, spent, total)
    pairing = pair_tensors(original.tensors(), fork.tensors())
    if not pairing.pairs and not pairing.reshaped:
        raise NothingComparedError("the two checkpoints share no tensor name")
    start = fork.bytes_read
    lineage = _lineage(original, fork, budget_bytes // 2)
    structure = tuple(info.name for info in (*pairing.added, *pairing.missing)) + tuple(
        pair.name for pair in pairing.reshaped
    )
    if lineage.status is LineageStatus.UNRELATED:
        changed = {*structure, *(pair.name for pair in pairing.pairs)}
        edit = Edit(EditKind.UNRELATED, Certainty.CONSISTENT, EditDetail(), lineage.evidence)
        return Sketch(
            lineage, tuple(sorted(changed)), (), (edit,), original.bytes_read + fork.bytes_read, total
        )
    bands = _read_bands(pairing, original, fork, budget_bytes - (fork.bytes_read - start))
    return Sketch(
        lineage=lineage,
        changed=tuple(sorted({*structure, *(pair.name for pair in bands.changed)})),
        unchanged=tuple(sorted(pair.name for pair in bands.unchanged)),
        edits=_edits(original, fork, pairing, bands),
        bytes_read=original.bytes_read + fork.bytes_read,
        bytes_total=total,
    )


def _lineage(original: WeightReader, fork: WeightReader, budget: int) -> Lineage:
    module = shared_module(original, fork)
    infos = [info for name, info in fork.tensors().items() if f".{module}." in name and len(info.shape) == 2]
    layers = sorted({layer for info in infos if (layer := layer_of(info.name)) is not None})
    rows, count = LINEAGE_ROWS[-1], min(len(layers), LINEAGE_LAYERS)
    for rows in LINEAGE_ROWS:
        cost = max((fork.band_bytes(info.name, rows) for info in infos), default=0)
        if cost * (count + 2) <= budget:
            break
    else:  # a band of some quantisations is the whole matrix: fewer of them, and one at least
        count = min(count, max(1, budget // max(cost, 1) - 2))
    chosen = [layers[index * len(layers) // count] for index in range(count)]
    bands = sample_bands(original, fork, rows, chosen)
    return judge_lineage(*bands, {layer: layer for layer in chosen})


def _read_bands(pairing: Pairing, original: WeightReader, fork: WeightReader, budget: int) -> _Bands:
    import torch

    pairs = [pair for pair in pairing.pairs if pair.fork.shape and 0 not in pair.fork.shape]
    plan, stride = _plan(pairs, fork, budget)
    changed, unchanged, writers = list[Pair](), list[Pair](), list[_BandChange]()
    for pair in pairs[::stride]:
        try:
            parts = [_band(pair, original, fork, first, rows) for first, rows in _places(pair, plan)]
        except UnreadableTensorError:
            continue
        if all(equal for equal, _ in parts):
            unchanged.append(pair)
            continue
        changed.append(pair)
        if _is_output(pair):
            writers.append(_BandChange(pair, torch.cat([delta for _, delta in parts])))
    return _Bands(tuple(changed), tuple(unchanged), tuple(writers))


def _plan(pairs: list[Pair], fork: WeightReader, budget: int) -> tuple[tuple[int, int], int]:
    """Rows a band, and which share of the tensors to read, for the budget."""
    for plan in ROWS:
        if _cost(pairs, fork, plan) <= budget:
            return plan, 1
    smallest = ROWS[-1]
    return smallest, max(1, math.ceil(_cost(pairs, fork, smallest) / max(budget, 1)))


def _cost(pairs: list[Pair], fork: WeightReader, plan: tuple[int, int]) -> int:
    return sum(fork.band_bytes(pair.fork.name, rows) for pair in pairs for _, rows in _places(pair, plan))


def _places(pair: Pair, plan: tuple[int, int]) -> list[tuple[int, int]]:
    """Bands of a tensor, `(first row, rows)`: two of a matrix, the head of a vector."""
    height = pair.fork.shape[0]
    if not pair.is_matrix:
        return [(0, min(height, 256))]
    rows = min(plan[0] if _is_output(pair) else plan[1], height)
    middle = height // 4
    if rows < 2:
        return [(middle, rows)]
    return [(middle, rows // 2), (min(3 * height // 4, height - rows // 2), rows - rows // 2)]


def _is_output(pair: Pair) -> bool:
    return pair.writes_residual and pair.name not in {EMBEDDING, HEAD}


def _band(
    pair: Pair, original: WeightReader, fork: WeightReader, first: int, rows: int
) -> tuple[bool, torch.Tensor]:
    """Whether the rows hold the original's values in the fork's type, and the change."""
    import torch

    left = original.band(pair.original.name, first, rows).float()
    right = fork.band(pair.fork.name, first, rows).float()
    expected = left if pair.fork.dtype == pair.original.dtype else values_as_stored(left, pair.fork.dtype)
    return torch.equal(expected, right), torch.nan_to_num(right - left)


def _edits(original: WeightReader, fork: WeightReader, pairing: Pairing, bands: _Bands) -> tuple[Edit, ...]:
    edits = [*_container(fork, pairing), *_structure(original, fork, pairing)]
    directional = _directional(bands.writers)
    if directional:
        edits.append(directional)
    matrices = [pair for pair in bands.changed if pair.is_matrix]
    unread = not bands.changed and not bands.unchanged
    if unread or (matrices and not directional):
        note = (
            "no tensor fitted the budget"
            if unread
            else "the bands do not tell a low-rank from a dense change"
        )
        evidence = (Evidence("changed-matrices", len(matrices), note),)
        detail = EditDetail(modules=module_names(matrices), layers=layer_range(matrices))
        edits.append(Edit(EditKind.UNKNOWN, Certainty.UNKNOWN, detail, evidence))
    if not edits:
        edits.append(_nothing_seen(original, fork, bands))
    return tuple(edits)


def _nothing_seen(original: WeightReader, fork: WeightReader, bands: _Bands) -> Edit:
    """Every sampled row is equal. Under equal headers the files may still differ in other rows."""
    if original.headers == fork.headers:
        note = "headers and sampled rows are equal; the rows not sampled may differ"
        evidence = (Evidence("equal-bands", len(bands.unchanged), note),)
        return Edit(EditKind.UNKNOWN, Certainty.UNKNOWN, EditDetail(), evidence)
    evidence = (Evidence("equal-bands", len(bands.unchanged), "sampled rows of every read tensor are equal"),)
    return Edit(EditKind.REPACKAGED, Certainty.CONSISTENT, EditDetail(), evidence)


def _container(fork: WeightReader, pairing: Pairing) -> list[Edit]:
    elements: Counter[str] = Counter()
    for pair in pairing.pairs:
        if pair.is_matrix and pair.fork.dtype != pair.original.dtype:
            elements[pair.fork.dtype] += math.prod(pair.fork.shape)
    if not elements:
        return []
    scheme = max(elements, key=lambda name: (not is_float(name), elements[name], name))
    kind = EditKind.DTYPE_CAST if is_float(scheme) else EditKind.QUANTIZED
    evidence = (Evidence("container", fork.format, "types as its header states them"),)
    return [Edit(kind, Certainty.CONSISTENT, EditDetail(scheme=scheme), evidence)]


def _structure(original: WeightReader, fork: WeightReader, pairing: Pairing) -> list[Edit]:
    edits = []
    before, after = _layers(original), _layers(fork)
    if before != after:
        evidence = (Evidence("layers", after, f"the original has {before}"),)
        edits.append(Edit(EditKind.LAYER_SURGERY, Certainty.CONSISTENT, EditDetail(), evidence))
    for pair in pairing.reshaped:
        if pair.name == EMBEDDING and pair.original.shape[1:] == pair.fork.shape[1:]:
            rows = (Evidence("rows", pair.fork.shape[0], f"the original has {pair.original.shape[0]}"),)
            edits.append(Edit(EditKind.VOCABULARY_CHANGE, Certainty.CONSISTENT, EditDetail(), rows))
    return edits


def _layers(reader: WeightReader) -> int:
    return len({layer for name in reader.tensors() if (layer := layer_of(name)) is not None})


def _directional(writers: tuple[_BandChange, ...]) -> Edit | None:
    """One changed output direction, shared by the residual writers' bands."""
    import torch

    if len(writers) < FEWEST_WRITERS or len({len(writer.delta) for writer in writers}) > 1:
        return None
    if len(writers[0].delta) < ROWS[1][0]:
        return None
    directions, shares = [], []
    for writer in writers:
        left, values, _ = torch.linalg.svd(writer.delta, full_matrices=False)
        directions.append(left[:, 0])
        shares.append((values[0] ** 2 / values.square().sum().clamp_min(1e-30)).item())
    stack = torch.stack(directions)
    cosines = (stack @ stack.T).abs()[*torch.triu_indices(len(stack), len(stack), 1)]
    shared, share = cosines.median().item(), sorted(shares)[len(shares) // 2]
    if shared < SHARED or share < LEADING:
        return None
    pairs = [writer.pair for writer in writers]
    evidence = (
        Evidence(
            "shared-direction-cosine", round(shared, 4), f"median over {len(pairs)} matrices, on their bands"
        ),
        Evidence("leading-share", round(share, 4), "median share of a band's change along it"),
    )
    detail = EditDetail(modules=module_names(pairs), layers=layer_range(pairs))
    return Edit(EditKind.DIRECTIONAL_EDIT, Certainty.CONSISTENT, detail, evidence)
