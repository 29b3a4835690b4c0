"""What a discovery channel is, and what a crawl remembers. Read this first, then one of the channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from crawler.interface import (
    BadTokenError,
    Candidate,
    Channel,
    Claim,
    Commit,
    Hub,
    NoSpaceError,
    RepoId,
    RepoSummary,
    Shape,
)
from crawler.query import ListQuery

FATAL = (BadTokenError, NoSpaceError)
"""Errors about us, which end a crawl; any other `CrawlerError` is about one repository or listing."""


@dataclass(frozen=True, slots=True)
class Target:
    """The release whose forks are looked for."""

    release: RepoId
    shape: Shape | None
    bases: frozenset[RepoId] = frozenset()
    """What the release itself declares as its base: its forks often inherit that card."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One walk over a model listing, with a watermark of its own."""

    key: str
    """Stable name, e.g. `declared:org/name`; the watermark is kept under it."""
    query: ListQuery
    once: bool = False
    """Walked in full once; afterwards the feed of recent changes covers it."""
    full: bool = False
    """Walked in full in every run, whatever its watermark; one listing of a target at most."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the card of a repository said at one commit, so that it is never read twice."""

    repo: RepoId
    commit: Commit
    claims: tuple[Claim, ...]
    """Those of its sentences and of `reproduce.json`; empty when it says nothing or cannot be read."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one walk over a listing found: kept in one transaction, with its new watermark."""

    listing: str
    newest: datetime | None
    """Date of the newest row by the listing's order, in this walk or an earlier one; None: no rows ever."""
    candidates: tuple[Candidate, ...]
    rows: int
    """Rows looked at."""
    complete: bool = True
    """False: the rest is the next run's, so candidates and readings are kept and the watermark stays."""
    readings: tuple[Reading, ...] = ()


class Memory(Protocol):
    """What a crawl of one release remembers between runs, and between a kill and a restart."""

    def watermark(self, listing: str) -> datetime | None:
        """Date of the newest row of the last finished walk; `datetime.min` (UTC) when that had no rows.

        None: never finished.
        """
        ...

    def members(self) -> Mapping[RepoId, Candidate]:
        """Every candidate kept so far, this run's included; the release itself is none."""
        ...

    def readings(self) -> Mapping[RepoId, Reading]:
        """The last reading kept of each repository whose card was read."""
        ...

    def keep(self, batch: Batch) -> None:
        """Keep candidates (merged with those of the same repository), readings and watermark: all or none."""
        ...


class Family(Protocol):
    """A release and what is known of its forks by now, as the sources see it. Letter case is ignored."""

    @property
    def target(self) -> Target: ...

    def __contains__(self, repo: str) -> bool:
        """Whether it is the release or a candidate; text that is no repository's id is neither."""
        ...

    def members(self) -> Sequence[RepoId]:
        """Candidates in the order in which they became known; it grows while listings are walked."""
        ...

    def accounts(self) -> Sequence[str]:
        """Accounts that published a candidate that something points at, in the order they became known."""
        ...

    def published(self, account: str, *, besides: RepoId) -> bool:
        """Whether the account published such a candidate other than this one."""
        ...

    def reading(self, repo: RepoId, commit: Commit) -> Reading | None:
        """What the card said, if it was read at this commit."""
        ...

    def note(self, reading: Reading) -> None:
        """Remember a reading; it is kept with the batch."""
        ...

    def left_unread(self, repo: RepoId) -> None:
        """A card that should be read was not, for want of budget or answer: the listing is not complete."""
        ...


class Source(Protocol):
    """One channel that finds candidates for a release."""

    @property
    def channel(self) -> Channel: ...

    def listings(self, family: Family) -> Iterator[Listing]:
        """Listings to walk. Consumed lazily: what earlier ones found is in the family by then."""
        ...

    def recognise(self, hub: Hub, row: RepoSummary, family: Family) -> Candidate | None:
        """Whether a row of any listing is a candidate by this channel, with its claims and evidence.

        A law that the driver rests on: what is recognised stays recognised as the family grows.
        """
        ...
