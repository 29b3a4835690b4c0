"""What a synthetic Hub really holds, and how much of it a crawl found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from crawler.interface import Channel


@dataclass(frozen=True, slots=True)
class Fact:
    """The truth about one repository."""

    way: str
    """Id of the `ways.Way` or `decoys.Decoy` that it was made by."""
    channels: frozenset[Channel]
    """Public signals that lead to this fork, each alone sufficient; empty: no public signal does."""
    is_fork: bool
    claims: bool = False
    """No fork, but it declares the release as its base: a correct candidate all the same."""


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many."""

    found: int
    of: int

    @property
    def rate(self) -> float:
        """Between 0 and 1.

        Raises:
            ZeroDivisionError: it is a share of nothing.
        """
        return self.found / self.of


@dataclass(frozen=True, slots=True)
class Score:
    """A set of found repositories, compared with the truth."""

    recall: Share
    """Of the forks that any public signal leads to."""
    precision: Share
    """Of what was found: forks, and repositories that claim to be one."""
    by_channel: Mapping[Channel, Share]
    """Of the forks that a channel leads to; a fork counts for each of its channels, whichever found it."""
    by_way: Mapping[str, Share]
    """Of the forks made each way, those without a public signal included."""
    missed: tuple[str, ...]
    """Discoverable forks that were not found, sorted."""
    wrong: tuple[str, ...]
    """Found, and neither a fork nor claiming to be one, sorted."""


@dataclass(frozen=True, slots=True)
class Truth:
    """Every repository but the release itself."""

    release: str
    base: str
    """What the release declares as its own base."""
    until: datetime
    """End of the time in which it was made; a day that is added begins here."""
    facts: Mapping[str, Fact]
    """By name."""

    @property
    def forks(self) -> tuple[str, ...]:
        """Every fork, discoverable or not."""
        return tuple(name for name, fact in self.facts.items() if fact.is_fork)

    @property
    def discoverable(self) -> tuple[str, ...]:
        """Forks that at least one public signal leads to."""
        return tuple(name for name, fact in self.facts.items() if fact.is_fork and fact.channels)

    def score(self, found: Iterable[str]) -> Score:
        """How good a set of candidates is; the release itself is left out."""
        names = frozenset(found) - {self.release}
        discoverable = self.discoverable
        right = {name for name in names if (fact := self.facts.get(name)) and (fact.is_fork or fact.claims)}
        ways = sorted({fact.way for fact in self.facts.values() if fact.is_fork})
        return Score(
            recall=_share(discoverable, names),
            precision=Share(len(right), len(names)),
            by_channel={
                channel: _share(
                    (name for name in discoverable if channel in self.facts[name].channels), names
                )
                for channel in Channel
                if channel is not Channel.DIRECT
            },
            by_way={
                way: _share((name for name in self.forks if self.facts[name].way == way), names)
                for way in ways
            },
            missed=tuple(sorted(set(discoverable) - names)),
            wrong=tuple(sorted(names - right)),
        )


def _share(of: Iterable[str], found: frozenset[str]) -> Share:
    names = tuple(of)
    return Share(sum(name in found for name in names), len(names))
