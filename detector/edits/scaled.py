"""Low-rank changes under scaled rows: a merged DoRA (Liu et al., arXiv 2402.09353) is D·(W + B·A).

The change itself has full rank. The scales D follow from what the low-rank part cannot reach: outside of the
few input directions A, a row of the fork is the row of the original times its scale.
"""

from __future__ import annotations

from statistics import mode

import numpy as np

from detector.compare import Comparison
from detector.edits.context import Context, layer_range, module_names
from detector.edits.low_rank import PROBE_ELEMENTS, LowRankFinding, agreement
from detector.floats import Floats
from detector.grid import is_float
from detector.interface import Certainty, Edit, EditDetail, EditKind, Evidence
from detector.parallel import spread
from detector.sample import Sample
from detector.singular import leading_vectors
from detector.spectrum import RankEstimate, estimate_rank

MATRICES = 6
AGREEMENT = 0.6
"""Share of the matrices looked at that must have a small rank, about the same, with their rows unscaled."""
REFINEMENTS = 20
FOLLOWS = 0.65
"""Share of moved values that must follow; scales are fitted too, and not exactly. Measured on merged DoRAs of
a trained 4-layer model: 0.66 to 0.95; its AdamW fine-tunes have no rank below half of the testable ones."""
DIRECTIONS = 32
"""Input directions left out when scales are fitted; an adapter's rank is seldom larger."""


def find_scaled_low_rank(
    context: Context, low_rank: LowRankFinding, explained: frozenset[str]
) -> tuple[Edit, frozenset[str]] | None:
    """The edit and the matrices it stands for, if dense changes are low-rank ones with scaled rows.

    It is consistent-with at most: a few matrices are looked at, and a scale for each row is a free parameter.
    """
    changed = (*low_rank.dense, *low_rank.undecided)
    dense = [c for c in changed if is_float(c.pair.fork.dtype) and c.pair.name not in explained]
    if low_rank.edit is not None or low_rank.trained or not dense:
        return None
    count = min(MATRICES, len(dense))
    chosen = [dense[index * (len(dense) - 1) // max(count - 1, 1)] for index in range(count)]
    estimates = spread(lambda comparison: _estimate(context, comparison), chosen)
    found = [estimate for estimate in estimates if estimate is not None]
    ranks = [estimate.rank for estimate in found if estimate.rank is not None]
    if len(ranks) < AGREEMENT * count or agreement(sorted(ranks)) < AGREEMENT:
        return None
    pairs = [c.pair for c in dense]
    evidence = (
        Evidence("rank-agreement", ranks.count(mode(ranks)), f"of {count} matrices, their rows unscaled"),
        Evidence(
            "rows-scaled", value=True, note="the change has full rank until each row gets a scale, as in DoRA"
        ),
    )
    detail = EditDetail(rank=mode(ranks), modules=module_names(pairs), layers=layer_range(pairs))
    edit = Edit(EditKind.LOW_RANK_MERGE, Certainty.CONSISTENT, detail, evidence)
    return edit, frozenset(pair.name for pair in pairs)


def _estimate(context: Context, comparison: Comparison) -> RankEstimate | None:
    """Rank of what is left after unscaling; None where the values do not follow from it."""
    sample = context.sample(comparison.pair, PROBE_ELEMENTS)
    if sample.half_fork is None:
        return None
    scales = row_scales(sample)
    rest = sample.weights + sample.delta - scales * sample.weights
    estimate = estimate_rank(rest, sample.half_fork, sample.half_original)
    low = estimate.rank is not None and 2 * estimate.rank <= estimate.limit
    return estimate if low and estimate.reproduced >= FOLLOWS else None


def row_scales(sample: Sample) -> Floats:
    """(m, 1) scale of each row, by turns with the input directions of the rest."""
    weights, values = sample.weights, sample.weights + sample.delta
    count = max(1, min(DIRECTIONS, min(weights.shape) // 4))
    scales = _ratio(values, weights)
    for _ in range(REFINEMENTS):
        inputs = leading_vectors((values - scales * weights).T, count)[0]
        outside: Floats = np.subtract(weights, (weights @ inputs) @ inputs.T)
        beyond: Floats = np.subtract(values, (values @ inputs) @ inputs.T)
        scales = _ratio(beyond, outside)
    return scales


def _ratio(values: Floats, weights: Floats) -> Floats:
    square = np.square(weights).sum(1, keepdims=True)
    ratio: Floats = (values * weights).sum(1, keepdims=True) / np.maximum(square, np.float32(1e-30))
    return ratio
