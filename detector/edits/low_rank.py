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

import numpy as np

from detector.compare import Comparison
from detector.edits.context import Context, layer_range, module_names
from detector.edits.directional import DirectionalFinding
from detector.floats import Floats
from detector.grid import is_float
from detector.interface import Certainty, Edit, EditDetail, EditKind, Evidence, TensorStatus
from detector.pairing import Pair
from detector.parallel import spread
from detector.sample import ELEMENTS, Sample
from detector.spectrum import (
    ITERATIONS,
    NEARLY,
    REPRODUCED,
    SETTLED,
    SURE,
    Box,
    RankEstimate,
    estimate_rank,
    fit_values,
    lying,
)

PROBES = 3
"""Matrices probed for each module: first, middle and last touched layer."""
PROBE_ELEMENTS = 1 << 18
"""Elements of a matrix that are fitted; 512 rows of 512 keep a rank up to 64 apart from a dense change."""
ADAPTER_RANKS = 64
"""Adapters seldom have more; a change in which all ranks up to this were tried in vain counts as dense."""
HOPELESS = 0.6
"""Share after the usual number of projections below which more of them will not help."""
PROVED_SHARE = 0.9
AGREE = 0.6
"""Share of the probes that must find about the same rank where more changed than an adapter's matrices."""
NEARLY_ALL = 0.9
"""Share of all matrices that a training of everything changes."""
LEAST_LIMIT = 8
"""Ranks that must have been tested in vain before a change counts as dense by its rank alone: a faint adapter
of rank 8 is as far from rank 2 as training is."""


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
    trained: bool = False
    """Small ranks were found, and are those of a few gradients."""


@dataclass(frozen=True, slots=True)
class _Module:
    """The changed matrices of one module, and the probes taken of them."""

    members: tuple[Comparison, ...]
    by_name: Mapping[str, RankEstimate]

    @property
    def probes(self) -> tuple[RankEstimate, ...]:
        """Those that could be taken, in the order of the layers."""
        return tuple(self.by_name.values())

    def found(self, typical: int = 0) -> list[int]:
        """Ranks that probes settled on; doubtful ones only if they agree with other modules."""
        return [
            probe.rank
            for probe in self.probes
            if probe.rank is not None and (probe.rank == typical or not _is_dense(probe))
        ]

    @property
    def in_layers(self) -> bool:
        """No embedding and no head."""
        return any(comparison.pair.layer is not None for comparison in self.members)

    def is_sure(self) -> bool:
        """Some rank is far below what could be told from a dense change, or leaves nothing."""
        found = [(probe, probe.rank) for probe in self.probes if probe.rank is not None]
        return any(2 * rank <= probe.limit or probe.residual <= SETTLED for probe, rank in found)

    def ranks(self) -> list[int]:
        """All ranks at which a probe came to rest."""
        return [probe.rank for probe in self.probes if probe.rank is not None]

    def rank(self, overall: int) -> int:
        """The one that its probes agree on; else that of all modules."""
        own = set(self.found(overall))
        return own.pop() if len(own) == 1 else overall

    def is_exact(self) -> bool:
        """Most probes have a small rank that gives nearly all values, whatever others have: as in AdaLoRA."""
        exact = [
            probe
            for probe in self.probes
            if probe.rank is not None and 2 * probe.rank <= probe.limit and probe.reproduced >= SURE
        ]
        return 2 * len(exact) > len(self.probes)

    def vote(self, typical: int, least: int) -> str:
        """`low`, `dense` or `undecided`, by the probes that could have told a change of rank `typical`.

        A doubtful rank below the typical one is no vote: the fit may have come to rest too early, and is made
        again at the typical rank. Nor is a rank that most matrices, in which it was tested, do not have.
        """
        dense = [
            probe
            for probe in self.probes
            if probe.limit >= max(typical, least)
            and _is_dense(probe)
            and (probe.rank is None or probe.rank > typical)
        ]
        found = self.found(typical)
        refuting = [p for p in self.probes if p.rank is None and p.limit >= max(found, default=0)]
        if (not found and not dense) or (found and not dense and len(refuting) > len(found)):
            return "undecided"
        return "low" if len(found) > len(dense) else "dense"


