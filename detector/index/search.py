"""Lineage of one candidate against all known models: found by signature, judged exactly, corrected for N.

Three tests, each with a null that holds for independently trained models whatever they share by architecture,
tokenizer or data, because training treats what they permute alike: matched neurons and matched angles between
neurons (`detector.lineage`), and the rank correlation of norm gains over the residual stream, which a
permutation of the neurons does not touch. (Rows of the embedding only raise doubt: tokens have names, and two
models trained on the same text may order them alike.) The smallest of the three p-values times three is a
model's; over the models Holm's step-down (1979) bounds the chance of *one* false relative among all that were
searched. Choosing whom to judge by signature does not weaken it: the correction counts every known model.
A copy whose residual stream was rotated has no signature in common with its original; only angles show it, so
that it is found among the models that are always judged (guarded releases, the claimed base) and no others.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from detector.errors import FingerprintError
from detector.index.fingerprint import Fingerprint, Identity
from detector.index.signature import Floats, gain_ranks
from detector.index.storage import load_fingerprint
from detector.index.table import Hit, open_table
from detector.interface import Lineage, LineageStatus
from detector.lineage import (
    ENOUGH_NEURONS,
    PROVED_LOG10_P,
    SAME_ANGLES,
    SUSPECT_LOG10_P,
    Bands,
    align_layers,
    judge_lineage,
)
from detector.neurons import count_matches
from detector.parallel import one_thread_a_product

FOUND_LOG10_P = -6.0
"""Corrected p-value from which two models are called related: one false relative in a million searches."""
TESTS = 3
PROVING = {"matched-neurons": "log10-p-value", "matched-angles": "log10-p-angles"}
"""Tests that can prove, and the evidence of `judge_lineage` that has their p-values."""
DOUBT_LOG10_P = -2.0
"""Corrected p-value of any evidence below which two models are not called unrelated."""
DOUBTS = 4
"""Tests that can raise doubt: token rows besides the three."""
JUDGED = 8
"""Models that are judged however unlike the candidate they are."""
MAX_JUDGED = 256
LIKELY = 0.45
"""Signature cosine from which a model is judged too. The largest of 400,000 unrelated pairs of width 128 was
0.42 (benchmarks/bench_index.py), and is smaller at larger widths; relatives have 0.7 and more."""
LIKELY_GAINS = 0.45
"""The same for the gains, whose noise is 1/16 a model; the largest is 0.43 at that width."""
GAINS_CORRELATION = 0.5
"""Least rank correlation of gains that counts: padding that two models share could give a small one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """What the weights say about a candidate and one known model. Symmetrical: not which came first."""

    identity: Identity
    status: LineageStatus
    by: str
    """The test that speaks: `matched-neurons` or `matched-angles`, which can prove, or `norm-gains`."""
    log10_p: float
    """Of that test, times the number of tests."""
    doubt_log10_p: float
    """The smallest of anything that was tested, those included that cannot establish a relation."""
    corrected_log10_p: float = 0.0
    """After Holm's correction over all models that were searched."""
    matched: int
    compared: int
    correlation: float
    """Median, of neurons at the same position; of the gains when they speak."""
    aligned: int
    """Layers of the candidate that were traced to a layer of the known model."""
    moved: int
    """Of those, layers that stand at another position."""
    same_inventory: bool
    """The two have the same tensors, by name and shape."""
    likeness: float
    """Cosine of the signatures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A candidate against the index."""

    known: int
    """Models in the index, the candidate itself left out."""
    comparable: int
    """Of those, models of its width; another width cannot be compared."""
    relations: tuple[Relation, ...]
    """Those that were judged, the nearest first."""
    broken: Mapping[str, str]
    """Files of the index that could not be read, and why."""

    @property
    def related(self) -> tuple[Relation, ...]:
        """Proved, or consistent-with."""
        found = (LineageStatus.PROVED, LineageStatus.CONSISTENT)
        return tuple(relation for relation in self.relations if relation.status in found)

    @property
    def status(self) -> LineageStatus:
        """The strongest statement: unrelated only if every model that was judged is."""
        if self.related:
            return self.related[0].status
        if self.relations and all(relation.status is LineageStatus.UNRELATED for relation in self.relations):
            return LineageStatus.UNRELATED
        return LineageStatus.UNKNOWN


