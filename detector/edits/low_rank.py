"""Merged low-rank changes (LoRA and kin): is there a matrix of small rank inside all rounding intervals?

A few matrices of each module are probed for their rank; the rank that most of them share is then fitted to
every changed matrix, and the fork's stored values are compared with what follows from it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median_low
from typing import TYPE_CHECKING

from detector.compare import Comparison
from detector.edits.context import Context, layer_range, module_names
from detector.edits.directional import DirectionalFinding
from detector.interface import Certainty, Edit, EditDetail, EditKind, Evidence
from detector.pairing import Pair
from detector.sample import ELEMENTS, Sample
from detector.spectrum import ITERATIONS, Box, RankEstimate, estimate_rank, fit_rank, reproduced

if TYPE_CHECKING:
    import torch

PROBES = 3
"""Matrices probed for each module: first, middle and last touched layer."""
PROBE_ELEMENTS = 1 << 18
"""Elements of a matrix that are fitted; 512 rows of 512 keep a rank up to 64 apart from a dense change."""
NEARLY = 0.05
"""Distance left at the largest testable rank, up to which more elements may settle the question."""
REPRODUCED = 0.9
"""Share of the moved values that must follow from the fitted change."""
HOPELESS = 0.6
"""Share after the usual number of projections below which more of them will not help."""
PROVED_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class LowRankFinding:
    """The edit, if there is one; matrices it accounts for, and matrices nobody could tell anything about."""

    edit: Edit | None = None
    ranks: Mapping[str, int] = field(default_factory=dict)
    """Matrix → rank that reproduces it."""
    dense: tuple[Comparison, ...] = ()
    """Changed matrices whose change has no small rank."""
    undecided: tuple[Comparison, ...] = ()
    """Changed matrices in which too few values moved, or whose encoding hides the change."""
    rank_floor: int = 0
    """Dense changes have a rank above this."""


def find_low_rank(context: Context, directional: DirectionalFinding) -> LowRankFinding:
    """Probe the changed matrices that a directional edit does not account for."""
    changed = [c for c in context.changed_matrices() if c.pair.name not in directional.explained]
    by_module: dict[str, list[Comparison]] = {}
    for comparison in changed:
        by_module.setdefault(comparison.pair.module, []).append(comparison)
    estimates = {
        module: [_probe(context, comparison.pair, directional) for comparison in _spread(members)]
        for module, members in by_module.items()
    }
    low, dense, undecided = list[Comparison](), list[Comparison](), list[Comparison]()
    found = [estimate for probes in estimates.values() for estimate in probes if estimate and estimate.rank]
    typical = median_low(estimate.rank or 0 for estimate in found) if found else 0
    for module, members in by_module.items():
        kind = _module_kind([estimate for estimate in estimates[module] if estimate], typical)
        {"low": low, "dense": dense, "undecided": undecided}[kind].extend(members)
    floor = min(
        (e.limit for probes in estimates.values() for e in probes if e and not e.rank and e.limit), default=0
    )
    if not low:
        return LowRankFinding(dense=tuple(dense), undecided=tuple(undecided), rank_floor=floor)
    edit, ranks = _verify(context, low, estimates, directional)
    return LowRankFinding(edit, ranks, tuple(dense), tuple(undecided), floor)


def _module_kind(estimates: list[RankEstimate], typical: int) -> str:
    """Vote of the probes that could have seen a change of the typical rank."""
    telling = [estimate for estimate in estimates if estimate.rank or estimate.limit >= max(typical, 1)]
    if not telling:
        return "undecided"
    return "low" if 2 * sum(estimate.rank is not None for estimate in telling) > len(telling) else "dense"


def _spread(members: list[Comparison]) -> list[Comparison]:
    ordered = sorted(members, key=lambda comparison: (comparison.pair.layer or 0, comparison.pair.name))
    if len(ordered) <= PROBES:
        return ordered
    return [ordered[index * (len(ordered) - 1) // (PROBES - 1)] for index in range(PROBES)]


def _probe(context: Context, pair: Pair, directional: DirectionalFinding) -> RankEstimate | None:
    estimate = None
    for elements in (PROBE_ELEMENTS, ELEMENTS):
        sample = context.sample(pair, elements)
        if sample.half_fork is None:
            return None
        estimate = estimate_rank(_rest(sample, pair, directional), sample.half_fork, sample.half_original)
        whole = sample.delta.numel() == math.prod(pair.fork.shape)
        if whole or estimate.rank is not None or estimate.residual > NEARLY:
            break
    return estimate


def _rest(sample: Sample, pair: Pair, directional: DirectionalFinding) -> torch.Tensor:
    """The change without its directional part."""
    direction = directional.of(pair)
    return sample.delta if direction is None else sample.delta - direction.change(sample.weights)


def _verify(
    context: Context,
    low: list[Comparison],
    estimates: Mapping[str, list[RankEstimate | None]],
    directional: DirectionalFinding,
) -> tuple[Edit, dict[str, int]]:
    """Fit the shared rank to every matrix and compare the stored values."""
    ranks: dict[str, int] = {}
    shares: list[float] = []
    found = [e for probes in estimates.values() for e in probes if e and e.rank is not None]
    overall = Counter(e.rank or 0 for e in found).most_common(1)[0][0]
    roundings = max(e.roundings for e in found)
    for comparison in low:
        own = [e.rank for e in estimates[comparison.pair.module] if e and e.rank is not None]
        rank = Counter(own).most_common(1)[0][0] if own else overall
        share = _reproduced_at(context, comparison.pair, max(rank, overall), roundings, directional)
        shares.append(share)
        if share >= REPRODUCED:
            ranks[comparison.pair.name] = rank
    proved = len(ranks) >= PROVED_SHARE * len(low)
    pairs = [comparison.pair for comparison in low]
    evidence = (
        Evidence("rank-agreement", sum(e.rank == overall for e in found), f"of {len(found)} probed matrices"),
        Evidence("reproduced-fraction", round(median_low(shares), 4), "median share of moved values"),
        Evidence(
            "reproduced-matrices", len(ranks), f"of {len(low)}, at least {REPRODUCED:.0%} of moved values"
        ),
        Evidence("rounding-steps", roundings, "roundings allowed for"),
        Evidence("relative-norm", round(median_low(c.relative_norm for c in low), 6), "median of ‖Δ‖ / ‖W‖"),
    )
    detail = EditDetail(rank=overall, modules=module_names(pairs), layers=layer_range(pairs))
    certainty = Certainty.PROVED if proved else Certainty.CONSISTENT
    return Edit(EditKind.LOW_RANK_MERGE, certainty, detail, evidence), ranks


def _reproduced_at(
    context: Context, pair: Pair, rank: int, roundings: int, directional: DirectionalFinding
) -> float:
    sample = context.sample(pair, PROBE_ELEMENTS)
    if sample.half_fork is None:
        return 0.0
    delta = _rest(sample, pair, directional)
    wide = sample.half_fork.maximum(sample.half_original)
    box = Box(delta, wide if roundings == 1 else sample.half_fork + sample.half_original)
    rank = min(rank, *delta.shape)
    share = 0.0
    for iterations in (ITERATIONS, 4 * ITERATIONS):
        share = reproduced(box, fit_rank(box, rank, iterations))
        if share >= REPRODUCED or share < HOPELESS:
            break
    return share
