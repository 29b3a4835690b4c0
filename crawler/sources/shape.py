"""Repositories of the release's architecture and size that declare no origin: half of the Hub does not."""

from __future__ import annotations

from collections.abc import Iterator

from crawler.interface import Candidate, Channel, Claim, Hub, RepoSummary
from crawler.query import ListQuery, Order
from crawler.sources.interface import Family, Listing, Source
from crawler.sources.rows import (
    architecture_names,
    bases,
    candidate,
    is_ancestor,
    same_shape,
    says_foreign,
    window,
)


class ShapeSource(Source):
    """One listing by architecture and parameter count, and two for GGUF, whose architecture is a tag at best.

    What is not covered: weights packed by a quantisation, whose parameter count says little.
    """

    channel = Channel.SHAPE

    def listings(self, family: Family) -> Iterator[Listing]:
        """None for a release whose shape the Hub does not tell."""
        shape = family.target.shape
        span = window(shape) if shape is not None else None
        if shape is None or shape.architecture is None or span is None:
            return
        for name in architecture_names(shape):
            query = ListQuery(tags=(name,), parameters=span, order=Order.MODIFIED)
            yield Listing(f"shape:{name}:{span[0]}-{span[1]}", query)
        query = ListQuery(tags=("gguf",), parameters=span, order=Order.MODIFIED)
        yield Listing(f"shape:gguf:{span[0]}-{span[1]}", query)
        for name in architecture_names(shape):
            query = ListQuery(tags=("gguf", name), order=Order.MODIFIED)
            yield Listing(f"shape:gguf:{name}", query)

    def recognise(self, hub: Hub, row: RepoSummary, family: Family) -> Candidate | None:
        """A row of the same shape that declares no base, and whose card, if it was read, names no other."""
        del hub
        shape = row.shape
        if shape is None or not same_shape(row, family) or bases(row) or is_ancestor(row, family):
            return None
        if says_foreign(row, family):
            return None
        said = f"shape: {shape.architecture}, {shape.parameters:,} parameters, no base declared"
        return candidate(row, Channel.SHAPE, Claim(None, None, said))
