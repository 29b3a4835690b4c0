"""Stage 5: the full comparison of a fork's weights with the original's.

(1) Sample a few neurons of each layer: lineage, and which layer corresponds to which. (2) Pair the tensors
and compare every pair, block by block. (3) Let the finders explain what changed, the most specific first:
each takes what it can reproduce, and what is left goes to the next. Tensors are read one at a time, in tiles:
memory does not grow with the model or with its largest tensor.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from detector.compare import VIA, Comparison, compare_pair, recalled
from detector.content import match_by_content
from detector.edits.adapter import adapter_lineage, find_adapter
from detector.edits.context import Context, Relatives
from detector.edits.explain import explain
from detector.edits.structure import confirm_surgery, find_layer_surgery
from detector.errors import NothingComparedError, UnreadableTensorError
from detector.floats import read_floats, square_sum
from detector.folded import unfold
from detector.formats.names import layer_of, module_of
from detector.formats.peft import PeftReader
from detector.grid import TIES, is_float
from detector.interface import (
    Certainty,
    Diff,
    Edit,
    EditDetail,
    EditKind,
    Evidence,
    Lineage,
    LineageStatus,
    TensorDiff,
    TensorInfo,
    TensorStatus,
    WeightReader,
)
from detector.journal import Journal
from detector.lineage import Bands, align_layers, judge_lineage, sample_bands, search_neurons
from detector.pairing import EMBEDDINGS, HEADS, Pairing, pair_tensors
from detector.parallel import one_thread_a_product, spread
from detector.roster import layer_numbers
from detector.rounded import RoundedReader, only_ties, rounded_first
from detector.singular import decompose
from detector.spectrum import lying
from detector.stream import Streams

TOKEN_MATRICES = frozenset({*EMBEDDINGS, *HEADS})
DISTINCT = 64
"""Different values in 16 rows from which a matrix is no mask, ramp or identity."""
_COUNTS = re.compile(r"[IU]\d+|BOOL")
ENERGIES = 16
"""Leading singular values that a `TensorDiff` keeps."""
ENERGY_ELEMENTS = 1 << 18
"""Elements of a matrix that they are taken of: every changed matrix is decomposed."""

REFUTATIONS = 3
"""Changed matrices that passed through no intermediate type, after which no more are tried."""

SAME_VALUES = {EditKind.IDENTICAL, EditKind.REPACKAGED}
"""Edits that layers in another order rule out, even if every layer is its source's."""

DiffProgress = Callable[[str, int, int], None]
"""Called with the tensor just compared, elements done, elements in all."""


def ignore(name: str, done: int, total: int) -> None:
    """A `DiffProgress` for nobody."""


