"""The search index: a script with one row per repository, loaded when somebody searches.

A script and not JSON, because a page that was opened from a file may not fetch. What a reader types is looked
for in names, commits and hashes of weight files; the page to go to is what the row says. Hashes are cut to
their first 16 digits, which still tells files apart and keeps the index of 10,000 forks near a megabyte.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from reports.text import clean

PATH = "assets/search-index.js"
DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRow:
    """One repository."""

    repo: str
    page: str
    """Relative to the site's root."""
    note: str
    """What it is, in two or three words: its verdict, or that it is a release."""
    names: tuple[str, ...] = ()
    """Former names."""
    hashes: tuple[str, ...] = ()
    """Commits and SHA-256 digests, hex."""


def search_index(rows: Iterable[SearchRow]) -> str:
    """The script. ASCII only, by name."""
    return script((row.repo, row.page, line(row)) for row in rows)


def line(row: SearchRow) -> str:
    """One row of the script."""
    cells = [
        clean(row.repo, 200),
        row.page,
        row.note,
        " ".join(clean(name, 200) for name in row.names),
        " ".join(dict.fromkeys(found[:DIGITS] for found in row.hashes)),
    ]
    return json.dumps(cells, separators=(",", ":"))


def script(rows: Iterable[tuple[str, str, str]]) -> str:
    """The script from repositories, their pages and their lines."""
    in_order = sorted(rows, key=lambda row: (row[0].lower(), row[0], row[1]))
    lines = ",\n".join(text for _, _, text in in_order)
    return f'"use strict";\nwindow.forkwatchIndex = [\n{lines}\n];\n'
