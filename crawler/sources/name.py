"""Repositories named like the release."""

from __future__ import annotations

from collections.abc import Iterator

from crawler.interface import Candidate, Channel, Claim, Hub, RepoSummary
from crawler.query import ListQuery, Order
from crawler.related import mentions, name_stem, spellings
from crawler.sources.interface import Family, Listing, Source
from crawler.sources.rows import candidate, inherits, is_ancestor


class NameSource(Source):
    """Searches the release's name without its variant words, in every usual spelling: four listings."""

    channel = Channel.NAME

    def listings(self, family: Family) -> Iterator[Listing]:
        """Each spelling."""
        for spelling in spellings(name_stem(family.target.release)):
            yield Listing(f"name:{spelling}", ListQuery(search=spelling, order=Order.MODIFIED))

    def recognise(self, hub: Hub, row: RepoSummary, family: Family) -> Candidate | None:
        """A name that contains the stem as whole words; the Hub's search also finds parts of words.

        The stem is often the name of the release's own base as well. What declares that base alone is more
        likely a sibling than a fork, so it needs the whole name; else its card has to say so.
        """
        del hub
        name, whole = row.repo.partition("/")[2], inherits(row, family)
        if is_ancestor(row, family) or not mentions(name, family.target.release, whole=whole):
            return None
        return candidate(row, Channel.NAME, Claim(None, None, f"name: {row.repo}"))
