"""What became of the forks that are known, at next to no cost.

One listing of the release's declared forks, a thousand to a call, tells presence, commit, downloads, likes
and access of most of them. The others are asked for by name within a budget: half of it goes to those that
the listing should have, and the rest to whatever was looked at longest ago.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from crawler.interface import CrawlerError, Hub, HubUnavailableError, RepoId, RepoNotFoundError, RepoSummary
from crawler.query import ListQuery, Order
from crawler.sources.interface import FATAL, Target
from crawler.walk import MAX_ROWS

_LEAST_BUDGET = 20
"""Calls."""
_SHARE = 0.01
"""Of the known repositories, looked at by name in one run."""
_DEAD = 3
"""Looks in a row that fail before the rest is left to the next run."""


@dataclass(frozen=True, slots=True)
class LastSeen:
    """A repository as it was seen last, and when."""

    summary: RepoSummary
    checked: datetime
    gone: bool = False
    """It was not there."""


Look = tuple[RepoSummary, RepoSummary | None]
"""What was, and what is now; None for what is gone or private."""


def refresh(  # noqa: PLR0913 - the last two by keyword
    hub: Hub,
    target: Target,
    known: Sequence[LastSeen],
    budget: int | None = None,
    *,
    listed: Iterable[RepoSummary] | None = None,
    failed: dict[RepoId, str] | None = None,
) -> Iterator[Look]:
    """Look again.

    A pair is news of a look, not of a change: the caller compares and keeps. The new name of a renamed
    repository is in `after.repo`; what happened when `object_id` differs is the caller's to say. A look that
    failed counts as one, and tells what was known before: else it would be the first of every run. Lazy: a
    caller that stops has spent only what it consumed.

    Args:
        hub: where.
        target: the release.
        known: everything that is remembered of its forks.
        budget: calls beyond the listing; by default 20, or one for each hundred known.
        listed: the rows of the release's declared forks, if somebody has just listed them all.
        failed: gets the repositories that could not be looked at, and why.

    Raises:
        CrawlerError: the Hub or our access to it is out of order, which does not mean that anything is gone.
    """
    left = max(_LEAST_BUDGET, int(len(known) * _SHARE)) if budget is None else budget
    if not known:
        return
    if listed is None:
        query = ListQuery(tags=(_tag(target),), order=Order.CREATED)
        listed = islice(hub.list_models(query), MAX_ROWS)  # what it has beyond is asked for by name
    rows = _Rows(listed)
    unlisted: list[LastSeen] = []
    for one in known:
        now = rows.find(one.summary)
        if now is None:
            unlisted.append(one)
        else:
            yield one.summary, now
    yield from _by_name(hub, _queue(unlisted, target, left), {} if failed is None else failed)


def _queue(unlisted: list[LastSeen], target: Target, budget: int) -> list[LastSeen]:
    """Whose turn it is: those first that the listing should have, but half of the budget is for everybody."""
    unlisted.sort(key=lambda one: (one.checked, one.summary.repo))
    missing = [one for one in unlisted if not one.gone and _declares(one.summary, target)]
    first = missing[: (budget + 1) // 2]
    chosen = set(first)
    return [*first, *(one for one in unlisted if one not in chosen)][:budget]


def _by_name(hub: Hub, queue: Sequence[LastSeen], failed: dict[RepoId, str]) -> Iterator[Look]:
    """One call each. It ends early when several in a row fail."""
    failures = 0
    for one in queue:
        before = one.summary
        try:
            now = _look(hub, before)
        except FATAL:
            raise
        except CrawlerError as error:
            failed[before.repo] = str(error)
            yield before, None if one.gone else before
            failures += isinstance(error, HubUnavailableError)
            if failures == _DEAD:
                return
        else:
            failures = 0
            yield before, now


class _Rows:
    """A listing by `_id`, and by name, which somebody else can take over."""

    def __init__(self, rows: Iterable[RepoSummary]) -> None:
        self._by_id: dict[str, RepoSummary] = {}
        self._by_name: dict[str, RepoSummary] = {}
        for row in rows:
            self._by_name.setdefault(row.repo.casefold(), row)
            if row.object_id:
                self._by_id.setdefault(row.object_id, row)

    def find(self, before: RepoSummary) -> RepoSummary | None:
        return self._by_id.get(before.object_id) or self._by_name.get(before.repo.casefold())


def _look(hub: Hub, before: RepoSummary) -> RepoSummary | None:
    try:
        return hub.summary(before.repo)
    except RepoNotFoundError:
        return None


def _declares(row: RepoSummary, target: Target) -> bool:
    """Whether the listing should have it; it knows tags, and nothing of a PEFT configuration."""
    return _tag(target).casefold() in map(str.casefold, row.tags)


def _tag(target: Target) -> str:
    return f"base_model:{target.release}"
