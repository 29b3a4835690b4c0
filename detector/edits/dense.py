"""Changes without a small rank: full and partial fine-tunes, sparse patches, and what stays unexplained."""

from __future__ import annotations

import math

from detector.compare import Comparison
from detector.edits.container import quantisation_hides_the_rest
from detector.edits.context import Context, is_confined, layer_range, module_names
from detector.edits.low_rank import LowRankFinding
from detector.formats.names import layer_of
from detector.interface import Certainty, Edit, EditDetail, EditKind, Evidence, TensorInfo, TensorStatus
from detector.pairing import Pair, blocks

FULL = 0.9
"""Share of the layer matrices that a full fine-tune changes."""
REPLACED = 1.0
"""‖Δ‖ / ‖W‖ from which a matrix is another one: unrelated values of the same size give √2."""
SCATTERED = 1e-4
"""Share of values below which isolated changes are a patch wherever they are."""


def find_dense(
    context: Context,
    low_rank: LowRankFinding,
    explained: frozenset[str],
    beneath: frozenset[str] = frozenset(),
) -> tuple[Edit, ...]:
    """Name the changed matrices that neither directions nor a small rank account for.

    Args:
        context: the comparison.
        low_rank: what the rank probes said.
        explained: matrices that another edit accounts for.
        beneath: quantised matrices under which a dense change was found.
    """

    def visible(found: tuple[Comparison, ...]) -> list[Comparison]:
        rest = [c for c in found if c.pair.name not in explained]
        return [c for c in rest if c.pair.name in beneath or not quantisation_hides_the_rest(context, c)]

    known = {c.pair.name for c in low_rank.dense} | beneath
    both = visible((*low_rank.dense, *low_rank.undecided))
    changed = [c for c in both if c.pair.name in known]
    undecided = [c for c in both if c.pair.name not in known]
    replaced = [c for c in both if c.relative_norm >= REPLACED]
    everywhere = _is_everywhere(context, both)
    patched = [c for c in both if not everywhere and _is_patch(c) and c not in replaced]
    dense = [c for c in changed if c not in patched and c not in replaced]
    unclear = [c for c in undecided if c not in patched and c not in replaced]
    edits = [_replaced(context, replaced)] if replaced else []
    if dense or (unclear and everywhere):
        edits.append(_finetune(context, dense + unclear, low_rank.rank_floor))
    elif unclear and low_rank.edit is None:
        edits.append(_unclear(unclear))
    only_change = not edits and low_rank.edit is None
    if patched and (only_change or any(c.pair.layer is not None for c in patched)):
        edits.append(_patch(patched))
    return tuple(edits)


def find_unexplained(context: Context, explained: frozenset[str]) -> tuple[Edit, ...]:
    """Tensors that could not be read, or that hold no numbers; vectors that changed while no matrix did."""
    unreadable = [c.pair for c in context.comparisons if c.status is TensorStatus.UNREADABLE]
    broken = [c for c in context.comparisons if c.non_finite]
    edits = []
    if unreadable:
        types = ", ".join(sorted({pair.fork.dtype for pair in unreadable}))
        edits.append(
            _unknown("unreadable-tensors", len(unreadable), f"stored as {types}, which is not decoded")
        )
    if broken:
        edits.append(_unknown("non-finite-tensors", len(broken), "hold infinities or no numbers"))
    if unpaired := context.pairing.unmeasured:
        edits.append(_unknown("unpaired-tensors", len(unpaired), unpaired[0].reason))
    if others := _unaccounted(context, explained):
        edits.append(_unknown("unaccounted-tensors", len(others), "added, missing, or of another shape"))
    vectors = [c for c in context.changed() if len(c.pair.fork.shape) < 2]
    recoded = any(c.pair.is_matrix and c.status is TensorStatus.CAST for c in context.comparisons)
    rounded = recoded and all(c.within_a_step for c in vectors)  # the container's edit says so already
    if vectors and not rounded and not context.changed_matrices():
        edits.append(_vectors(vectors))
    return tuple(edits)


def _unaccounted(context: Context, explained: frozenset[str]) -> list[TensorInfo]:
    """Tensors of another shape, and those that one side lacks in a layer that both have.

    Whole layers are layer surgery's; towers and heads that predict later tokens come and go in conversions.
    """
    pairing, layers = context.pairing, context.relatives.layers
    kept = frozenset(layers.values())
    return [
        *(pair.fork for pair in pairing.reshaped if pair.name not in explained),
        *(info for info in pairing.added if layer_of(info.name) in layers),
        *(info for info in pairing.missing if layer_of(info.name) in kept),
    ]


def _vectors(vectors: list[Comparison]) -> Edit:
    """Norms and biases only: rounding of a format round trip, or a fine-tune of them alone."""
    if all(c.within_a_step for c in vectors):
        evidence = Evidence("rounding-only-tensors", len(vectors), "no value moved by more than one step")
        return Edit(EditKind.REPACKAGED, Certainty.CONSISTENT, EditDetail(), (evidence,))
    pairs = [c.pair for c in vectors]
    detail = EditDetail(modules=module_names(pairs), layers=layer_range(pairs))
    evidence = Evidence("changed-vectors", len(vectors), "norms and biases; every matrix is unchanged")
    return Edit(EditKind.PARTIAL_FINETUNE, Certainty.CONSISTENT, detail, (evidence,))


