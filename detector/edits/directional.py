"""Directional edits: a few output directions removed from, or added to, what writes the residual stream.

The change of one matrix is −α·u·(uᵀW) (Arditi et al., arXiv 2406.11717): of rank one like many a LoRA, but
with a right-hand side that follows from the left one. Three numbers tell the two apart: `alignment`, the
cosine between the change's input vector and Wᵀu (1 here, about 1/√n for a trained rank-1 change); the
agreement of u between matrices; and how much of the fork follows from W and u alone (`reproduced`).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from detector.edits.context import Context, layer_range, module_names
from detector.edits.direction import (
    ALIGNED,
    REPRODUCED,
    Direction,
    is_own_axis,
    is_unaligned,
    measure_direction,
)
from detector.grid import is_float
from detector.interface import Certainty, Edit, EditDetail, EditKind, Evidence
from detector.pairing import EMBEDDING_MODULES, Pair
from detector.parallel import spread

CLEARLY_ALIGNED = 0.98
"""`ALIGNED` where the edit does not account for the whole change. Another change E beside it, unrelated to
u, leaves a cosine of 1 / √(1 + (‖E‖ / α‖W‖)²): 0.98 for one of a fifth of W's size, 0.996 for four bits."""
BY_STEPS = 1.0
"""Squared residual over that of the roundings allowed for, up to which nothing is left where nothing else
changed: directions taken out one after the other are rounded as often, and two roundings allow for four."""
GLANCE_ELEMENTS = 1 << 18
"""Elements of a matrix in which a change that is not aligned at all shows that."""
MIN_SHARE = 0.25
"""Share of the changed residual writers that must be aligned."""


@dataclass(frozen=True, slots=True)
class DirectionalFinding:
    """The edit, if there is one, and the matrices it accounts for."""

    edit: Edit | None
    directions: tuple[Direction, ...]

    def of(self, pair: Pair) -> Direction | None:
        """The directional change found in a matrix."""
        return next((found for found in self.directions if found.pair.name == pair.name), None)

    @property
    def explained(self) -> frozenset[str]:
        """Matrices that follow from the original and the directions, as far as their encoding shows."""
        return frozenset(
            d.pair.name for d in self.directions if d.reproduced >= REPRODUCED or d.roundings == 0 or d.fits
        )


def find_directional(context: Context) -> DirectionalFinding:
    """Look for a directional edit in every changed residual writer."""
    writers = [context.residual_first(c.pair) for c in context.changed_matrices() if c.pair.writes_residual]
    measured = spread(lambda pair: _measured(pair, context), writers)
    found = _without_own_axes([one for one in measured if one is not None and _is_clear(one)])
    found = _without_natural(found)
    if not _enough(found, len(writers)):
        return DirectionalFinding(None, ())
    if {c.pair.name for c in context.changed_matrices()} <= {one.pair.name for one in found}:
        found = [replace(one, fits=one.fits or 0 < one.floor_ratio <= BY_STEPS) for one in found]
    return DirectionalFinding(_edit(found, len(writers)), tuple(found))


def _measured(pair: Pair, context: Context) -> Direction | None:
    """Of a change that is nowhere near aligned, a small part is read alone."""
    large = math.prod(pair.fork.shape) > GLANCE_ELEMENTS and is_float(pair.fork.dtype)
    if large and is_unaligned(context.sample(pair, GLANCE_ELEMENTS)):
        return None
    sample = context.sample(pair)
    direction = measure_direction(pair, sample)
    return direction and replace(direction, own_axis=is_own_axis(direction.basis, sample))


def _without_own_axes(found: list[Direction]) -> list[Direction]:
    """Leave out singular vectors that no other matrix has: clipping a spectrum is aligned by construction."""
    return [
        one
        for one in found
        if not one.own_axis or any(_overlap(one, other) >= ALIGNED for other in found if other is not one)
    ]


def _is_clear(direction: Direction) -> bool:
    """It accounts for the matrix, or hardly anything of its row of the change does not follow from W.

    A strong LoRA of a trained model leans on the same few directions as W does: a safety adapter of rank 8
    and a fifth of W's size, subtracted, was aligned by 0.90 to 0.95 in half of the writers.
    """
    return direction.reproduced >= REPRODUCED or direction.fits or direction.alignment >= CLEARLY_ALIGNED


