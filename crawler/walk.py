"""One run of a crawl: which listings it walks, what it shows to the channels, what it keeps.

`discover` says what is done in which order; here is how. Every row goes past every channel, whichever
listing it came from; a listing that fails is one of the next run's, and ends this run only when the Hub
seems to be dead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from crawler.interface import (
    Candidate,
    Channel,
    CrawlerError,
    Hub,
    HubUnavailableError,
    RepoId,
    RepoNotFoundError,
    RepoSummary,
)
from crawler.memory import NEVER_HAD_ROWS, Recollection
from crawler.query import ListQuery, Order
from crawler.sources.interface import FATAL, Batch, Listing, Memory, Reading, Source
from crawler.sources.rows import speaks_of

_log = logging.getLogger(__name__)

FEED = "feed"
"""Key of the feed's watermark."""
MAX_ROWS = 100_000
"""Of one listing in one run: a hundred calls are what one account or one word can make us spend."""
_OVERLAP = timedelta(hours=1)
"""Re-listed before each watermark: the Hub's index lags behind its commits, and clocks differ."""
_PAGE = 1000
"""Rows, the Hub's largest page: one call."""
_DEAD = 3
"""Listings in a row that fail before the Hub counts as out of order."""
_CUT = "cut"
"""Key of a mark that says that some listing was cut; `cut:<key>` says which."""


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
    """Cards left to the next run: the budget was spent, or the Hub failed to give them."""
    unlisted: int = 0
    """Listings left to the next run, because `max_listings` was reached; at least this many."""
    cut: list[str] = field(default_factory=list)
    """Listings of which only the newest rows were looked at, in this run or in an earlier one."""
    failed: dict[str, str] = field(default_factory=dict)
    """Listings that could not be walked to their end, and why. The next run walks them again."""
    unfinished: str = ""
    """A dump that would have to be read once more."""
    feed_skipped: bool = False
    """The feed's gap was too long; every listing was walked from its own watermark."""
    children: list[RepoSummary] | None = None
    """Rows of the listing that is walked in full in every run; None: it was not, or not to its end."""


Progress = Callable[[Batch], None]
"""Called with each batch after it was kept."""


def unwatched(batch: Batch) -> None:
    """A `Progress` for nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Of one run, as `discover` has them."""

    now: datetime
    since: datetime | None = None
    max_listings: int = 0
    max_rows: int = MAX_ROWS
    walk: Collection[Channel] = frozenset(Channel)
    aside: bool = False