def search_index(
    folder: Path, candidate: Fingerprint, *, always: Collection[str] = (), repos: Collection[str] = ()
) -> Search:
    """Compare a candidate with every model of the index.

    Args:
        folder: the index.
        candidate: the model to place; a known model of its repository and commit is itself, and left out.
        always: files of models to judge whatever their signature says, such as guarded releases.
        repos: repositories whose models are judged likewise, such as the base that a card claims.
    """
    table = open_table(folder)
    hits = table.search(candidate.shape.width, candidate.signatures, candidate.gain_codes)
    broken = dict(table.broken)
    relations, itself = [], 0
    wanted = {*always, *(file for repo in repos for file in table.files_of(repo))}
    for hit in _chosen(hits, wanted):
        try:
            known = load_fingerprint(folder / hit.file)
        except FingerprintError as error:
            broken[hit.file] = str(error)
            continue
        if _is_itself(known.identity, candidate.identity):
            itself += 1
            continue
        relations.append(relate(known, candidate, max(hit.layers, hit.gains)))
    searched = table.size - itself
    return Search(
        known=searched,
        comparable=table.comparable(candidate.shape.width) - itself,
        relations=correct(relations, searched),
        broken=broken,
    )


@one_thread_a_product()
def relate(known: Fingerprint, candidate: Fingerprint, likeness: float = 0.0) -> Relation:
    """Judge one pair, uncorrected: `status` is `judge_lineage`'s until `correct` has seen all of them."""
    ours, theirs = _same_rows(known.bands, candidate.bands)
    traced = align_layers(ours, theirs)
    layers = traced or {layer: layer for layer in theirs.layers if layer in ours.layers}
    lineage = judge_lineage(ours, theirs, layers)
    stated = {found.name: float(found.value) for found in lineage.evidence}
    gains, correlation = _gains_test(known.bands, candidate.bands)
    ways = {way: stated.get(name, 0.0) for way, name in PROVING.items()} | {"norm-gains": gains}
    by = min(ways, key=lambda way: ways[way])
    proving = [way for way in PROVING if ways[way] <= PROVED_LOG10_P]
    if proving:
        by = proving[0]
    bands = [(ours.layers[old], theirs.layers[new]) for new, old in layers.items()]
    return Relation(
        identity=known.identity,
        status=lineage.status if ours.kind == theirs.kind else LineageStatus.UNKNOWN,
        by=by,
        log10_p=min(0.0, ways[by] + math.log10(TESTS)),
        doubt_log10_p=min(ways[by], _doubt(ours, theirs, lineage)),
        matched=round(stated.get("matched-neurons", 0.0)),
        compared=sum(min(len(left), len(right)) for left, right in bands),
        correlation=round(correlation if by == "norm-gains" else stated.get("neuron-correlation", 0.0), 6),
        aligned=len(traced),
        moved=sum(own != known for own, known in traced.items()),
        same_inventory=known.shape.inventory == candidate.shape.inventory,
        likeness=round(likeness, 4),
    )


def correct(relations: list[Relation], searched: int) -> tuple[Relation, ...]:
    """Holm's correction over `searched` models, and the statuses that follow; the nearest first."""
    corrected, worst = [], -math.inf
    for index, relation in enumerate(sorted(relations, key=lambda relation: relation.log10_p)):
        worst = max(worst, min(0.0, relation.log10_p + math.log10(max(searched - index, 1))))
        corrected.append(
            replace(relation, corrected_log10_p=round(worst, 2), status=_status(relation, worst, searched))
        )
    order = (LineageStatus.PROVED, LineageStatus.CONSISTENT, LineageStatus.UNKNOWN, LineageStatus.UNRELATED)
    return tuple(
        sorted(
            corrected,
            key=lambda relation: (
                order.index(relation.status),
                -relation.correlation,
                relation.identity.kind != "release",
                relation.identity.name,
            ),
        )
    )


