"""Stage 1 for one release: find candidates, keep what became of the known ones, and say what was left out.

(1) A dump of the Hub's table, if there is one and it was not read yet.
(2) `discover`: what changed on the Hub, and each channel's own listings, from their watermarks.
(3) `refresh`: a look at repositories that are known.

Each step keeps what it has in transactions of its own, so a killed crawl goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from crawler.discover import default_sources, describe, discover, discover_in_bulk
from crawler.history import Event
from crawler.interface import Channel, Cost, RepoId
from crawler.refresh import LastSeen, refresh
from crawler.sources.bulk import bulk_rows
from crawler.sources.interface import Batch, Source, Target
from crawler.walk import Discovery
from forkwatch.errors import SettingsError
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.dump import find_dump, on_disk
from forkwatch.store.memory import StoreMemory
from forkwatch.store.values import Known

GONE_AGAIN = timedelta(days=7)
"""How often a repository that is gone is asked for. Listings show one that is back sooner than that."""
_TALK = 2.0
"""Seconds between two lines of progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crawl:
    """What a crawl did, and what is known after it."""

    candidates: tuple[Known, ...]
    """All that are known, the gone ones included."""
    new: frozenset[RepoId]
    events: tuple[Event, ...]
    listings: int
    rows: int
    looked: int
    """Known repositories that were looked at again."""
    left_out: tuple[str, ...]
    """What was not looked at, one sentence each. Empty when the crawl is complete."""
    cost: Cost

    @property
    def present(self) -> tuple[Known, ...]:
        """Candidates that are there."""
        return tuple(known for known in self.candidates if known.gone_at is None)

    def by_channel(self) -> dict[Channel, int]:
        """How many of the candidates that are there each channel has found."""
        counts = {channel: sum(channel in known.channels for known in self.present) for channel in Channel}
        return {channel: count for channel, count in counts.items() if count}


def crawl(
    context: Context,
    release_id: int,
    release: RepoId,
    *,
    channels: Sequence[Channel] | None = None,
    since: datetime | None = None,
) -> Crawl:
    """Find candidates of one release.

    Args:
        context: surroundings.
        release_id: of the guarded release.
        release: its repository.
        channels: only the listings of these are walked, as a look between regular crawls: the known
            repositories, the dump and the feed's watermark are left alone. None: those of the settings.
        since: looks at what changed since then, whatever earlier crawls have seen.

    Raises:
        CrawlerError: the Hub failed; what was finished is kept.
        SettingsError: no channel is left to look through, or the dump cannot be read.
    """
    before = context.hub.cost
    memory = StoreMemory(context.store, release_id)
    walked = walked_channels(context, channels)
    options = context.settings.crawl
    sources = default_sources(options.tags, cards=options.cards)  # all of them look at every row
    told = _Told(context)
    context.talk.stage(release, "discover")
    target = describe(context.hub, release)
    done = [] if channels is not None else _from_dump(context, target, sources, memory, told)
    listed = discover(
        context.hub,
        target,
        sources,
        memory,
        walk=walked,
        aside=channels is not None,
        since=since,
        now=context.now(),
        progress=told,
    )
    done.append(listed)
    told.end()
    looked, left_out = 0, list[str]()
    if channels is None:
        context.talk.stage(release, "look again at known forks")
        looked, left_out = look_again(context, target, memory, listed)
    return Crawl(
        candidates=context.store.candidates(release_id),
        new=frozenset(memory.kept.new),
        events=tuple(memory.kept.events),
        listings=sum(one.listings for one in done),
        rows=sum(one.rows for one in done),
        looked=looked,
        left_out=(*(reason for one in done for reason in _left_out(one)), *left_out),
        cost=context.hub.cost - before,
    )


def walked_channels(context: Context, channels: Sequence[Channel] | None) -> Collection[Channel]:
    """Channels whose listings are walked: the chosen ones, or those of the settings.

    Raises:
        SettingsError: there is none.
    """
    options = context.settings.crawl
    wanted = {Channel(name) for name in options.channels} if channels is None else set(channels)
    if not options.tags:
        wanted.discard(Channel.TAG)
    if not wanted:
        raise SettingsError(
            "no channel is left to look through", tip="Check --channel, and channels and tags in [crawl]."
        )
    return frozenset(wanted)


def look_again(
    context: Context, target: Target, memory: StoreMemory, listed: Discovery
) -> tuple[int, list[str]]:
    """A look at known repositories, within the budget; how many were looked at, and which could not be."""
    now = context.now()
    known = [
        LastSeen(known.summary, known.observed_at, gone=known.gone_at is not None)
        for known in memory.known()
        if known.gone_at is None or now - known.observed_at >= GONE_AGAIN
    ]
    rows = listed.children
    if rows is None and listed.failed:
        rows = []  # the listing may be what fails: then by name, within the budget
    failed: dict[RepoId, str] = {}
    budget = context.settings.crawl.refresh_calls
    looked = memory.check(refresh(context.hub, target, known, budget, listed=rows, failed=failed))
    return looked - len(failed), [f"{repo} could not be looked at: {why}" for repo, why in failed.items()]


def _from_dump(
    context: Context, target: Target, sources: tuple[Source, ...], memory: StoreMemory, told: _Told
) -> list[Discovery]:
    """Read the settings' dump, once."""
    place = context.settings.crawl.bulk
    if place is None:
        return []
    dump = find_dump(context, place)
    if memory.watermark(f"bulk:{dump.name}") is not None:
        return []
    context.talk.stage(target.release, f"read {dump.label}")
    try:
        with on_disk(context, dump) as path:
            return [
                discover_in_bulk(
                    context.hub,
                    target,
                    sources,
                    memory,
                    lambda: bulk_rows(path, dump.label),
                    dump.name,
                    progress=told,
                )
            ]
    except ModuleNotFoundError as error:
        raise SettingsError("reading crawl.bulk needs pyarrow", tip="Install forkwatch[bulk].") from error


def _left_out(done: Discovery) -> list[str]:
    reasons = [f"only the newest rows of {key} were ever looked at" for key in done.cut]
    reasons += [f"{key} was not walked to its end: {why}" for key, why in done.failed.items()]
    if done.unfinished:
        reasons.append(f"{done.unfinished} has to be read once more")
    if done.unread:
        reasons.append(f"{done.unread} cards were not read: the budget is spent, or the Hub failed")
    if done.unlisted:
        reasons.append(f"{done.unlisted} listings were not walked: there are too many")
    return reasons


@dataclass(slots=True)
class _Told:
    """Progress: a line a channel, and one every other second while it goes on."""

    context: Context
    began: Cost = field(init=False)
    rows: int = 0
    found: set[RepoId] = field(default_factory=set)
    channel: str = ""
    spoke: float = 0.0

    def __post_init__(self) -> None:
        self.began = self.context.hub.cost

    def __call__(self, batch: Batch) -> None:
        self.rows += batch.rows
        self.found.update(candidate.repo for candidate in batch.candidates)
        channel = batch.listing.partition(":")[0]
        now = time.monotonic()
        if channel != self.channel or now - self.spoke >= _TALK:
            self.channel, self.spoke = channel, now
            self._say(batch.listing)

    def end(self) -> None:
        """The sum."""
        self._say("all listings")

    def _say(self, what: str) -> None:
        calls = (self.context.hub.cost - self.began).requests
        self.context.talk.note(
            f"{what}: {self.rows:,} rows, {len(self.found):,} candidates, {calls:,} calls so far"
        )