def _finetune(context: Context, dense: list[Comparison], rank_floor: int) -> Edit:
    pairs = [c.pair for c in dense]
    in_layers = [c for c in context.comparisons if c.pair.is_matrix and c.pair.layer is not None]
    touched = sum(pair.layer is not None for pair in pairs)
    share = touched / len(in_layers) if in_layers else 1.0
    norms = sorted(c.relative_norm for c in dense)
    moved = sorted(c.fraction_changed for c in dense)
    evidence = (
        Evidence("changed-layer-matrices", touched, f"of {len(in_layers)}"),
        Evidence(
            "rank-above", rank_floor, "no change of this rank or less lies inside the rounding intervals"
        ),
        Evidence("relative-norm", round(norms[len(norms) // 2], 6), "median of ‖Δ‖ / ‖W‖"),
        Evidence(
            "fraction-changed", round(moved[len(moved) // 2], 4), "median share of stored values that moved"
        ),
    )
    kind = EditKind.FULL_FINETUNE if share >= FULL else EditKind.PARTIAL_FINETUNE
    detail = EditDetail(modules=module_names(pairs), layers=layer_range(pairs))
    return Edit(kind, Certainty.CONSISTENT, detail, evidence)


def _unclear(unclear: list[Comparison]) -> Edit:
    pairs = [c.pair for c in unclear]
    moved = sum(c.fraction_changed * math.prod(c.pair.fork.shape) for c in unclear)
    note = "too few values moved, or too coarsely stored, to tell a low-rank from a dense change"
    evidence = (
        Evidence("undecided-matrices", len(unclear), note),
        Evidence("moved-values", round(moved), "in those matrices"),
    )
    detail = EditDetail(modules=module_names(pairs), layers=layer_range(pairs))
    return Edit(EditKind.UNKNOWN, Certainty.UNKNOWN, detail, evidence)


def _is_everywhere(context: Context, changed: list[Comparison]) -> bool:
    """Nearly every matrix moved, embeddings or routers and all: training, which adapters confine to a few."""
    matrices = [c for c in context.comparisons if c.pair.is_matrix]
    outside = any(c.pair.layer is None for c in changed)
    return outside and len(changed) >= FULL * len(matrices)


def _replaced(context: Context, replaced: list[Comparison]) -> Edit:
    """Matrices that have nothing in common with the original's, place by place."""
    pairs = [c.pair for c in replaced]
    permuted = sum(_has_same_lengths(context, pair) for pair in pairs)
    evidence = (
        Evidence("replaced-matrices", len(replaced), "differ from the original's by more than its own size"),
        Evidence("permuted-matrices", permuted, "of them have rows, or columns, of the same lengths"),
    )
    detail = EditDetail(modules=module_names(pairs), layers=layer_range(pairs))
    return Edit(EditKind.UNKNOWN, Certainty.UNKNOWN, detail, evidence)


def _has_same_lengths(context: Context, pair: Pair) -> bool:
    """Sorted squared lengths of the rows, or of the columns, agree: neurons in another order."""
    import torch

    # Written in place: small results kept between large blocks would break up the memory that these leave.
    rows, columns = (torch.zeros(2, size) for size in pair.fork.shape)
    first = 0
    for block in blocks(pair, context.original, context.fork):
        for side, part in enumerate(block):
            squares = part.float().square()
            rows[side, first : first + len(part)] = squares.sum(1)
            columns[side] += squares.sum(0)
        first += len(block[0])
    return any(
        torch.allclose(ours.sort().values, theirs.sort().values, rtol=0.02)
        for ours, theirs in (columns, rows)
    )


def _is_patch(comparison: Comparison) -> bool:
    """Confined to some rows or columns, or to scattered values."""
    if comparison.pair.fork.dtype != comparison.pair.original.dtype:
        return False
    return is_confined(comparison) or comparison.fraction_changed <= SCATTERED


def _patch(patched: list[Comparison]) -> Edit:
    pairs = [c.pair for c in patched]
    moved = sum(c.fraction_changed * math.prod(c.pair.fork.shape) for c in patched)
    rows = max(min(c.moved_rows, c.moved_columns) for c in patched)
    evidence = (
        Evidence(
            "moved-values", round(moved), f"in {len(patched)} matrices; all others are bit-identical there"
        ),
        Evidence("confined-to", round(rows, 4), "largest share of rows or columns touched in a matrix"),
    )
    detail = EditDetail(modules=module_names(pairs), layers=layer_range(pairs))
    return Edit(EditKind.SPARSE_PATCH, Certainty.CONSISTENT, detail, evidence)


def _unknown(name: str, count: int, reason: str) -> Edit:
    return Edit(EditKind.UNKNOWN, Certainty.UNKNOWN, EditDetail(), (Evidence(name, count, reason),))