def _is_dense(probe: RankEstimate) -> bool:
    """Far from every testable rank; or as near as a weak adapter of a higher one, which would be rare.

    A short AdamW run has a steep spectrum: at a fifth of the full rank it leaves 0.003 to 0.02 of the
    distance (14 matrices of a 135M model), yet gives the stored values in 0.49 to 0.74 of the cases only. In
    matrices of 128 rows it may be accepted at nearly the largest rank; those give 0.61 to 0.70 of the values,
    merged adapters trained on the same model 0.98 and more. In float32 the arithmetic of a merge is coarser
    than the steps, so that few values follow; there a rank that leaves nothing tells.
    """
    if probe.rank is not None:
        return 2 * probe.rank > probe.limit and probe.reproduced < REPRODUCED and probe.residual > SETTLED
    return probe.residual > NEARLY or (probe.limit >= ADAPTER_RANKS and probe.reproduced < REPRODUCED)


def find_low_rank(
    context: Context, directional: DirectionalFinding, explained: frozenset[str] = frozenset()
) -> LowRankFinding:
    """Probe the changed matrices that neither a directional edit nor another one accounts for."""
    by_module = changed_by_module(context, directional.explained | explained)
    chosen = [(module, c) for module, members in by_module.items() for c in chosen_of(members)]
    found = spread(lambda probe: _probe(context, probe[1].pair, directional), chosen)
    probes = [(*probed, one) for probed, one in zip(chosen, found, strict=True) if one is not None]
    modules = [
        _Module(tuple(members), {c.pair.name: one for name, c, one in probes if name == module})
        for module, members in by_module.items()
    ]
    typical = median_low([rank for module in modules for rank in module.found()] or [0])
    beside = _beside(context)
    votes: dict[str, list[_Module]] = {"low": [], "dense": [], "undecided": []}
    for module in modules:
        votes[module.vote(typical, 1 if beside else LEAST_LIMIT)].append(module)
    trained = _is_trained(votes["low"], votes["dense"], beside=beside)
    if trained:
        votes["dense"] += votes.pop("low")
    elif not _is_of_factors(votes["low"]):
        votes["undecided"] += votes.pop("low")
    dense = tuple(c for module in votes["dense"] for c in module.members)
    undecided = tuple(c for module in votes["undecided"] for c in module.members)
    limits = [probe.limit for module in votes["dense"] for probe in module.probes if probe.rank is None]
    finding = LowRankFinding(
        dense=dense, undecided=undecided, rank_floor=min(limits, default=0), trained=trained
    )
    low = votes.get("low")
    return _verify(context, low, finding, directional) if low else finding


def _is_of_factors(low: list[_Module]) -> bool:
    """Ranks that most matrices share, or that give each its values: a faint training lies near many ranks."""
    ranks = sorted(rank for module in low for rank in module.ranks())
    exact = sum(module.is_exact() for module in low)
    return not ranks or agreement(ranks) >= AGREE or exact >= AGREE * len(low)


def _is_trained(low: list[_Module], dense: list[_Module], *, beside: bool) -> bool:
    """Small ranks are those of a few gradients, not of factors.

    Factors have the rank that their configuration says, in matrix after matrix, and change nothing else. A
    step or two of training lie near many ranks in some modules, and near none in others; norm gains and the
    tokens change along with them.
    """
    ranks = sorted(rank for module in low for rank in module.ranks())
    inside = [module for module in low if module.in_layers]
    sure = any(module.is_sure() for module in inside)
    if not ranks:
        return False
    others = [module for module in dense if module.in_layers]
    if len(others) > len(inside):
        plain = all(is_float(c.pair.fork.dtype) for module in others for c in module.members)
        return plain or not sure or beside
    return not (sure and _have_one_rank(ranks)) and beside


