"""Repositories of accounts that published a fork before: three accounts made half of all uncensored ones."""

from __future__ import annotations

from collections.abc import Iterator

from crawler.interface import Candidate, Channel, Claim, Hub, RepoSummary
from crawler.query import ListQuery, Order
from crawler.related import mentions
from crawler.sources.interface import Family, Listing, Source
from crawler.sources.rows import bases, candidate, is_ancestor, may_fit, says_foreign


class NamespaceSource(Source):
    """One listing, once ever, for each account. The lab's own account is none: it signs what it releases."""

    channel = Channel.NAMESPACE

    def listings(self, family: Family) -> Iterator[Listing]:
        """The accounts known when it is asked; the driver asks again while there are new ones."""
        own = _account(family.target.release)
        for account in family.accounts():
            if account.casefold() != own:
                query = ListQuery(author=account, order=Order.MODIFIED)
                yield Listing(f"namespace:{account}", query, once=True)

    def recognise(self, hub: Hub, row: RepoSummary, family: Family) -> Candidate | None:
        """A row of such an account that could be a fork and does not say that it is somebody else's.

        With a known shape that fits, or with a card or name that speaks of the release.
        """
        del hub
        account = row.repo.partition("/")[0]
        if not family.published(account, besides=row.repo) or _account(row.repo) == _account(
            family.target.release
        ):
            return None
        declared = bases(row)
        if is_ancestor(row, family) or not may_fit(row, family):
            return None
        if says_foreign(row, family) or (declared and not any(base in family for base in declared)):
            return None
        fits = row.shape is not None and family.target.shape is not None
        if not fits and not declared and not mentions(row.repo.partition("/")[2], family.target.release):
            return None
        said = f"namespace: {account} published another fork"
        return candidate(row, Channel.NAMESPACE, Claim(None, None, said))


def _account(repo: str) -> str:
    return repo.partition("/")[0].casefold()
