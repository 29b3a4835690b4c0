"""What a discovery channel is, and what a crawl remembers. Read this first, then one of the channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from crawler.interface import Candidate, Channel, Hub, ListQuery, RepoId, RepoSummary, Shape


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


@dataclass(frozen=True, slots=True)
class Batch:
    """What one finished listing found: kept in one transaction, with its new watermark."""

    listing: str
    newest: datetime | None
    """Date of the newest row, by the listing's order; None when it had no rows."""
    candidates: tuple[Candidate, ...]
    rows: int
    """Rows looked at."""


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

    def keep(self, batch: Batch) -> None:
        """Keep candidates and watermark, both or neither."""
        ...


class Source(Protocol):
    """One channel that finds candidates for a release."""

    @property
    def channel(self) -> Channel: ...

    def listings(self, target: Target, memory: Memory) -> Iterator[Listing]:
        """Listings to walk. Consumed lazily: what earlier ones found is in the memory by then."""
        ...

    def recognise(self, hub: Hub, row: RepoSummary, target: Target, memory: Memory) -> Candidate | None:
        """Whether a row of any listing is a candidate by this channel, with its claims and evidence."""
        ...