@one_thread_a_product()
def diff_weights(  # noqa: PLR0913  # two checkpoints, and what is at hand besides
    original: WeightReader,
    fork: WeightReader,
    *,
    progress: DiffProgress = ignore,
    adapter: PeftReader | None = None,
    known: Mapping[str, Bands] = {},
    parents: Mapping[str, WeightReader] = {},
    journal: Journal | None = None,
) -> Diff:
    """Compare two checkpoints and name what was done.

    Args:
        original: the release.
        fork: the checkpoint to explain; a `PeftReader` for an adapter shipped alone.
        progress: told about tensors as they are compared.
        adapter: an adapter that lies beside the fork's full weights and is applied on top of them.
        known: bands of other models that a merge may have been made with; it is suggested, not proved.
        parents: full weights of other models that a merge may have been made with; it can be proved.
        journal: asked before a tensor is compared and told afterwards, so that a killed diff can go on.

    Raises:
        NothingComparedError: the two have no tensor in common.
        MalformedWeightsError: a file turns out malformed while it is read.
        CrawlerError: bytes could not be had.
    """
    start = original.bytes_read + fork.bytes_read
    if isinstance(fork, PeftReader):
        edits, tensors = find_adapter(original, fork)
        lineage = adapter_lineage(original, fork)
        if lineage.status is LineageStatus.UNRELATED:
            edits = (*edits, unrelated(lineage))
        return Diff(tensors, edits, lineage, original.bytes_read + fork.bytes_read - start)
    bands = sample_bands(original, fork)
    layers = align_layers(*bands)
    placed = layers or {layer: layer for layer in bands[1].layers}
    lineage = search_neurons(judge_lineage(*bands, placed), original, bands, placed)
    surgery = find_layer_surgery(layers, len(layer_numbers(original)), layer_numbers(fork)) if layers else ()
    pairing = pair_tensors(original.tensors(), fork.tensors(), layers if surgery else None)
    pairing = match_by_content(pairing, original, fork)
    if not pairing.pairs and not pairing.reshaped:
        raise NothingComparedError("the two checkpoints share no tensor name")
    fork, pairing = unfold(pairing, original, fork)
    comparisons = _compare(pairing, original, fork, progress, journal)
    context = Context(original, fork, pairing, comparisons, Relatives(bands, layers, known, parents))
    if lineage.status is LineageStatus.UNRELATED and not _shares_bytes(context):
        edits = (unrelated(lineage),)
        return Diff(_tensor_diffs(context, {}, spectra=False), edits, lineage, _spent(context, start))
    lineage = _with_equal_tensors(lineage, context)
    beneath, rounded = _on_rounded_base(context)
    edits, ranks = explain(beneath)
    if rounded and all(edit.kind not in {EditKind.QUANTIZED, EditKind.DTYPE_CAST} for edit in edits):
        edits = (_rounded_base(rounded, len(context.changed_matrices())), *edits)
    if adapter is not None:
        edits = (*edits, *find_adapter(original, adapter)[0])
    if surgery:
        edits = (
            *confirm_surgery(surgery, context, edits),
            *(edit for edit in edits if edit.kind not in SAME_VALUES),
        )
    if not edits:
        edits = (_no_explanation(context),)
    return Diff(_tensor_diffs(context, ranks, spectra=True), edits, lineage, _spent(context, start))


def unrelated(lineage: Lineage) -> Edit:
    """The edit that says the weights are not the release's."""
    return Edit(EditKind.UNRELATED, Certainty.CONSISTENT, EditDetail(), lineage.evidence)


def _compare(
    pairing: Pairing,
    original: WeightReader,
    fork: WeightReader,
    progress: DiffProgress,
    journal: Journal | None,
) -> tuple[Comparison, ...]:
    """Compare every pair; intermediate types that failed on several matrices are not tried again."""
    total = sum(math.prod(pair.fork.shape) for pair in pairing.pairs)
    done, comparisons, refuted = 0, [], 0
    with Streams(total) as streams:
        for pair in pairing.pairs:
            via = VIA if refuted < REFUTATIONS else ()
            comparison = None if journal is None else recalled(pair, journal)
            if comparison is None:
                comparison = compare_pair(pair, original, fork, via, streams)
                if journal is not None:
                    journal.record(pair.key, comparison.as_record())
            comparisons.append(comparison)
            if pair.is_matrix and comparison.status is TensorStatus.CHANGED:
                refuted += 1
            done += math.prod(pair.fork.shape)
            progress(pair.name, done, total)
    return tuple(comparisons)


def _on_rounded_base(context: Context) -> tuple[Context, Mapping[str, str]]:
    """The comparison with the original as it was after a rounding that the fork's base went through, if one.

    Returns:
        The context that edits are looked for in, and the type that each matrix went through.
    """
    sizes = {c.pair: c.relative_norm for c in context.changed() if c.pair.is_matrix}
    schemes = rounded_first(context.original, context.fork, sizes)
    if not schemes:
        return context, {}
    original = RoundedReader(context.original, schemes)
    comparisons = tuple(
        _anew(c, context.original, original, context.fork, schemes.get(c.pair.original.name, ""))
        for c in context.comparisons
    )
    return replace(context, original=original, comparisons=comparisons), schemes


def _anew(
    before: Comparison, plain: WeightReader, rounded: WeightReader, fork: WeightReader, scheme: str
) -> Comparison:
    """The comparison with an original that went through `scheme`; ties may go either way."""
    if not scheme:
        return before
    found = compare_pair(before.pair, rounded, fork, ())
    if found.fraction_changed > TIES or is_float(scheme):
        return found
    if not only_ties(before.pair, plain, rounded, fork, scheme):
        return found
    return replace(found, status=TensorStatus.CAST, scheme=scheme, relative_norm=0.0, fraction_changed=0.0)


