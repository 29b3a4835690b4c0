"""The order of the finders: the most specific first, and what one reproduces is not asked of the next."""

from __future__ import annotations

from dataclasses import replace

from detector.edits.container import find_container
from detector.edits.context import Context
from detector.edits.dense import find_dense, find_unexplained
from detector.edits.directional import DirectionalFinding, find_directional
from detector.edits.low_rank import LowRankFinding, find_low_rank
from detector.edits.merge import find_merge
from detector.edits.structure import find_vocabulary_change
from detector.interface import Edit


def explain(context: Context) -> tuple[tuple[Edit, ...], dict[str, int]]:
    """All edits but layer surgery, and the ranks that reproduce the changed matrices."""
    directional = find_directional(context)
    low_rank = find_low_rank(context, directional)
    merge = find_merge(context)
    optional = [directional.edit, low_rank.edit, merge.edit]
    vocabulary = find_vocabulary_change(context)
    permuted = frozenset(f"model.{m}.weight" for edit in vocabulary for m in edit.detail.modules)
    edits = (
        *find_container(context),
        *vocabulary,
        *(edit for edit in optional if edit is not None),
        *find_dense(context, low_rank, permuted | merge.explained),
        *find_unexplained(context),
    )
    if merge.hints and edits:
        edits = (*edits[:-1], replace(edits[-1], evidence=(*edits[-1].evidence, *merge.hints)))
    return edits, _ranks(directional, low_rank)


def _ranks(directional: DirectionalFinding, low_rank: LowRankFinding) -> dict[str, int]:
    ranks = {
        found.pair.name: found.rank
        for found in directional.directions
        if found.pair.name in directional.explained
    }
    return ranks | dict(low_rank.ranks)