def _status(relation: Relation, corrected: float, searched: int) -> LineageStatus:
    """What the corrected p-value allows to be said.

    `judge_lineage` knows of one pair: what it supports is what chance brings among many, unless it stays
    doubtful after the correction.
    """
    if corrected <= FOUND_LOG10_P:
        proved = relation.by in PROVING and corrected <= PROVED_LOG10_P
        return LineageStatus.PROVED if proved else LineageStatus.CONSISTENT
    suspected = relation.doubt_log10_p <= SUSPECT_LOG10_P and relation.compared >= ENOUGH_NEURONS
    chance = relation.doubt_log10_p + math.log10(DOUBTS * max(searched, 1)) > DOUBT_LOG10_P
    if relation.status is LineageStatus.UNRELATED or (suspected and chance):
        return LineageStatus.UNRELATED
    return LineageStatus.UNKNOWN


def _doubt(ours: Bands, theirs: Bands, lineage: Lineage) -> float:
    """Smallest log10 p of the evidence that is not ours: token rows, and all that `judge_lineage` states."""
    values = [float(found.value) for found in lineage.evidence if found.name.startswith("log10-p")]
    likeness = [found.value for found in lineage.evidence if found.name == "token-angle-correlation"]
    if any(float(value) >= SAME_ANGLES for value in likeness):
        return -300.0
    if ours.embedding is not None and theirs.embedding is not None:
        values.append(count_matches([(ours.embedding, theirs.embedding)]).log10_p)
    return min(values, default=0.0)


def _chosen(hits: list[Hit], always: Collection[str]) -> list[Hit]:
    """Whom to judge: the most similar, all that are likely, and those that are always judged."""
    likely = [hit for hit in hits[JUDGED:] if hit.layers >= LIKELY or hit.gains >= LIKELY_GAINS]
    chosen = hits[:JUDGED] + likely[: MAX_JUDGED - JUDGED]
    names = {hit.file for hit in chosen}
    return chosen + [hit for hit in hits if hit.file in always and hit.file not in names]


def _is_itself(known: Identity, candidate: Identity) -> bool:
    return candidate.repo is not None and (known.repo, known.commit) == (candidate.repo, candidate.commit)


def _same_rows(ours: Bands, theirs: Bands) -> tuple[Bands, Bands]:
    """Both cut to the rows that both have: shapes of different depth hold bands of different height."""
    rows = min(len(band) for bands in (ours, theirs) for band in bands.layers.values())
    first, second = (
        replace(bands, layers={layer: band[:rows] for layer, band in bands.layers.items()})
        for bands in (ours, theirs)
    )
    return first, second


def _gains_test(known: Bands, candidate: Bands) -> tuple[float, float]:
    """log10 p and correlation of the gains' ranks.

    If the order of the coordinates is arbitrary, the second vector is as good as a random direction, and the
    chance of a correlation ≥ r in d dimensions is at most ½ (1 − r²)^((d−1)/2) for r > 0 (a spherical cap; d
    is the width less one, for the mean). Averaged ranks are not Gaussian, so this is close and not exact; at
    the least correlation that counts it is 1e-6 from a width of 93 on.
    """
    ours, theirs = _ranks(known), _ranks(candidate)
    if ours is None or theirs is None or len(ours) != len(theirs):
        return 0.0, 0.0
    correlation = min(float(ours @ theirs), 1.0)
    if correlation < GAINS_CORRELATION:
        return 0.0, correlation
    freedom = (len(ours) - 2) / 2
    log10_p = freedom * math.log10(max(1 - correlation**2, 1e-12)) + math.log10(0.5)
    return max(-300.0, log10_p), correlation


def _ranks(bands: Bands) -> Floats | None:
    return gain_ranks(list(bands.gains.values()))
