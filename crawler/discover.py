"""All channels together: which repositories may be forks of a release, and how each was found.

(0) The feed of everything that changed on the Hub since the last crawl goes past every channel: that is what
    makes a re-crawl cost a handful of calls, not one for each known fork.
(1) Each channel's own listings are walked, each from its own watermark; those that the feed covers, once.
(2) What was found can make more listings, and older readings, meaningful: again, until nothing is new.

A listing that was walked is kept in one transaction, so a kill costs at most that listing. The feed's first
watermark is taken before anything else is walked; what changes meanwhile is the next run's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from crawler.card import MODIFICATION_TAGS
from crawler.interface import (
    Candidate,
    Channel,
    Hub,
    ListQuery,
    Order,
    RepoId,
    RepoNotFoundError,
    RepoSummary,
)
from crawler.memory import NEVER_HAD_ROWS, Recollection
from crawler.sources.declared import DeclaredSource
from crawler.sources.interface import Batch, Listing, Memory, Reading, Source, Target
from crawler.sources.name import NameSource
from crawler.sources.namespace import NamespaceSource
from crawler.sources.rows import bases, speaks_of
from crawler.sources.shape import ShapeSource
from crawler.sources.statement import CARDS, StatementSource
from crawler.sources.tag import TagSource

_log = logging.getLogger(__name__)

FEED = "feed"
"""Key of the feed's watermark."""
_OVERLAP = timedelta(hours=1)
"""Re-listed before each watermark: the Hub's index lags behind its commits, and clocks differ."""
_PAGE = 1000
"""Rows, the Hub's largest page: one call."""
_MAX_ROWS = 100_000
"""Of one listing in one run: a hundred calls are what one account or one word can make us spend."""
_MAX_PASSES = 8
"""Over a dump: generations of forks that each stand above their parents in it."""


@dataclass(slots=True)
class Discovery:
    """What one run did. The candidates are in the memory."""

    listings: int = 0
    """Walked, the feed included."""
    rows: int = 0
    found: int = 0
    """Candidates that were not known before."""
    read: int = 0
    """Repositories whose card was read."""
    unread: int = 0
    """Cards left to the next run, because the budget was spent."""
    unlisted: int = 0
    """Listings left to the next run, because `max_listings` was reached; at least this many."""
    cut: list[str] = field(default_factory=list)
    """Listings of which only the newest rows were looked at."""
    feed_given_up: bool = False
    """The feed's gap was too long; every listing was walked from its own watermark."""


Told = Callable[[Batch], None]
"""Progress: called with each batch after it was kept."""


def untold(batch: Batch) -> None:
    """A `Told` for nobody."""


def default_sources(tags: tuple[str, ...] | None = None, *, cards: int = CARDS) -> tuple[Source, ...]:
    """Every channel with its default bounds; for one run, as budgets are spent.

    Args:
        tags: for the tag channel; None takes the usual ones, () leaves the channel out.
        cards: files read in one run to see what cards say.
    """
    marks = MODIFICATION_TAGS if tags is None else tags
    tagged = (TagSource(marks),) if marks else ()
    statement = StatementSource(marks, budget=cards)
    return (DeclaredSource(), *tagged, NameSource(), statement, NamespaceSource(), ShapeSource())


def describe(hub: Hub, release: RepoId) -> Target:
    """What is needed to look for a release's forks: one call.

    Raises:
        RepoNotFoundError: there is no such repository.
    """
    row = hub.summary(release)
    return Target(row.repo, row.shape, frozenset(bases(row)) - {row.repo})


def discover(  # noqa: PLR0913 - the last three by keyword
    hub: Hub,
    target: Target,
    sources: Sequence[Source],
    memory: Memory,
    *,
    since: datetime | None = None,
    max_listings: int = 20_000,
    max_rows: int = _MAX_ROWS,
    progress: Told = untold,
) -> Discovery:
    """Look for forks; what is found is in `memory` when it returns, and as far as it came when it raises.

    Finding nothing is no error here: only the caller knows whether it means "no forks" or "looked nowhere".

    Args:
        hub: where.
        target: from `describe`.
        sources: channels; their order makes no difference to what is found.
        memory: of this release.
        since: looks at what changed since then, whatever the watermarks say. It moves none beyond a gap.
        max_listings: walked in this run; the rest is the next run's.
        max_rows: newest rows of one listing that are looked at; older ones are given up, and said to be.
        progress: told about each batch.

    Raises:
        CrawlerError: a call failed; a partial answer would read as "no more forks".
    """
    bounds = _Bounds(since, max_listings, max_rows)
    crawl = _Crawl(hub, Recollection(target, memory), tuple(sources), memory, bounds, progress)
    crawl.feed()
    while crawl.round():
        pass
    crawl.finish()
    return crawl.done


