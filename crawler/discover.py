"""All channels together: which repositories may be forks of a release, and how each was found.

(0) The feed of everything that changed on the Hub since the last crawl goes past every channel: that is what
    makes a re-crawl cost a handful of calls, not one for each known fork.
(1) Each channel's own listings are walked, each from its own watermark; those that the feed covers, once;
    the release's own children in full, as one may be made public long after its dates.
(2) What was found can make more listings, and older readings, meaningful: again, until nothing is new.

Each walk is kept in one transaction: a kill costs at most one listing, or one pass over a dump. The feed's
first watermark is taken before anything else is walked; what changes meanwhile is the next run's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime

from crawler.card import MODIFICATION_TAGS
from crawler.interface import Channel, Hub, RepoId, RepoSummary
from crawler.memory import Recollection
from crawler.sources.declared import DeclaredSource
from crawler.sources.interface import Memory, Source, Target
from crawler.sources.name import NameSource
from crawler.sources.namespace import NamespaceSource
from crawler.sources.rows import bases
from crawler.sources.shape import ShapeSource
from crawler.sources.statement import CARDS, StatementSource
from crawler.sources.tag import TagSource
from crawler.walk import MAX_ROWS, Bounds, Crawl, Discovery, Progress, unwatched

_MAX_PASSES = 8
"""Over a dump: generations of forks that each stand above their parents in it."""


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


def discover(  # noqa: PLR0913 - bounds by keyword
    hub: Hub,
    target: Target,
    sources: Sequence[Source],
    memory: Memory,
    *,
    walk: Collection[Channel] | None = None,
    aside: bool = False,
    since: datetime | None = None,
    now: datetime | None = None,
    max_listings: int = 20_000,
    max_rows: int = MAX_ROWS,
    progress: Progress = unwatched,
) -> Discovery:
    """Look for forks; what is found is in `memory` when it returns, and as far as it came when it raises.

    Finding nothing is no error here: only the caller knows whether it means "no forks" or "looked nowhere".

    Args:
        hub: where.
        target: from `describe`.
        sources: channels that look at every row; their order makes no difference to what is found. Leaving
            one out of some runs loses what it would have recognised: `walk` is for that.
        memory: of this release.
        walk: only the listings of these channels, or of all.
        aside: a look between the regular runs, which leaves the feed to them.
        since: looks at what changed since then, whatever the watermarks say. It moves none beyond a gap.
        now: no watermark is later; by default, this machine's time.
        max_listings: walked in this run; the rest is the next run's.
        max_rows: newest rows of one listing that are looked at; older ones are given up, and said to be
            in this run and in each later one.
        progress: told about each batch.

    Raises:
        CrawlerError: nothing could be listed, or three listings in a row could not; a single one that fails
            is in `Discovery.failed`, as a partial answer would read as "no more forks".
    """
    bounds = Bounds(
        now=now or datetime.now(UTC),
        since=since,
        max_listings=max_listings,
        max_rows=max_rows,
        walk=frozenset(Channel) if walk is None else walk,
        aside=aside,
    )
    crawl = Crawl(hub, Recollection(target, memory), tuple(sources), memory, bounds, progress)
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
    progress: Progress = unwatched,
) -> Discovery:
    """Show every row of a dump of the Hub (`sources.bulk`) to every channel, as if it had been listed.

    It is read again while the last pass found parents whose children may stand above them in the file, and
    is complete after the last pass: a kill costs another reading, but not what was found. It moves no
    watermark but its own: what happened since the dump is `discover`'s.

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
    bounds = Bounds(now=datetime.now(UTC))
    crawl = Crawl(hub, Recollection(target, memory), tuple(sources), memory, bounds, progress)
    key = f"bulk:{name}"
    for _ in range(_MAX_PASSES):
        before = crawl.done.found
        crawl.take(key, rows())
        if crawl.done.found == before:
            crawl.close(key)
            return crawl.done
    crawl.done.unfinished = name
    return crawl.done
