"""What to read next, the most telling first."""

from __future__ import annotations

from collections.abc import Iterable

from detector.interface import Region
from detector.sketch.naming import TOKENS, Findings
from detector.sketch.plan import Bands, by_module, cost

MOST = 32
ROWS = 256
"""Rows of a region: they settle ranks up to 150, and directions far below the rounding of four bits."""


def next_regions(findings: Findings) -> tuple[Region, ...]:
    """Rows worth a read after the sketch.

    The strongest change of each module, those first that were surveyed only; then rows that the original does
    not have; then what did not fit the budget.
    """
    changed = findings.matrices
    regions: list[Region] = []
    for module, members in by_module(seen.pair for seen in changed).items():
        strength = {seen.pair.name: seen.relative_norm for seen in changed}
        strongest = max(members, key=lambda pair: (strength[pair.name], pair.name))
        rows = min(ROWS, strongest.fork.shape[0])
        why = f"the largest relative change among {len(members)} matrices of {module}"
        regions.append(Region(strongest.name, 0, rows, why))
    read = {plan.pair.name for plan in findings.probes.planned}
    order = {seen.pair.name: -seen.relative_norm for seen in changed}
    regions.sort(key=lambda region: (region.name in read, order[region.name], region.name))
    regions += _token_rows(findings)
    regions += _unread(findings)
    return tuple(regions[:MOST])


def _token_rows(findings: Findings) -> Iterable[Region]:
    for pair in findings.pairing.reshaped:
        if pair.name not in TOKENS or not pair.original.shape or not pair.fork.shape:
            continue
        before, after = pair.original.shape[0], pair.fork.shape[0]
        if after > before:
            yield Region(pair.name, before, after - before, "rows that the original does not have")


def _unread(findings: Findings) -> Iterable[Region]:
    """Tensors that did not fit the budget, the cheapest first."""
    seen = {each.pair.name for each in findings.seen}
    left = [
        Bands(pair, ((0, min(ROWS, pair.fork.shape[0])),))
        for pair in findings.pairing.pairs
        if pair.name not in seen and pair.is_matrix
    ]
    for bands in sorted(left, key=lambda bands: (cost([bands], findings.fork), bands.pair.name))[:MOST]:
        yield Region(bands.pair.name, 0, bands.rows, "not read so far")
