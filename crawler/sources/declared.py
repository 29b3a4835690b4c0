"""Forks that declare the release, or a known fork of it, as their base."""

from __future__ import annotations

from collections.abc import Iterator

from crawler.interface import Candidate, Channel, Hub, RepoSummary
from crawler.query import ListQuery, Order
from crawler.sources.interface import Family, Listing, Source
from crawler.sources.rows import bases, candidate


class DeclaredSource(Source):
    """Walks the Hub's tree of declared derivatives, breadth first; the Hub lists one level at a time.

    Adapters are listed as well, all of them: their configuration names a base that the card often does not,
    and no filter of the Hub knows it.

    Costs one call for the release and one, once ever, for each member: half of a first crawl. Most are
    leaves, but which ones no listing tells (`childrenModelCount` is refused there), and what was made from
    a quantisation is exactly what must not be missed. The release's own children are listed in full in every
    run: a repository can be made public long after its dates, and `refresh` wants the rows. Circles end
    because a member is asked once.
    """

    channel = Channel.DECLARED

    def listings(self, family: Family) -> Iterator[Listing]:
        """The release's children, then those of every member, the new ones included."""
        release = family.target.release
        # by date of creation: it is walked in full, and that order stands still meanwhile
        children = ListQuery(tags=(f"base_model:{release}",), order=Order.CREATED)
        yield Listing(f"declared:{release}", children, full=True)
        yield Listing("declared:peft", ListQuery(tags=("peft",), order=Order.MODIFIED))
        members = family.members()
        asked = 0
        while asked < len(members):
            yield _children_of(members[asked])
            asked += 1

    def recognise(self, hub: Hub, row: RepoSummary, family: Family) -> Candidate | None:
        """A row whose tags or PEFT configuration name the release or a member, whatever the letter case."""
        del hub  # nothing is read
        if not any(base in family for base in bases(row) if base.casefold() != row.repo.casefold()):
            return None
        return candidate(row, Channel.DECLARED)


def _children_of(repo: str) -> Listing:
    query = ListQuery(tags=(f"base_model:{repo}",), order=Order.MODIFIED)
    return Listing(f"declared:{repo}", query, once=True)