def _rounded_base(schemes: Mapping[str, str], changed: int) -> Edit:
    scheme, count = Counter(schemes.values()).most_common(1)[0]
    note = f"of {changed} changed ones hold the rounding error of this type, and what else was done"
    evidence = Evidence("rounded-first", count, note)
    kind = EditKind.DTYPE_CAST if is_float(scheme) else EditKind.QUANTIZED
    return Edit(kind, Certainty.CONSISTENT, EditDetail(scheme=scheme), (evidence,))


def _shares_bytes(context: Context) -> bool:
    """Some matrix is the original's, value by value."""
    same = {TensorStatus.IDENTICAL, TensorStatus.CAST}
    return any(c.pair.is_matrix and c.status in same and _tells(context, c) for c in context.comparisons)


def _tells(context: Context, comparison: Comparison) -> bool:
    """A matrix of the language model, with more values in its first rows than masks and ramps have.

    Independent models may well share a frozen vision tower.
    """
    info = comparison.pair.original
    if (comparison.pair.layer is None and info.name not in TOKEN_MATRICES) or _COUNTS.fullmatch(info.dtype):
        return False
    try:
        band = read_floats(context.original, info, 0, 16)
    except UnreadableTensorError:
        return True  # equal bytes of an encoding that is not decoded
    return len(np.unique(band)) >= DISTINCT


def _with_equal_tensors(lineage: Lineage, context: Context) -> Lineage:
    """Equal matrices prove descent by themselves."""
    if not _shares_bytes(context):
        return lineage
    same = {TensorStatus.IDENTICAL, TensorStatus.CAST}
    matrices = [c for c in context.comparisons if c.pair.is_matrix]
    equal = sum(c.status in same for c in matrices)
    evidence = Evidence("equal-matrices", equal, f"of {len(matrices)}, value by value")
    return Lineage(LineageStatus.PROVED, (evidence, *lineage.evidence))


def _tensor_diffs(context: Context, ranks: dict[str, int], *, spectra: bool) -> tuple[TensorDiff, ...]:
    """What is shown of every tensor."""

    def measured(comparison: Comparison) -> TensorDiff:
        rank = ranks.get(comparison.pair.name)
        return comparison.as_diff(rank, *(_energy(context, comparison) if spectra else ((), 0.0)))

    diffs = spread(measured, context.comparisons)
    diffs += [_structural(pair.fork, TensorStatus.RESHAPED) for pair in context.pairing.reshaped]
    diffs += [_structural(info, TensorStatus.ADDED) for info in context.pairing.added]
    diffs += [_structural(info, TensorStatus.MISSING) for info in context.pairing.missing]
    return tuple(sorted(diffs, key=lambda diff: (diff.name, diff.status)))


def _energy(context: Context, comparison: Comparison) -> tuple[tuple[float, ...], float]:
    """Shares of the leading singular values, and what may be missing of each."""
    if comparison.status is not TensorStatus.CHANGED or not comparison.pair.is_matrix:
        return (), 0.0
    delta = lying(context.delta(comparison.pair, ENERGY_ELEMENTS))
    total = square_sum(delta)
    if total <= 0:
        return (), 0.0
    leading = decompose(delta, ENERGIES)
    shares = tuple(round(value, 6) for value in (np.square(leading.values) / total).tolist())
    return shares, round(leading.error**2 / total, 6)


def _structural(info: TensorInfo, status: TensorStatus) -> TensorDiff:
    return TensorDiff(
        name=info.name,
        status=status,
        layer=layer_of(info.name),
        module=module_of(info.name),
        relative_norm=0.0,
        fraction_changed=0.0,
        rank=None,
    )


def _no_explanation(context: Context) -> Edit:
    """Every comparison was made and no finder had a name for the outcome."""
    pairing = context.pairing
    evidence = (
        Evidence("changed-tensors", len(context.changed())),
        Evidence("added-tensors", len(pairing.added)),
        Evidence("missing-tensors", len(pairing.missing)),
        Evidence("reshaped-tensors", len(pairing.reshaped)),
    )
    return Edit(EditKind.UNKNOWN, Certainty.UNKNOWN, EditDetail(), evidence)


def _spent(context: Context, start: int) -> int:
    return context.original.bytes_read + context.fork.bytes_read - start
