"""Matrices that a formula made of the original's, without any training: no name of an edit says so.

Pruning sets values to zero. Folded norm gains, a merged IA3 (Liu et al., arXiv 2205.05638) and neurons scaled
against each other multiply rows or columns. Compression by singular values leaves out directions of both
sides. Such a change is dense, or has a rank, and would be taken for a fine-tune or a merged adapter; what it
is follows value by value from the original. It is said as *unknown*, with the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from detector.compare import Comparison
from detector.edits.context import Context, is_confined, layer_range, module_names
from detector.edits.low_rank import PROBE_ELEMENTS, changed_by_module, chosen_of
from detector.floats import Floats, square_sum
from detector.grid import is_float
from detector.interface import Certainty, Edit, EditDetail, EditKind, Evidence
from detector.pairing import Pair
from detector.parallel import spread
from detector.rewriting import inputs_of, is_gone, is_wide_enough, leading_outputs, was_pruned, was_zeroed
from detector.sample import Sample

LOUD = 4.0
"""Energy of a change over that of its rounding below which factors fit anything."""
FOLLOWS = 2.0
"""Energy that factors leave over that of both roundings."""
NEAR = 4.0
"""Factor by which a small part of a matrix may miss a formula that a larger one is then asked for."""
REASONS = {
    "pruned": "zeros that the original does not have, as magnitude pruning leaves",
    "pruned-and-trained": "zeros that the original does not have, and other values moved as well",
    "rows-rescaled": "rows of the original times factors: folded gains, IA3, or neurons scaled",
    "columns-rescaled": "columns of the original times factors: folded gains, IA3, or neurons scaled",
    "spectrum-cut": "the original without some of its own singular directions, as in SVD compression",
}


@dataclass(frozen=True, slots=True)
class RewrittenFinding:
    """One edit for each formula that was found, and the matrices they account for."""

    edits: tuple[Edit, ...] = ()
    explained: frozenset[str] = frozenset()


def find_rewritten(context: Context, explained: frozenset[str]) -> RewrittenFinding:
    """Ask some matrices of each module; all that can tell must agree.

    Args:
        context: the comparison.
        explained: matrices that another edit accounts for.
    """
    modules = changed_by_module(context, explained)
    candidates = [(name, c) for name, members in modules.items() for c in chosen_of(members) if _is_plain(c)]
    forms = spread(lambda task: _form_of(context, task[1].pair), candidates)
    found: dict[str, list[Comparison]] = {}
    for module, members in modules.items():
        own = {form for (name, _), form in zip(candidates, forms, strict=True) if name == module}
        if len(own) == 1 and (form := own.pop()):
            found.setdefault(form, []).extend(members)
    edits = tuple(_edit(form, members) for form, members in sorted(found.items()))
    return RewrittenFinding(edits, frozenset(c.pair.name for members in found.values() for c in members))


def _is_plain(comparison: Comparison) -> bool:
    return is_float(comparison.pair.fork.dtype) and not is_confined(comparison)


def _form_of(context: Context, pair: Pair) -> str:
    """Key of `REASONS`; of a matrix that is nowhere near any of them, a small part is read alone."""
    large = math.prod(pair.fork.shape) > PROBE_ELEMENTS
    if large and not _form(context.sample(pair, PROBE_ELEMENTS), pair, NEAR):
        return ""
    return _form(context.sample(pair), pair)


def _form(sample: Sample, pair: Pair, slack: float = 1.0) -> str:
    """Key of `REASONS`; empty if none fits, even if each may miss by a factor."""
    if sample.half_fork is None:
        return ""
    before, values = sample.weights, sample.weights + sample.delta
    zeros = int(np.count_nonzero((values == 0) & (before != 0)))
    moved = int(np.count_nonzero(sample.delta))
    if was_pruned(math.ceil(slack * zeros), moved, before.size):
        return "pruned" if was_zeroed(zeros, moved) else "pruned-and-trained"
    floor = (square_sum(sample.half_fork) + square_sum(sample.half_original)) / 3
    if square_sum(sample.delta) < LOUD / slack * floor:
        return ""
    products, squares = values * before, np.square(before)
    for axis, form in ((1, "rows-rescaled"), (0, "columns-rescaled")):
        factors = products.sum(axis) / np.maximum(squares.sum(axis), 1e-30)
        rest = before * np.expand_dims(factors, axis)
        np.subtract(values, rest, out=rest)
        if square_sum(rest) <= slack * FOLLOWS * floor and (slack > 1 or _differ(factors)):
            return form
    return "spectrum-cut" if _is_cut(before, values, pair, slack) else ""


def _differ(factors: Floats) -> bool:
    """Not one factor for all, as weight decay leaves."""
    return bool(factors.std(ddof=1) > 0.1 * np.abs(factors - 1).mean())


def _is_cut(before: Floats, values: Floats, pair: Pair, slack: float) -> bool:
    """The change's leading directions are gone on both sides; a projection removes an output side alone.

    Of a matrix that is looked at in part, one side is there: outputs of residual writers, inputs of others.
    """
    delta = values - before
    left, sizes = leading_outputs(delta)
    if not is_wide_enough(delta) or float(sizes[-1]) <= 0:
        return False
    right = inputs_of(delta, left)
    whole = before.size == math.prod(pair.fork.shape)
    outputs = not (whole or pair.writes_residual) or is_gone(left.T @ before, left.T @ values, slack)
    inputs = not (whole or not pair.writes_residual) or is_gone(before @ right, values @ right, slack)
    return outputs and inputs


def _edit(form: str, members: list[Comparison]) -> Edit:
    pairs = [c.pair for c in members]
    norms = sorted(c.relative_norm for c in members)
    evidence = (
        Evidence(form, len(members), REASONS[form]),
        Evidence("relative-norm", round(norms[len(norms) // 2], 6), "median of ‖Δ‖ / ‖W‖"),
    )
    detail = EditDetail(modules=module_names(pairs), layers=layer_range(pairs))
    return Edit(EditKind.UNKNOWN, Certainty.UNKNOWN, detail, evidence)
