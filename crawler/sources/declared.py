"""Forks that declare the release, or a declared fork of it, as their base."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator

from crawler.card import tag_claims
from crawler.interface import Candidate, Channel, Hub, RepoId

_log = logging.getLogger(__name__)


class DeclaredSource:
    """Walks the Hub's tree of declared derivatives. The Hub lists one level only, so each level is asked for.

    Costs one listing for the release and one for each repository above the last level.
    """

    channel = Channel.DECLARED

    def __init__(self, *, levels: int = 3, max_listings: int = 1000) -> None:
        """Bound the walk.

        Args:
            levels: 1 finds direct derivatives only; 3 reaches the quantisations of an edit of a fine-tune.
            max_listings: repositories whose derivatives are looked up; a warning is logged beyond.
        """
        self._levels = levels
        self._max_listings = max_listings

    def candidates(self, hub: Hub, release: RepoId) -> Iterator[Candidate]:
        """Breadth first, so that a bound cuts off the far descendants and not the near ones."""
        seen = {release.casefold()}
        queue = deque([(release, 1)])
        listings = 0
        while queue:
            base, level = queue.popleft()
            if listings == self._max_listings:
                _log.warning("%s: derivatives of %d repositories were not looked up", release, len(queue) + 1)
                return
            listings += 1
            for summary in hub.list_models(tags=(f"base_model:{base}",)):
                if summary.repo.casefold() in seen:
                    continue
                seen.add(summary.repo.casefold())
                if level < self._levels:
                    queue.append((summary.repo, level + 1))
                yield Candidate(summary.repo, (Channel.DECLARED,), tag_claims(summary.tags))