def discover_in_bulk(  # noqa: PLR0913 - progress by keyword
    hub: Hub,
    target: Target,
    sources: Sequence[Source],
    memory: Memory,
    rows: Callable[[], Iterable[RepoSummary]],
    name: str,
    *,
    progress: Told = untold,
) -> Discovery:
    """Show every row of a dump of the Hub (`sources.bulk`) to every channel, as if it had been listed.

    It is read again while the last pass found parents whose children may stand above them in the file, and
    moves no watermark but its own: what happened since the dump is `discover`'s.

    Args:
        hub: where cards are read, of rows that have a commit.
        target: from `describe`.
        sources: channels.
        memory: of this release.
        rows: starts a pass over the dump.
        name: of the dump.
        progress: told about each pass.

    Raises:
        CrawlerError: the dump or a card could not be read.
    """
    crawl = _Crawl(hub, Recollection(target, memory), tuple(sources), memory, _Bounds(), progress)
    for _ in range(_MAX_PASSES):
        before = crawl.done.found
        crawl.take(f"bulk:{name}", rows())
        if crawl.done.found == before:
            break
    return crawl.done


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Of one run, as `discover` has them."""

    since: datetime | None = None
    max_listings: int = 0
    max_rows: int = _MAX_ROWS


@dataclass(slots=True)
class _Crawl:
    """One run."""

    hub: Hub
    family: Recollection
    sources: tuple[Source, ...]
    memory: Memory
    bounds: _Bounds
    progress: Told
    done: Discovery = field(default_factory=Discovery)
    walked: set[str] = field(default_factory=set)
    unread: set[RepoId] = field(default_factory=set)
    tried: set[Reading] = field(default_factory=set)
    """Of those that turned out to speak of the family."""
    feed_until: datetime | None = None
    """The feed's watermark once all listings are walked that stand in for it."""

    def feed(self) -> None:
        """(0): everything that changed, or nothing but a watermark when there was none."""
        query, mark = ListQuery(order=Order.MODIFIED), self.memory.watermark(FEED)
        first = (
            next(iter(self.hub.list_models(query)), None)
            if mark is None and self.bounds.since is None
            else None
        )
        if first is not None:
            # kept before anything is walked; and the hour before it is looked at although nobody asked,
            # because a run that is killed and starts again will
            mark = first.last_modified
            self._keep(Batch(FEED, mark, (), 0))
        start = self._start(mark)
        candidates: list[Candidate] = []
        newest, rows, given_up = mark, 0, False
        for row in self.hub.list_models(query, since=start):
            newest = _later(newest, row.last_modified)
            rows += 1
            candidates += self._recognised(row)
            if rows % _PAGE == 0 and self._too_far(rows, newest, row.last_modified, start):
                given_up = True
                break
        complete = not given_up and self._closes_gap(mark)
        self._keep(Batch(FEED, newest, tuple(candidates), rows, complete=complete))
        if given_up:
            _log.warning("%s: the Hub's feed since %s is too long; listings are walked", self._name, start)
            self.done.feed_given_up = True
            self.feed_until = newest if self._closes_gap(mark) else None

    def round(self) -> bool:
        """(1) and (2): every listing that is not walked yet; whether that was any, or found something."""
        before = self.done.listings, len(self.family.members())
        for source in self.sources:
            for listing in source.listings(self.family):
                if listing.key not in self.walked:
                    self.walked.add(listing.key)
                    self._walk(listing)
        self._reconsider()
        return before != (self.done.listings, len(self.family.members()))

    def take(self, key: str, rows: Iterable[RepoSummary]) -> None:
        """One pass over rows that no listing gave."""
        candidates: list[Candidate] = []
        count = 0
        for row in rows:
            count += 1
            candidates += self._recognised(row)
        self._keep(Batch(key, None, tuple(candidates), count))

    def finish(self) -> None:
        """The feed's new watermark, when other listings stood in for it and all of them were walked."""
        if self.feed_until is not None and not self.done.unlisted and not self.done.unread:
            self._keep(Batch(FEED, self.feed_until, (), 0))
        if self.done.unread or self.done.unlisted:
            _log.warning(
                "%s: %d cards and %d listings are left to the next run",
                self._name,
                self.done.unread,
                self.done.unlisted,
            )

    @property
    def readers_first(self) -> tuple[Source, ...]:
        """What a card says is known before likeness is judged, whatever the order of the sources."""
        return tuple(sorted(self.sources, key=lambda source: source.channel is not Channel.STATEMENT))

    @property
    def _name(self) -> RepoId:
        return self.family.target.release

    def _walk(self, listing: Listing) -> None:
        mark = self.memory.watermark(listing.key)
        if listing.once and mark is not None and not self.done.feed_given_up:
            return
        if self.done.listings >= self.bounds.max_listings:
            self.done.unlisted += 1
            return
        candidates: list[Candidate] = []
        newest, rows = mark, 0
        for row in self.hub.list_models(listing.query, since=self._start(mark)):
            if rows == self.bounds.max_rows:
                _log.warning("%s: only the newest %d rows of %a", self._name, rows, listing.key)
                self.done.cut.append(listing.key)
                break
            rows += 1
            newest = _later(
                newest, row.created_at if listing.query.order is Order.CREATED else row.last_modified
            )
            candidates += self._recognised(row)
        self._keep(Batch(listing.key, newest, tuple(candidates), rows, complete=self._closes_gap(mark)))

    def _reconsider(self) -> None:
        """What was looked at too early: the order of the listings must make no difference.

        A card that was read before its parent was known to belong to the family, and candidates whose account
        has published another one since.
        """
        channels = {source.channel for source in self.sources}
        rows = []
        if Channel.NAMESPACE in channels:
            known = filter(None, map(self.family.candidate, self.family.members()))
            rows = [one.seen for one in known if one.seen is not None and self._has_siblings(one)]
        if Channel.STATEMENT in channels:
            late = [one for one in self.family.readings() if one not in self.tried]
            late = [one for one in late if any(speaks_of(claim, self.family) for claim in one.claims)]
            self.tried.update(late)
            rows += [row for row in map(self._row, late) if row is not None]
        news = [one for row in rows for one in self._recognised(row) if self._is_news(one)]
        if news:
            self._keep(Batch("reconsidered", None, tuple(news), len(rows), complete=False))

    def _has_siblings(self, one: Candidate) -> bool:
        account = one.repo.partition("/")[0]
        return Channel.NAMESPACE not in one.channels and self.family.published(account, besides=one.repo)

    def _is_news(self, found: Candidate) -> bool:
        known = self.family.candidate(found.repo)
        return known is None or not set(found.channels) <= set(known.channels)

    def _row(self, reading: Reading) -> RepoSummary | None:
        """The row to a reading that is not used yet; one call when it is not remembered."""
        known = self.family.candidate(reading.repo)
        if known is not None and Channel.STATEMENT in known.channels:
            return None
        if known is not None and known.seen is not None and known.seen.commit == reading.commit:
            return known.seen
        try:
            return self.hub.summary(reading.repo)
        except RepoNotFoundError:
            return None

    def _recognised(self, row: RepoSummary) -> Iterator[Candidate]:
        if row.repo.casefold() == self._name.casefold():
            return
        for source in self.readers_first:
            found = source.recognise(self.hub, row, self.family)
            if found is not None:
                yield found

    def _start(self, mark: datetime | None) -> datetime | None:
        if self.bounds.since is not None:
            return self.bounds.since
        return None if mark is None or mark == NEVER_HAD_ROWS else mark - _OVERLAP

    def _closes_gap(self, mark: datetime | None) -> bool:
        """Whether a walk leaves nothing unseen behind its newest row."""
        return self.bounds.since is None or (mark is not None and self.bounds.since <= mark)

    def _too_far(
        self, rows: int, newest: datetime | None, reached: datetime | None, start: datetime | None
    ) -> bool:
        """Whether the feed will cost more pages than walking what it stands for, at one call a listing.

        Judged at the end of each page by the time that the pages so far reach back.
        """
        instead = len(self.family.members()) + len(self.family.accounts())
        pages = rows // _PAGE
        if pages > instead:
            return True
        if newest is None or reached is None or start is None or reached >= newest:
            return False
        return pages * ((newest - start) / (newest - reached)) > instead

    def _keep(self, batch: Batch) -> None:
        self.unread.update(self.family.unread)
        self.done.unread = len(self.unread)
        known = len(self.family.members())
        kept = self.family.keep(batch)
        self.done.found += len(self.family.members()) - known
        self.done.read += len(kept.readings)
        self.done.rows += batch.rows
        self.done.listings += 1
        self.progress(kept)


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return one or other
    return max(one, other)
