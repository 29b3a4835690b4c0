"""Repositories named like the release."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from crawler.card import tag_claims
from crawler.interface import Candidate, Channel, Claim, Hub, RepoId
from crawler.related import mentions, name_stem, spellings

_log = logging.getLogger(__name__)


class NameSource:
    """Searches the release's name without its variant words, in every usual spelling: four queries."""

    channel = Channel.NAME

    def __init__(self, *, max_results: int = 5000) -> None:
        """Bound the search; a warning is logged when the bound is reached.

        Args:
            max_results: newest repositories kept.
        """
        self._max_results = max_results

    def candidates(self, hub: Hub, release: RepoId) -> Iterator[Candidate]:
        """Candidates whose name contains the stem as whole words; the Hub's search also finds parts."""
        seen = {release.casefold()}
        for spelling in spellings(name_stem(release)):
            for summary in hub.list_models(search=spelling):
                if summary.repo.casefold() in seen or not mentions(summary.repo.partition("/")[2], release):
                    continue
                if len(seen) > self._max_results:
                    _log.warning(
                        "%s: only the newest %d repositories named alike", release, self._max_results
                    )
                    return
                seen.add(summary.repo.casefold())
                yield Candidate(
                    summary.repo, (Channel.NAME,), (name_claim(summary.repo), *tag_claims(summary.tags))
                )


def name_claim(repo: RepoId) -> Claim:
    """The hint that a name is. It names no base."""
    return Claim(None, None, f"name: {repo}")
