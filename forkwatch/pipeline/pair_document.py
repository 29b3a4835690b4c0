"""A comparison of two checkpoints → the `forkwatch.diff/1` document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal

from detector.formats.names import layer_of, module_of
from detector.formats.views import base_name
from detector.interface import Certainty, Diff, Sketch, TensorDiff, TensorSketch, TensorStatus
from forkwatch.pipeline.edit_views import edit_view
from forkwatch.pipeline.pair import PairDiff
from forkwatch.policy.evidence import evidence_views
from forkwatch.text import plain
from reports.diff import (
    DiffCostView,
    DiffDocument,
    RegionView,
    SampledTensorView,
    TensorView,
    UnsampledTensorView,
)
from reports.scan import LineageView

ALWAYS = (
    "What the changes do to the model's behaviour: `forkwatch scan` measures it.",
    "Chat template, tokenizer and other files beside the weights.",
    "Signatures: neither side was checked against its publisher's.",
)


def pair_document(pair: PairDiff) -> DiffDocument:
    """The document about a comparison."""
    found = pair.found
    unsampled = tuple(_unsampled(pair, found)) if isinstance(found, Sketch) else ()
    return DiffDocument(
        depth=pair.depth.value,
        base=plain(pair.base.checkpoint.name),
        fork=plain(pair.fork.checkpoint.name),
        base_commit=pair.base.checkpoint.commit,
        fork_commit=pair.fork.checkpoint.commit,
        lineage=LineageView(
            claimed=None,
            relation=None,
            status=found.lineage.status.value,
            evidence=evidence_views(found.lineage.evidence),
        ),
        edits=tuple(edit_view(edit) for edit in found.edits),
        tensors=tuple(_sampled(tensor) for tensor in found.tensors)
        if isinstance(found, Sketch)
        else tuple(_compared(tensor) for tensor in found.tensors),
        unsampled=unsampled,
        visible_share=found.visible_share if isinstance(found, Sketch) else None,
        regions=tuple(
            RegionView(name=plain(region.name), first_row=region.first_row, rows=region.rows, why=region.why)
            for region in (found.regions if isinstance(found, Sketch) else ())
        ),
        not_measured=(*_gaps(pair, unsampled), *ALWAYS),
        cost=DiffCostView(
            bytes_downloaded=pair.spent.bytes_downloaded,
            bytes_read=pair.bytes_read,
            bytes_total=sum(info.nbytes for info in pair.fork.reader.tensors().values()),
            requests=pair.spent.requests,
            seconds=round(pair.seconds, 2),
        ),
    )


def _compared(tensor: TensorDiff) -> TensorView:
    return TensorView(
        name=tensor.name,
        status=tensor.status.value,
        layer=tensor.layer,
        module=tensor.module,
        relative_norm=tensor.relative_norm,
        fraction_changed=tensor.fraction_changed,
        rank=tensor.rank,
        energy=tensor.energy,
        cosine=tensor.cosine,
        max_change=tensor.max_change,
        floor_ratio=tensor.floor_ratio,
        exponents=tensor.exponents,
    )


def _sampled(tensor: TensorSketch) -> SampledTensorView:
    return SampledTensorView(
        name=tensor.name,
        layer=tensor.layer,
        module=tensor.module,
        changed=tensor.changed,
        rows=tensor.rows,
        miss=tensor.miss,
        relative_norm=tensor.relative_norm,
        rank=tensor.rank,
    )


def _unsampled(pair: PairDiff, sketch: Sketch) -> Iterator[UnsampledTensorView]:
    """Tensors of either side of which no row was read, by name."""
    seen = {base_name(tensor.name) for tensor in sketch.tensors} | set(sketch.unchanged)
    ours, theirs = pair.base.reader.tensors(), pair.fork.reader.tensors()
    listed = set(sketch.changed)
    for name in sorted({*theirs, *(listed & ours.keys())} - seen):
        status: Literal["reshaped", "added", "missing", "not-read"] = "not-read"
        if name not in ours and name in listed:
            status = "added"
        elif name not in theirs:
            status = "missing"
        elif name in ours and ours[name].shape != theirs[name].shape:
            status = "reshaped"
        yield UnsampledTensorView(name=name, layer=layer_of(name), module=module_of(name), status=status)


def _gaps(pair: PairDiff, unsampled: tuple[UnsampledTensorView, ...]) -> Iterator[str]:
    """What was not looked at in this comparison in particular."""
    if isinstance(pair.found, Sketch):
        yield from _sketch_gaps(pair, pair.found, unsampled)
    else:
        yield from _diff_gaps(pair.found)
    if pair.base.adapter is not None:
        yield f"The adapter beside the weights of {plain(pair.base.checkpoint.name)}: it was not applied."


def _sketch_gaps(pair: PairDiff, sketch: Sketch, unsampled: tuple[UnsampledTensorView, ...]) -> Iterator[str]:
    if any(edit.certainty is Certainty.PROVED for edit in sketch.edits):
        return  # a copy, by its hashes
    read, total = pair.fork.reader.bytes_read, sketch.bytes_total
    yield (
        f"All but a sample: {read:,} bytes of the fork were read, of {total:,}. "
        "A sketch proves no edit; `--depth full` compares every value."
    )
    unread = sum(tensor.status == "not-read" for tensor in unsampled)
    if unread:
        yield f"{unread:,} tensors of which no row was read."
    misses = [tensor.miss for tensor in sketch.tensors if not tensor.changed]
    if misses and sketch.visible_share:
        yield (
            f"Rows outside the sample of {len(misses):,} unchanged tensors: a change of "
            f"{sketch.visible_share:.0%} of a tensor's rows is missed with a probability "
            + (f"of at most {max(misses):.2g}." if max(misses) >= 1e-9 else "below 1e-9.")
        )


def _diff_gaps(diff: Diff) -> Iterator[str]:
    counts = Counter(tensor.status for tensor in diff.tensors)
    unread = [tensor.name for tensor in diff.tensors if tensor.status is TensorStatus.UNREADABLE]
    if unread:
        more = f" and {len(unread) - 1:,} more" if len(unread) > 1 else ""
        yield f"Tensors that are not decoded or have no certain counterpart: {plain(unread[0], 100)}{more}."
    for status, words in (
        (TensorStatus.ADDED, "exist only in the fork"),
        (TensorStatus.MISSING, "exist only in the original"),
        (TensorStatus.RESHAPED, "have another shape"),
    ):
        if counts[status]:
            yield f"Values of {counts[status]:,} tensors that {words}."
