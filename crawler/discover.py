"""All channels together: which repositories may be forks of a release, and how each was found."""

from __future__ import annotations

from collections.abc import Iterable

from crawler.interface import Candidate, Channel, Claim, Hub, RepoId, Source
from crawler.sources.declared import DeclaredSource
from crawler.sources.names import NameSource
from crawler.sources.tags import TagSource


def default_sources(tags: tuple[str, ...] | None = None) -> tuple[Source, ...]:
    """Every channel with its default bounds.

    Args:
        tags: for the tag channel; None takes the usual ones, () leaves the channel out.
    """
    tagged = () if tags == () else (TagSource() if tags is None else TagSource(tags),)
    return (DeclaredSource(), *tagged, NameSource())


def discover(hub: Hub, release: RepoId, sources: Iterable[Source]) -> tuple[Candidate, ...]:
    """Candidates of all sources, one a repository, sorted by id; the release itself is none.

    An empty result is no error here: only the caller knows whether it means "no forks" or "looked nowhere".

    Raises:
        CrawlerError: a source failed; a partial answer would read as "no more forks".
    """
    return merge((found for source in sources for found in source.candidates(hub, release)), release)


def merge(candidates: Iterable[Candidate], release: RepoId) -> tuple[Candidate, ...]:
    """One candidate a repository, whatever the order of `candidates`; letter case makes no difference."""
    channels: dict[str, set[Channel]] = {}
    claims: dict[str, set[Claim]] = {}
    names: dict[str, RepoId] = {}
    for candidate in candidates:
        key = candidate.repo.casefold()
        if key == release.casefold():
            continue
        names[key] = min(candidate.repo, names.get(key, candidate.repo))
        channels.setdefault(key, set()).update(candidate.channels)
        claims.setdefault(key, set()).update(candidate.claims)
    return tuple(
        Candidate(
            names[key],
            tuple(channel for channel in Channel if channel in channels[key]),
            tuple(sorted(claims[key], key=_claim_order)),
        )
        for key in sorted(names)
    )


def _claim_order(claim: Claim) -> tuple[bool, str, str, str, bool]:
    return (claim.base is None, claim.base or "", claim.relation or "", claim.statement, claim.faithful)