def _have_one_rank(ranks: list[int]) -> bool:
    """Half of the matrices have the very same rank, or many do and none a larger one.

    Factors bound the rank, and a short training of them leaves their last directions below the rounding in
    some matrices (3 to 16 on SmolLM2). Ranks near which a training of everything lies differ.
    """
    common, count = Counter(ranks).most_common(1)[0]
    return 2 * count >= len(ranks) or (common == max(ranks) and 4 * count >= len(ranks))


def agreement(ranks: list[int]) -> float:
    """Share of the ranks, smallest first, that are about as large as the middle one."""
    middle = ranks[len(ranks) // 2]
    return sum(0.75 * middle <= rank <= 1.25 * middle for rank in ranks) / len(ranks)


def _beside(context: Context) -> bool:
    """Nearly all matrices changed, the tokens' too, or half of the layers' gains."""
    matrices = [c for c in context.comparisons if c.pair.is_matrix]
    changed = [c for c in matrices if c.status is TensorStatus.CHANGED]
    if len(changed) >= NEARLY_ALL * len(matrices) and any(c.pair.layer is None for c in changed):
        return True
    gains = [
        c
        for c in context.comparisons
        if c.pair.layer is not None and len(c.pair.fork.shape) == 1 and not c.pair.name.endswith("bias")
    ]
    moved = {c.pair.layer for c in gains if c.status is TensorStatus.CHANGED and not c.within_a_step}
    return bool(moved) and 2 * len(moved) >= len({c.pair.layer for c in gains})


def changed_by_module(context: Context, explained: frozenset[str]) -> dict[str, list[Comparison]]:
    """Changed matrices that nothing accounts for yet, each module's in the order of the layers."""
    by_module: dict[str, list[Comparison]] = {}
    for comparison in context.changed_matrices():
        if comparison.pair.name not in explained:
            by_module.setdefault(comparison.pair.module, []).append(comparison)
    for members in by_module.values():
        members.sort(key=lambda comparison: (comparison.pair.layer or 0, comparison.pair.name))
    return by_module


def chosen_of(members: list[Comparison]) -> list[Comparison]:
    """First, middle and last matrix of a module."""
    count = min(len(members), PROBES)
    return [members[index * (len(members) - 1) // max(count - 1, 1)] for index in range(count)]


def _probe(context: Context, pair: Pair, directional: DirectionalFinding) -> RankEstimate | None:
    """The rank of one matrix's change; None if its encoding has no known step."""
    estimate = None
    for elements in (PROBE_ELEMENTS, ELEMENTS):
        sample = context.sample(_oriented(pair, directional), elements)
        if sample.half_fork is None:
            return None
        estimate = estimate_rank(_rest(sample, pair, directional), sample.half_fork, sample.half_original)
        whole = sample.delta.size == math.prod(pair.fork.shape)
        if whole or estimate.rank is not None or estimate.residual > NEARLY:
            break
    return estimate


def _oriented(pair: Pair, directional: DirectionalFinding) -> Pair:
    """Outputs first, if a direction has to be taken off."""
    direction = directional.of(pair)
    return pair if direction is None else direction.pair


def _rest(sample: Sample, pair: Pair, directional: DirectionalFinding) -> Floats:
    """The change without its directional part."""
    direction = directional.of(pair)
    return sample.delta if direction is None else sample.delta - direction.change(sample.weights)


def _verify(
    context: Context, low: list[_Module], finding: LowRankFinding, directional: DirectionalFinding
) -> LowRankFinding:
    """Fit the shared rank to every matrix and compare the stored values; undecided matrices may join."""
    sure = Counter(rank for module in low for rank in module.found())
    doubtful = Counter(p.rank for module in low for p in module.probes if p.rank is not None)
    overall = (sure or doubtful).most_common(1)[0][0]
    probes = [
        p
        for module in low
        for p in module.probes
        if p.rank is not None and (p.rank == overall or not _is_dense(p))
    ]
    roundings = Counter(probe.roundings for probe in probes).most_common(1)[0][0]
    tasks = [(c, module.rank(overall)) for module in low for c in module.members]
    probed = {name: probe for module in low for name, probe in module.by_name.items()}

    def fitted(task: tuple[Comparison, int]) -> tuple[float, float]:
        probe, sought = probed.get(task[0].pair.name), (task[1], roundings)
        if probe is not None and (probe.rank, probe.roundings) == sought and probe.reproduced >= SURE:
            return probe.reproduced, probe.floor_ratio  # the same fit
        return _reproduced_at(_box(context, task[0].pair, directional, roundings), task[1])

    def joins(comparison: Comparison) -> bool:
        box = _box(context, comparison.pair, directional, roundings)
        return box is not None and box.limit() >= overall and _reproduced_at(box, overall)[0] >= REPRODUCED

    fits = spread(fitted, tasks)
    ranks = {
        c.pair.name: rank for (c, rank), (share, _) in zip(tasks, fits, strict=True) if share >= REPRODUCED
    }
    welcome = spread(joins, finding.undecided)
    joined = [c for c, is_welcome in zip(finding.undecided, welcome, strict=True) if is_welcome]
    members = [c for c, _ in tasks] + joined
    ranks |= {c.pair.name: overall for c in joined}
    settled = [rank for module in low for rank in module.ranks()]
    proved = len(ranks) >= PROVED_SHARE * len(members) and _have_one_rank(settled)
    pairs = [c.pair for c in members]
    left = tuple(c for c in finding.undecided if c not in joined)
    scale = round(median_low(c.relative_norm for c in members), 6)
    evidence = (
        Evidence(
            "rank-agreement", sum(p.rank == overall for p in probes), f"of {len(probes)} probed matrices"
        ),
        Evidence(
            "reproduced-fraction",
            round(median_low(share for share, _ in fits), 3),
            "median share of moved values",
        ),
        Evidence(
            "residual-over-rounding",
            round(median_low(residual for _, residual in fits), 3),
            "median squared residual over the roundings' energy",
        ),
        Evidence(
            "reproduced-matrices", len(ranks), f"of {len(members)}; {REPRODUCED:.0%} of moved values each"
        ),
        Evidence("undecided-matrices", len(left), "too few values moved to tell"),
        Evidence("rounding-steps", roundings, "roundings allowed for"),
        Evidence("relative-norm", scale, "median ‖Δ‖ / ‖W‖"),
    )
    detail = EditDetail(rank=overall, modules=module_names(pairs), layers=layer_range(pairs), scale=scale)
    certainty = Certainty.PROVED if proved else Certainty.CONSISTENT
    edit = Edit(EditKind.LOW_RANK_MERGE, certainty, detail, evidence)
    return LowRankFinding(edit, ranks, finding.dense, left, finding.rank_floor)


def _box(context: Context, pair: Pair, directional: DirectionalFinding, roundings: int) -> Box | None:
    """Intervals of a matrix's change; None if its encoding has no known step."""
    sample = context.sample(_oriented(pair, directional), PROBE_ELEMENTS)
    if sample.half_fork is None:
        return None
    delta = lying(_rest(sample, pair, directional))
    if roundings == 1:
        return Box(delta, lying(np.maximum(sample.half_fork, sample.half_original)))
    return Box(delta, lying(sample.half_fork + sample.half_original))


def _reproduced_at(box: Box | None, rank: int) -> tuple[float, float]:
    """Share of moved values that a change of this rank gives, and squared residual over the roundings'."""
    if box is None:
        return 0.0, 0.0
    for iterations in (ITERATIONS, 4 * ITERATIONS):
        fitted, share = fit_values(box, min(rank, *box.delta.shape), iterations)
        if share >= REPRODUCED or share < HOPELESS:
            break
    return share, box.floor_ratio(fitted)
