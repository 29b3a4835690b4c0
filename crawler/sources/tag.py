"""Repositories tagged as having their refusals removed, when anything else points at the release.

The common tools set these tags and no `base_model`, or leave the one of the card that they copied. Tens of
thousands of repositories carry the tags; which cards are read is `statement`'s to choose.
"""

from __future__ import annotations

from collections.abc import Iterator

from crawler.card import MODIFICATION_TAGS
from crawler.interface import Access, Candidate, Channel, Claim, Hub, RepoSummary
from crawler.query import ListQuery, Order
from crawler.related import mentions
from crawler.sources.interface import Family, Listing, Source
from crawler.sources.rows import bases, candidate, inherits, is_ancestor, said, same_shape, speaks_of


class TagSource(Source):
    """One listing a tag, newest first."""

    channel = Channel.TAG

    def __init__(self, tags: tuple[str, ...] = MODIFICATION_TAGS) -> None:
        self._tags = tags
        self._folded = frozenset(tag.casefold() for tag in tags)

    def listings(self, family: Family) -> Iterator[Listing]:
        """Each tag."""
        del family
        for tag in self._tags:
            yield Listing(f"tag:{tag}", ListQuery(tags=(tag,), order=Order.MODIFIED))

    def recognise(self, hub: Hub, row: RepoSummary, family: Family) -> Candidate | None:
        """A tagged row that has the release's name, or declares the release or a member, or says so in words.

        Or whose card is closed, when it has the release's shape and the release's own base: whatever it says,
        its metadata are a copy.
        """
        del hub
        tag = next((tag for tag in row.tags if tag.casefold() in self._folded), None)
        if tag is None or is_ancestor(row, family):
            return None
        named = mentions(row.repo.partition("/")[2], family.target.release)
        copied = row.access is not Access.OPEN and inherits(row, family) and same_shape(row, family)
        declared = any(base in family for base in bases(row))
        if not (named or copied or declared or any(speaks_of(claim, family) for claim in said(row, family))):
            return None
        return candidate(row, Channel.TAG, Claim(None, None, f"tag: {tag}"))
