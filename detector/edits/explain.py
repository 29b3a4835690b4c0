"""The order of the finders: the most specific first, and what one reproduces is not asked of the next."""

from __future__ import annotations

from dataclasses import replace

from detector.edits.container import find_container
from detector.edits.context import Context
from detector.edits.dense import find_dense, find_unexplained
from detector.edits.direction import MAX_DIRECTIONS
from detector.edits.directional import DirectionalFinding, find_directional
from detector.edits.hidden import find_hidden
from detector.edits.low_rank import LowRankFinding, find_low_rank
from detector.edits.merge import find_merge
from detector.edits.rewritten import find_rewritten
from detector.edits.scaled import find_scaled_low_rank
from detector.edits.vocabulary import find_vocabulary_change
from detector.interface import Edit, Evidence


def explain(context: Context) -> tuple[tuple[Edit, ...], dict[str, int]]:
    """All edits but layer surgery, and the ranks that reproduce the changed matrices."""
    directional = find_directional(context)
    merge = find_merge(context)
    vocabulary = find_vocabulary_change(context)
    permuted = vocabulary.explained
    rewritten = find_rewritten(context, directional.explained | merge.explained | permuted)
    # A share of a parent's low-rank change is one, too: what a merge accounts for is not asked for its rank.
    low_rank = find_low_rank(context, directional, rewritten.explained | merge.explained)
    hidden = find_hidden(context, low_rank, permuted | merge.explained)
    if _is_rest_of(low_rank, directional):
        low_rank = replace(low_rank, edit=None)
    accounted = permuted | merge.explained | hidden.explained
    scaled = find_scaled_low_rank(context, low_rank, accounted)
    if scaled is not None:
        accounted |= scaled[1]
    optional = [directional.edit, low_rank.edit, merge.edit, hidden.edit, scaled[0] if scaled else None]
    edits = (
        *(_with(edit, hidden.facts) for edit in find_container(context)),
        *vocabulary.edits,
        *(edit for edit in optional if edit is not None),
        *rewritten.edits,
        *find_dense(context, low_rank, accounted, hidden.dense),
        *find_unexplained(context, permuted),
    )
    if merge.hints and edits:
        edits = (*edits[:-1], _with(edits[-1], merge.hints))
    return edits, _ranks(directional, low_rank)


def _is_rest_of(low_rank: LowRankFinding, directional: DirectionalFinding) -> bool:
    """The low rank is in matrices that the directional edit touches, and no others: what its formula leaves.

    A directional edit that was put into low-rank factors, or that another formula made, leaves a few more
    directions in the same matrices; an adapter beside it would touch others as well.
    """
    if directional.edit is None or low_rank.edit is None:
        return False
    detail, outer = low_rank.edit.detail, directional.edit.detail
    return set(detail.modules) <= set(outer.modules) and (detail.rank or 0) <= MAX_DIRECTIONS


def _with(edit: Edit, facts: tuple[Evidence, ...]) -> Edit:
    return replace(edit, evidence=(*edit.evidence, *facts)) if facts else edit


def _ranks(directional: DirectionalFinding, low_rank: LowRankFinding) -> dict[str, int]:
    ranks = {
        found.pair.name: found.rank
        for found in directional.directions
        if found.pair.name in directional.explained
    }
    return ranks | dict(low_rank.ranks)
