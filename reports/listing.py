"""The table of forks, in pages of a hundred: by name, and by name within each verdict. Never by harm."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from reports.context import Fork, Release, Values
from reports.plan import Entry, digest, digest_of
from reports.words import VERDICTS, VerdictWord

PAGE = 100
"""Rows of a page: with more it would be larger than 200 kB."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a list."""

    forks: tuple[Fork, ...]
    word: VerdictWord | None
    """The verdict of all of them; None in the list of all."""
    number: int
    paths: tuple[str, ...]
    """Of the pages of this list, in order."""
    total: int

    @property
    def path(self) -> str:
        """Relative to the site's root."""
        return self.paths[self.number - 1]

    @property
    def first(self) -> str:
        """Name of the first fork."""
        return self.forks[0].row.repo if self.forks else ""

    @property
    def last(self) -> str:
        """Name of the last one."""
        return self.forks[-1].row.repo if self.forks else ""

    @property
    def key(self) -> str:
        """Digest of what is on the page."""
        place = self.number, len(self.paths), self.paths[0], self.paths[-1]
        label = None if self.word is None else self.word.label
        return digest_of(([fork.key for fork in self.forks], place, self.total, label))


def main_listing(release: Release) -> Listing:
    """What the release's own page shows: all forks, or the first hundred."""
    return next(iter(_listings(release, None)))


def filters(release: Release) -> tuple[tuple[VerdictWord, int, str], ...]:
    """Verdicts that forks have, how many, and the first page of their list; empty when one page has all."""
    if len(release.forks) <= PAGE:
        return ()
    found = ((word, next(iter(_listings(release, word)), None)) for word in VERDICTS.values())
    return tuple((word, each.total, each.path) for word, each in found if each is not None)


def listing_pages(release: Release) -> Iterator[Entry]:
    """Pages beside the release's own one. None while that shows all."""
    if len(release.forks) <= PAGE:
        return
    facts = release.facts_key
    for word in (None, *VERDICTS.values()):
        for listing in _listings(release, word):
            if word is not None or listing.number > 1:
                key = digest(facts, listing.key)
                values = partial(_values, release, listing)
                yield release.site.page("listing.html", listing.path, key, values)


def _values(release: Release, listing: Listing) -> Values:
    return {"release": release.facts, "listing": listing, "home": release.site.routes.release(release.view)}


def _listings(release: Release, word: VerdictWord | None) -> Iterator[Listing]:
    forks: Sequence[Fork] = release.forks
    if word is not None:
        forks = release.judged(word.label)
        if not forks:
            return
    home = release.site.routes.release(release.view)
    folder = posixpath.dirname(home)
    stem = "forks" if word is None else f"verdict-{word.label}"
    count = max(1, -(-len(forks) // PAGE))
    paths = tuple(f"{folder}/{stem}-{number}.html" for number in range(1, count + 1))
    if word is None:
        paths = (home, *paths[1:])
    for number in range(1, count + 1):
        shown = tuple(forks[(number - 1) * PAGE : number * PAGE])
        yield Listing(shown, word, number, paths, len(forks))
