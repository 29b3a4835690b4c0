"""What a stored comparison of weights shows of the effort behind an edit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from detector.interface import Diff, EditKind, Sketch, TensorDiff, TensorSketch, TensorStatus
from evals.effort import Basis, Evidence, Fact, WeightEvidence, method_of
from evals.interface import Unmeasured


def no_weight_evidence(kinds: tuple[str, ...], reason: str) -> WeightEvidence:
    """Nothing but the kinds of edit is known, and why."""
    gap = Unmeasured(reason)
    return WeightEvidence(
        kinds=kinds,
        method=method_of(frozenset(kinds)),
        rank=gap,
        directions=gap,
        parameters=gap,
        share=gap,
        layers=gap,
        energy=gap,
    )


def weight_evidence(found: Diff | Sketch, sizes: Mapping[str, int]) -> WeightEvidence:
    """Effort evidence in a comparison of weights.

    Args:
        found: The comparison.
        sizes: Values of each of the original's tensors; one that is not among them counts for nothing.
    """
    source = "diff" if isinstance(found, Diff) else "sketch"
    kinds = tuple(dict.fromkeys(edit.kind.value for edit in found.edits))

    def fact(value: float) -> Fact:
        return Fact(float(value), Basis.INFERRED, source)

    tensors = [tensor for tensor in found.tensors if _is_compared(tensor)]
    changed = [tensor for tensor in tensors if _is_changed(tensor)]
    gap: Evidence | None = None if tensors else Unmeasured("no tensor was compared")
    touched = sum(_share(tensor) * sizes.get(tensor.name, 0) for tensor in changed)
    return WeightEvidence(
        kinds=kinds,
        method=method_of(frozenset(kinds)),
        rank=gap or _rank(found, changed, source),
        directions=_directions(found, source),
        parameters=gap or fact(round(touched)),
        share=gap or fact(touched / max(sum(sizes.values()), 1)),
        layers=gap or fact(len({tensor.layer for tensor in changed if tensor.layer is not None})),
        energy=gap or fact(_energy(tensors, sizes)),
    )


def _is_compared(tensor: TensorDiff | TensorSketch) -> bool:
    same = (TensorStatus.IDENTICAL, TensorStatus.CAST, TensorStatus.CHANGED)
    return isinstance(tensor, TensorSketch) or tensor.status in same


def _is_changed(tensor: TensorDiff | TensorSketch) -> bool:
    return tensor.changed if isinstance(tensor, TensorSketch) else tensor.status is TensorStatus.CHANGED


def _share(tensor: TensorDiff | TensorSketch) -> float:
    return 1.0 if isinstance(tensor, TensorSketch) else tensor.fraction_changed


def _rank(found: Diff | Sketch, changed: Iterable[TensorDiff | TensorSketch], source: str) -> Evidence:
    """Of the named edits, else of every changed matrix: a single one of full rank has no low one."""
    named = [edit.detail.rank for edit in found.edits if edit.detail.rank is not None]
    if named:
        return Fact(float(max(named)), Basis.INFERRED, source)
    ranks = [tensor.rank for tensor in changed]
    if not ranks:
        return Fact(0.0, Basis.INFERRED, source)
    known = [rank for rank in ranks if rank is not None]
    if len(known) < len(ranks):
        return Unmeasured("the change has full rank, or its rank was not established")
    return Fact(float(max(known)), Basis.INFERRED, source)


def _directions(found: Diff | Sketch, source: str) -> Evidence:
    ranks = [edit.detail.rank for edit in found.edits if edit.kind is EditKind.DIRECTIONAL_EDIT]
    if not ranks:
        return Unmeasured("no directional edit was named")
    known = [rank for rank in ranks if rank is not None]
    return (
        Fact(float(max(known)), Basis.INFERRED, source) if known else Unmeasured("their number is not known")
    )


def _energy(tensors: Iterable[TensorDiff | TensorSketch], sizes: Mapping[str, int]) -> float:
    """Root of the mean squared relative norm, by size; a tensor that did not change counts as 0."""
    total = squares = 0.0
    for tensor in tensors:
        size = sizes.get(tensor.name, 0)
        total += size
        if _is_changed(tensor) and math.isfinite(tensor.relative_norm):
            squares += size * tensor.relative_norm**2
    return math.sqrt(squares / total) if total else 0.0
