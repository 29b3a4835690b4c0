"""Repositories whose card, or `reproduce/reproduce.json`, says in words that they were made from the release.

The tools that remove refusals push the parent's card with one sentence on top, and the parent's metadata: the
sentence alone tells the truth. Cards are the only thing that discovery reads, so it chooses:

(1) rows tagged as having refusals removed, or of the release's shape;
(2) of those, the ones that declare no base, or only what the release itself declares;
(3) and never one whose known shape cannot be the release's.

One call a card, and one more for a `reproduce.json`; at one commit, once ever.
"""

from __future__ import annotations

from collections.abc import Iterator

from crawler.card import MODIFICATION_TAGS, reproduction_claim, statement_claims
from crawler.interface import (
    Access,
    AccessDeniedError,
    Candidate,
    Channel,
    Claim,
    Commit,
    CrawlerError,
    FileMissingError,
    Hub,
    HubUnavailableError,
    RepoId,
    RepoNotFoundError,
    RepoSummary,
    TooLargeError,
)
from crawler.sources.interface import FATAL, Family, Listing, Reading, Source
from crawler.sources.rows import bases, candidate, inherits, is_ancestor, may_fit, same_shape, speaks_of

REPRODUCTION = "reproduce/reproduce.json"
CARDS = 10_000
"""Files read in one run: what the Hub allows a free account in ten minutes, beside its API calls."""
_DEAD = 10
"""Cards in a row that the Hub fails to give; from then on twice as many are passed over after each failure:
a Hub without cards costs a few calls, and a row of broken ones does not hide what comes after it."""
_REPRODUCIBLE = "reproducible"
"""The tag of uploads that carry `REPRODUCTION`."""
_SMALL = 1 << 18
"""Bytes of a card or of a `reproduce.json` (30 kB in practice) that are read."""
_SILENT = (FileMissingError, TooLargeError)
"""What makes a card one that says nothing, at this commit and forever."""


class StatementSource(Source):
    """Has no listing of its own: the rows to read are those of the tags and of the shape."""

    channel = Channel.STATEMENT

    def __init__(self, tags: tuple[str, ...] = MODIFICATION_TAGS, *, budget: int = CARDS) -> None:
        """Bound the reading.

        Args:
            tags: which mark a row as worth a read.
            budget: calls in one run. A listing with cards left unread is not finished: the next run goes on.
        """
        self._tags = frozenset(tag.casefold() for tag in tags)
        self._budget = budget
        self._refused: set[tuple[RepoId, Commit]] = set()
        self._failed: set[tuple[RepoId, Commit]] = set()
        self._failures = 0
        """In a row."""
        self._passed_over = 0
        """Cards that are not asked for before the next one is."""

    def listings(self, family: Family) -> Iterator[Listing]:
        """None."""
        del family
        return iter(())

    def recognise(self, hub: Hub, row: RepoSummary, family: Family) -> Candidate | None:
        """A row whose words name the release or a member as the parent.

        A card that the Hub fails to give is left to the next run.
        """
        if not self._worth_reading(row, family):
            return None
        claims = self._read(hub, row, family)
        if not any(speaks_of(claim, family) for claim in claims):
            return None
        return candidate(row, Channel.STATEMENT, *claims)

    def _worth_reading(self, row: RepoSummary, family: Family) -> bool:
        if row.commit is None or row.access is Access.DISABLED or is_ancestor(row, family):
            return False
        tagged = any(tag.casefold() in self._tags for tag in row.tags)  # (1)
        if not tagged and not same_shape(row, family):
            return False
        if bases(row) and not inherits(row, family):  # (2)
            return False
        return may_fit(row, family)  # (3)

    def _read(self, hub: Hub, row: RepoSummary, family: Family) -> tuple[Claim, ...]:
        commit = row.commit
        if commit is None or (row.repo, commit) in self._refused:
            return ()
        known = family.reading(row.repo, commit)
        if known is not None:
            return known.claims
        paths = ("README.md", REPRODUCTION) if _REPRODUCIBLE in row.tags else ("README.md",)
        if self._budget < len(paths) or self._passed_over or (row.repo, commit) in self._failed:
            self._passed_over = max(0, self._passed_over - 1)
            family.left_unread(row.repo)
            return ()
        self._budget -= len(paths)
        try:
            claims = tuple(claim for path in paths for claim in _claims(hub, row.repo, commit, path))
        except (AccessDeniedError, RepoNotFoundError):
            self._refused.add((row.repo, commit))
            return ()  # gated or gone: no news about the release, and not noted, as it may be opened
        except FATAL:
            raise
        except CrawlerError as error:
            self._failed.add((row.repo, commit))
            self._failures += isinstance(error, HubUnavailableError)
            self._passed_over = 2 ** (self._failures - _DEAD) if self._failures >= _DEAD else 0
            family.left_unread(row.repo)
            return ()
        self._failures = 0
        family.note(Reading(row.repo, commit, claims))
        return claims


def _claims(hub: Hub, repo: RepoId, commit: Commit, path: str) -> tuple[Claim, ...]:
    """What one file says."""
    try:
        text = hub.peek(repo, commit, path, _SMALL)
    except _SILENT:
        return ()
    if path == REPRODUCTION:
        claim = reproduction_claim(text)
        return () if claim is None else (claim,)
    return statement_claims(text)