@dataclass(slots=True)
class Crawl:
    """One run."""

    hub: Hub
    family: Recollection
    sources: tuple[Source, ...]
    memory: Memory
    bounds: Bounds
    progress: Progress
    done: Discovery = field(default_factory=Discovery)
    walked: set[str] = field(default_factory=set)
    unread: set[RepoId] = field(default_factory=set)
    tried: set[Reading] = field(default_factory=set)
    """Of those that turned out to speak of the family."""
    feed_until: datetime | None = None
    """The feed's watermark once all listings are walked that stand in for it."""
    failures: int = 0
    """Listings that failed since the last one that did not."""
    worked: bool = False
    """Whether any listing could be walked."""
    any_cut: bool = False
    """Whether any listing was ever cut."""

    def __post_init__(self) -> None:
        self.any_cut = self.memory.watermark(_CUT) is not None

    def feed(self) -> None:
        """Everything that changed, or nothing but a watermark when there was none.

        A run aside takes no first watermark, and leaves the one that is there.
        """
        query, mark = ListQuery(order=Order.MODIFIED), self.memory.watermark(FEED)
        if mark is None and self.bounds.since is None:
            if self.bounds.aside:
                return
            with self._listing(FEED):
                first = next(iter(self.hub.list_models(query)), None)
                if first is not None:
                    # kept before anything is walked; and the hour before it is looked at although nobody
                    # asked, because a run that is killed and starts again will
                    mark = self._dated(first.last_modified)
                    self._keep(Batch(FEED, mark, (), 0))
            if FEED in self.done.failed:
                return
        start = self._start(mark)
        candidates: list[Candidate] = []
        newest, rows, skipped = mark, 0, False
        with self._listing(FEED):
            for row in self.hub.list_models(query, since=start):
                newest = _later(newest, self._dated(row.last_modified))
                rows += 1
                candidates += self._recognised(row)
                if rows % _PAGE == 0 and self._too_far(rows, newest, row.last_modified, start):
                    skipped = True
                    break
        whole = not skipped and FEED not in self.done.failed
        closes = self._closes_gap(mark) and not self.bounds.aside
        self._keep(Batch(FEED, newest, tuple(candidates), rows, complete=whole and closes))
        if skipped:
            _log.warning("%s: the Hub's feed since %s is too long; listings are walked", self._name, start)
            self.done.feed_skipped = True
            self.feed_until = newest if closes else None

    def round(self) -> bool:
        """Every listing that is not walked yet; whether that was any, or found something."""
        before = self.done.listings, len(self.family.members())
        for source in self.sources:
            for listing in source.listings(self.family):
                if listing.key not in self.walked and self._chosen(source, listing):
                    self.walked.add(listing.key)
                    self._walk(listing)
        self._reconsider()
        return before != (self.done.listings, len(self.family.members()))

    def take(self, key: str, rows: Iterable[RepoSummary]) -> None:
        """One pass over rows that no listing gave. It is not complete: `close` is called after the last."""
        candidates: list[Candidate] = []
        count = 0
        for row in rows:
            count += 1
            candidates += self._recognised(row)
        self._keep(Batch(key, None, tuple(candidates), count, complete=False))

    def close(self, key: str) -> None:
        """No pass is left to be made over these rows."""
        if not self.unread:
            self._keep(Batch(key, None, (), 0))

    def finish(self) -> None:
        """The feed's new watermark, when other listings stood in for it and all of them were walked.

        Raises:
            HubUnavailableError: not one listing could be walked.
        """
        if self.done.failed and not self.worked:
            raise HubUnavailableError(f"{self._name}: {next(iter(self.done.failed.values()))}")
        left = self.done.unlisted or self.done.unread or self.done.failed
        if self.feed_until is not None and not left:
            self._keep(Batch(FEED, self.feed_until, (), 0))
        if left:
            _log.warning(
                "%s: %d cards and %d listings are left to the next run",
                self._name,
                self.done.unread,
                self.done.unlisted + len(self.done.failed),
            )

    @property
    def readers_first(self) -> tuple[Source, ...]:
        """What a card says is known before likeness is judged, whatever the order of the sources."""
        return tuple(sorted(self.sources, key=lambda source: source.channel is not Channel.STATEMENT))

    @property
    def _name(self) -> RepoId:
        return self.family.target.release

    def _chosen(self, source: Source, listing: Listing) -> bool:
        """Whether a listing is walked. Those that the feed covers stand in for it, whoever chose what."""
        stands_in = listing.once and self.done.feed_skipped and not self.bounds.aside
        return source.channel in self.bounds.walk or stands_in

    def _walk(self, listing: Listing) -> None:
        mark = self.memory.watermark(listing.key)
        was_cut = self.any_cut and self.memory.watermark(f"{_CUT}:{listing.key}") is not None
        if was_cut:
            self.done.cut.append(listing.key)
        if listing.once and mark is not None and not self.done.feed_skipped:
            return
        if self.done.listings >= self.bounds.max_listings:
            self.done.unlisted += 1
            return
        candidates: list[Candidate] = []
        seen: list[RepoSummary] = []
        newest, rows, start = mark, 0, self.bounds.since if listing.full else self._start(mark)
        with self._listing(listing.key):
            for row in self.hub.list_models(listing.query, since=start):
                if rows == self.bounds.max_rows:
                    self._cut(listing.key, rows)
                    break
                rows += 1
                date = row.created_at if listing.query.order is Order.CREATED else row.last_modified
                newest = _later(newest, self._dated(date))
                candidates += self._recognised(row)
                if listing.full:
                    seen.append(row)
        whole = listing.key not in self.done.failed
        # without a watermark of the feed nothing would look at what comes after a walk that is made once
        covered = not listing.once or self.memory.watermark(FEED) is not None
        complete = whole and covered and self._closes_gap(mark)
        self._keep(Batch(listing.key, newest, tuple(candidates), rows, complete=complete))
        if listing.full and whole and start is None:
            self.done.children = seen

    @contextmanager
    def _listing(self, key: str) -> Iterator[None]:
        """Let a listing fail: what was found in it is kept, and the next run walks it again.

        Raises:
            CrawlerError: the third in a row; or it is about us, not about the listing.
        """
        try:
            yield
        except FATAL:
            raise
        except CrawlerError as error:
            _log.warning("%s: %a was not walked to its end: %s", self._name, key, error)
            self.done.failed[key] = str(error)
            self.failures += 1
            if self.failures >= _DEAD:
                raise
        else:
            self.failures, self.worked = 0, True

    def _cut(self, key: str, rows: int) -> None:
        """Say, in this run and in all later ones, that a listing was not walked to its end."""
        _log.warning("%s: only the newest %d rows of %a", self._name, rows, key)
        if key not in self.done.cut:
            self.done.cut.append(key)
            self.memory.keep(Batch(_CUT, self.bounds.now, (), 0))
            self.memory.keep(Batch(f"{_CUT}:{key}", self.bounds.now, (), 0))

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
        except FATAL:
            raise
        except CrawlerError as error:
            _log.warning("%s: %s", self._name, error)
            self.unread.add(reading.repo)  # the reading is kept: the next run asks again
            self.done.unread = len(self.unread)
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

    def _dated(self, date: datetime | None) -> datetime | None:
        """A row's date as a watermark: one in the future would hide all that comes until then."""
        return None if date is None else min(date, self.bounds.now)

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
