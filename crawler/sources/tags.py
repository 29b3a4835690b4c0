"""Repositories tagged as having their refusals removed, when something about them points at the release.

The common tools set these tags and no `base_model` (or inherit the release's own base), so this channel finds
what the declared one cannot. Thousands of repositories carry the tags; a hit becomes a candidate when

(1) its name contains the release's name, or its tags name the release;
(2) else, its card names the release. Cards are read for the newest few hits only, and not for those that
    declare a base which is neither the release nor one of the release's own: they are somebody else's forks.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from crawler.card import MODIFICATION_TAGS, tag_claims
from crawler.interface import (
    AccessDeniedError,
    Candidate,
    Channel,
    Claim,
    Hub,
    RefusedSnapshotError,
    RepoId,
    RepoNotFoundError,
    RepoSummary,
)
from crawler.related import mentions, name_stem


class TagSource:
    """Two listings a tag, one call for the release, and at most two for each card that is read."""

    channel = Channel.TAG

    def __init__(
        self, tags: tuple[str, ...] = MODIFICATION_TAGS, *, newest: int = 500, max_cards: int = 50
    ) -> None:
        """Choose the tags and bound the calls.

        Args:
            tags: each is searched for on its own.
            newest: hits looked at beyond those that the Hub's search by name finds, for each tag.
            max_cards: cards read in one run.
        """
        self._tags = tags
        self._newest = newest
        self._max_cards = max_cards

    def candidates(self, hub: Hub, release: RepoId) -> Iterator[Candidate]:
        """Candidates, each with the tag that found it among its claims."""
        hits = self._hits(hub, release)
        own_bases: frozenset[RepoId] | None = None
        cards = 0
        for repo, (summary, found) in hits.items():
            claims = (Claim(None, None, f"tag: {found}"), *tag_claims(summary.tags))
            bases = {claim.base for claim in claims if claim.base}
            if release in bases or mentions(repo.partition("/")[2], release):
                yield Candidate(repo, (Channel.TAG,), claims)
                continue
            if own_bases is None:
                own_bases = _bases(hub, release)
            if cards == self._max_cards or (bases and not bases & own_bases):
                continue
            cards += 1
            said = _claims(hub, repo)
            if any(claim.base == release or mentions(claim.statement, release) for claim in said):
                yield Candidate(repo, (Channel.TAG,), tuple(dict.fromkeys((*claims, *said))))

    def _hits(self, hub: Hub, release: RepoId) -> dict[RepoId, tuple[RepoSummary, str]]:
        """Every tagged repository to look at, and the tag: those with the release's name, then the newest."""
        found: dict[RepoId, tuple[RepoSummary, str]] = {}
        stem = name_stem(release)
        listings = [
            *((tag, hub.list_models(tags=(tag,), search=stem)) for tag in self._tags),
            *((tag, islice(hub.list_models(tags=(tag,)), self._newest)) for tag in self._tags),
        ]
        for tag, listing in listings:
            for summary in listing:
                if summary.repo.casefold() != release.casefold():
                    found.setdefault(summary.repo, (summary, tag))
        return found


def _claims(hub: Hub, repo: RepoId) -> tuple[Claim, ...]:
    """What a repository says; nothing when it cannot be read, which is no news about the release."""
    try:
        return hub.snapshot(repo).claims
    except (AccessDeniedError, RefusedSnapshotError, RepoNotFoundError):
        return ()


def _bases(hub: Hub, release: RepoId) -> frozenset[RepoId]:
    return frozenset(claim.base for claim in _claims(hub, release) if claim.base)