def _without_natural(found: list[Direction]) -> list[Direction]:
    """Leave out embeddings that are not reproduced, unless another writer has the direction.

    Training moves an embedding along the direction that its rows have in common, which is aligned as well: in
    five of seven fine-tunes of a trained 4-layer model it was (cosine 0.91 to 0.97), and no other writer.
    """
    others = [d for d in found if d.pair.module not in EMBEDDING_MODULES]

    def is_shared(direction: Direction) -> bool:
        return any(_overlap(direction, other) >= ALIGNED for other in others)

    return [
        d
        for d in found
        if d.pair.module not in EMBEDDING_MODULES or d.reproduced >= REPRODUCED or is_shared(d)
    ]


def _overlap(left: Direction, right: Direction) -> float:
    """Mean cosine of two sets of directions; 0 for residual streams of different width."""
    if left.basis.shape[0] != right.basis.shape[0]:
        return 0.0
    overlap = float(np.linalg.norm(left.basis.T @ right.basis))
    return overlap / math.sqrt(min(left.rank, right.rank))


def _enough(found: list[Direction], writers: int) -> bool:
    """Several aligned writers, or one that is reproduced value by value."""
    if not found:
        return False
    if len(found) == 1:
        return found[0].reproduced >= REPRODUCED
    return len(found) >= MIN_SHARE * writers


def _edit(found: list[Direction], writers: int) -> Edit:
    pairs = [direction.pair for direction in found]
    exact = [direction for direction in found if direction.reproduced >= REPRODUCED]
    shared, within = _agreement(found)
    strengths = sorted(direction.strength for direction in found)
    proved = len(exact) >= 0.9 * len(found) and len(found) >= 0.9 * writers
    norms = sum(direction.keeps_norms for direction in found)
    evidence = (
        Evidence("aligned-matrices", len(found), f"of {writers} changed residual writers"),
        Evidence("alignment", _median([d.alignment for d in found]), "median cosine of input vector and Wᵀu"),
        Evidence("shared-direction-cosine", shared, "median over pairs of matrices"),
        Evidence("within-layer-cosine", within, "median over layers, attention and feed-forward output"),
        Evidence(
            "reproduced-fraction", _median([d.reproduced for d in found]), "median share of moved values"
        ),
        Evidence(
            "residual-over-rounding",
            _median([d.floor_ratio for d in found]),
            "median squared residual over the roundings' energy",
        ),
        Evidence("reproduced-matrices", len(exact), f"at least {REPRODUCED:.0%} of the moved values follow"),
        Evidence("rounding-steps", max(d.roundings for d in found), "roundings allowed for"),
        Evidence("row-norms-restored", norms, "matrices whose rows were scaled back to their length"),
        Evidence("rows-at-unit-length", sum(d.normalised for d in found), "matrices edited row-normalised"),
        Evidence("strength-range", f"{strengths[0]:.3f} to {strengths[-1]:.3f}", "share removed, by matrix"),
    )
    detail = EditDetail(
        rank=Counter(direction.rank for direction in found).most_common(1)[0][0],
        strength=round(_median(strengths), 4),
        modules=module_names(pairs),
        layers=layer_range(pairs),
    )
    certainty = Certainty.PROVED if proved else Certainty.CONSISTENT
    return Edit(EditKind.DIRECTIONAL_EDIT, certainty, detail, evidence)


def _agreement(found: list[Direction]) -> tuple[float, float]:
    """Median overlap of the directions between any two matrices, and between the matrices of one layer."""
    overlaps, within = [], []
    for index, left in enumerate(found):
        for right in found[index + 1 :]:
            if left.basis.shape[0] != right.basis.shape[0]:
                continue
            overlap = _overlap(left, right)
            overlaps.append(overlap)
            if left.pair.layer is not None and left.pair.layer == right.pair.layer:
                within.append(overlap)
    return _median(overlaps), _median(within)


def _median(values: list[float]) -> float:
    """Upper median; 0 for an empty list.

    Three decimals: the last bits of a decomposition depend on where in memory it was made, and may move a
    value or two in ten thousand.
    """
    return round(sorted(values)[len(values) // 2], 3) if values else 0.0
