"""What became of the forks that are known, at next to no cost.

One listing of the release's declared forks, a thousand to a call, tells presence, commit, downloads, likes
and access of most of them. What is missing there is asked for by name, then the rest, oldest look first,
within a budget: over several runs everything is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from crawler.interface import Hub, ListQuery, Order, RepoNotFoundError, RepoSummary
from crawler.sources.interface import Target
from crawler.sources.rows import bases

_LEAST_BUDGET = 20
"""Calls."""
_SHARE = 0.01
"""Of the known repositories, looked at by name in one run."""


@dataclass(frozen=True, slots=True)
class Known:
    """A repository as it was seen last, and when."""

    summary: RepoSummary
    checked: datetime


def refresh(
    hub: Hub, target: Target, known: Sequence[Known], budget: int | None = None
) -> Iterator[tuple[RepoSummary, RepoSummary | None]]:
    """Look again: what was, and what is now; None for what is gone or private.

    A pair is news of a look, not of a change: the caller compares and keeps. The new name of a renamed
    repository is in `after.repo`; what happened when `object_id` differs is the caller's to say. Lazy: a
    caller that stops has spent only what it consumed.

    Args:
        hub: where.
        target: the release.
        known: everything that is remembered of its forks.
        budget: calls beyond the listing; by default 20, or one for each hundred known.

    Raises:
        CrawlerError: a call failed, which does not mean that anything is gone.
    """
    left = max(_LEAST_BUDGET, int(len(known) * _SHARE)) if budget is None else budget
    if not known:
        return
    listing = ListQuery(tags=(f"base_model:{target.release}",), order=Order.CREATED)
    rows = _Rows(hub.list_models(listing))
    missing: list[Known] = []
    others: list[Known] = []
    for one in known:
        now = rows.find(one.summary)
        if now is not None:
            yield one.summary, now
        elif _declares(one.summary, target):
            missing.append(one)
        else:
            others.append(one)
    missing.sort(key=_age)
    others.sort(key=_age)
    for one in (*missing, *others)[:left]:
        yield one.summary, _look(hub, one.summary)


class _Rows:
    """A listing by `_id`, and by name, which somebody else can take over."""

    def __init__(self, rows: Iterator[RepoSummary]) -> None:
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
    return target.release.casefold() in {base.casefold() for base in bases(row)}


def _age(one: Known) -> tuple[datetime, str]:
    return one.checked, one.summary.repo
