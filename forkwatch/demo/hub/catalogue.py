"""All repositories, indexed so that a page of a listing costs what the page holds, not what the Hub holds.

Not thread-safe: `HubState` owns the lock.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import TypeVar

from forkwatch.demo.hub.repo import Repo

SORT_KEYS: Mapping[str, Callable[[Repo], int]] = MappingProxyType(
    {
        "createdAt": lambda repo: int(repo.created_at.timestamp()),
        "downloads": lambda repo: repo.downloads,
        "lastModified": lambda repo: int(repo.head.date.timestamp()),
        "likes": lambda repo: repo.likes,
        "trendingScore": lambda repo: repo.likes,
    }
)
"""The orders of a listing; all are descending."""

_NOTHING: frozenset[str] = frozenset()

_Key = TypeVar("_Key")

Rank = tuple[int, str]
"""Sort key and `_id`: where a row stands in an order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The conditions of a listing; all must hold."""

    order: str
    before: Rank | None = None
    """Rank of the last row of the page before."""
    tags: frozenset[str] = frozenset()
    author: str | None = None
    search: str = ""
    """Substring of the id, lower case."""
    parameters: tuple[int, int] | None = None
    """Least and greatest number of parameters."""
    keep: Callable[[Repo], bool] = lambda _: True
    """What has no index."""


class Catalogue:
    """Repositories by name, tag, author and rank.

    Args:
        few: so many rows are gathered and sorted; more are met often enough on a walk along the whole order.
    """

    def __init__(self, few: int = 5000) -> None:
        self._few = few
        self._repos: dict[str, Repo] = {}
        self._tags: dict[str, set[str]] = {}
        self._authors: dict[str | None, set[str]] = {}
        self._orders: dict[str, _Order] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._repos

    def __getitem__(self, name: str) -> Repo:
        return self._repos[name]

    def get(self, name: str) -> Repo | None:
        """A repository by its present name."""
        return self._repos.get(name)

    def put(self, repo: Repo) -> None:
        """Add a repository, or put its new state in place of the old."""
        if repo.name in self._repos:
            self.drop(repo.name)
        self._repos[repo.name] = repo
        self._authors.setdefault(repo.author, set()).add(repo.name)
        for tag in repo.head.facts.tags:
            self._tags.setdefault(tag, set()).add(repo.name)
        for order in self._orders.values():
            order.add(repo)

    def drop(self, name: str) -> None:
        """Remove a repository.

        Raises:
            KeyError: no such repository.
        """
        repo = self._repos.pop(name)
        _discard(self._authors, repo.author, name)
        for tag in repo.head.facts.tags:
            _discard(self._tags, tag, name)
        for order in self._orders.values():
            order.remove(repo)

    def tagged(self, tag: str) -> list[Repo]:
        """Every repository with a tag, in no order."""
        return [self._repos[name] for name in self._tags.get(tag, _NOTHING)]

    def select(self, wanted: Wanted, size: int) -> list[Repo]:
        """The first `size` repositories after `wanted.before` that satisfy every condition."""
        order = self._order(wanted.order)
        sets: list[Collection[str]] = [self._tags.get(tag, _NOTHING) for tag in wanted.tags]
        if wanted.author is not None:
            sets.append(self._authors.get(wanted.author, _NOTHING))
        pool = self._pool(wanted, sets)
        if len(pool) <= self._few:
            names: Iterable[str] = order.ranked((self._repos[name] for name in pool), wanted.before)
        else:
            names = order.below(wanted.before)
        return list(islice(self._matching(names, wanted, sets), size))

    def _pool(self, wanted: Wanted, sets: list[Collection[str]]) -> Collection[str]:
        """A superset of the answer, the smallest that an index offers."""
        pool: Collection[str] = min((*sets, self._repos), key=len)
        if len(pool) > self._few and wanted.parameters is not None:
            pool = min(pool, self._order("parameters").between(*wanted.parameters), key=len)
        if len(pool) > self._few and wanted.search:
            pool = [name for name in pool if wanted.search in name.lower()]
        return pool

    def _matching(self, names: Iterable[str], wanted: Wanted, sets: list[Collection[str]]) -> Iterator[Repo]:
        for name in names:
            if not all(name in names_of_one for names_of_one in sets) or wanted.search not in name.lower():
                continue
            repo = self._repos[name]
            if _within(repo.head.facts.total, wanted.parameters) and wanted.keep(repo):
                yield repo

    def _order(self, name: str) -> _Order:
        """An order, made at its first use: hubs that are only written to never pay for it."""
        known = self._orders.get(name)
        if known is None:
            key = _parameters if name == "parameters" else SORT_KEYS[name]
            known = self._orders[name] = _Order(key, self._repos.values())
        return known


class _Order:
    """Names by rank, ascending."""

    def __init__(self, key: Callable[[Repo], int], repos: Iterable[Repo]) -> None:
        self._key = key
        self._ranks = sorted(self._rank(repo) for repo in repos)

    def add(self, repo: Repo) -> None:
        insort(self._ranks, self._rank(repo))

    def remove(self, repo: Repo) -> None:
        del self._ranks[bisect_left(self._ranks, self._rank(repo))]

    def below(self, before: Rank | None) -> Iterator[str]:
        """Names with a smaller rank, greatest first."""
        # A pair sorts before every triple that begins with it.
        start = len(self._ranks) if before is None else bisect_left(self._ranks, before)
        return (self._ranks[index][2] for index in range(start - 1, -1, -1))

    def ranked(self, repos: Iterable[Repo], before: Rank | None) -> list[str]:
        """Names of these repositories with a smaller rank, greatest first."""
        ranks = (self._rank(repo) for repo in repos)
        return [rank[2] for rank in sorted(ranks, reverse=True) if before is None or rank[:2] < before]

    def between(self, least: int, greatest: int) -> list[str]:
        """Names whose key is within these bounds."""
        first, end = bisect_left(self._ranks, (least,)), bisect_left(self._ranks, (greatest + 1,))
        return [rank[2] for rank in self._ranks[first:end]]

    def _rank(self, repo: Repo) -> tuple[int, str, str]:
        return (self._key(repo), repo.object_id, repo.name)


def _parameters(repo: Repo) -> int:
    total = repo.head.facts.total
    return -1 if total is None else total


def _within(total: int | None, bounds: tuple[int, int] | None) -> bool:
    return bounds is None or (total is not None and bounds[0] <= total <= bounds[1])


def _discard(index: dict[_Key, set[str]], key: _Key, name: str) -> None:
    index[key].discard(name)
    if not index[key]:
        del index[key]
