"""Texts about one fork that files about a whole release are put together from, kept between builds.

A list of 10,000 forks changes with each of them. Its pieces do not: each is kept with the key of its fork and
made anew only when that key is another one. What is kept is inserted as it is: nobody else may write to it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from reports.plan import template_set

T = TypeVar("T")

_TABLE = (
    "CREATE TABLE IF NOT EXISTS piece (kind TEXT, name TEXT, key TEXT, text TEXT, PRIMARY KEY (kind, name))"
)

_PATIENCE = 60.0
"""Seconds to wait while the process that renders the other half writes."""


class Pieces:
    """By kind and name. Pieces of one kind are in memory at a time, as they are asked for in a row.

    Without a file nothing is kept. A file of other templates, or that is broken, counts as empty.
    """

    def __init__(self, file: Path | None = None, *, anew: bool = False) -> None:
        self._file = file
        self._kind = ""
        self._known: dict[str, tuple[str, str]] = {}
        self._new: dict[str, tuple[str, str]] = {}
        if file is not None and (anew or not _is_ours(file)):
            file.unlink(missing_ok=True)

    def text(self, kind: str, name: str, key: str, make: Callable[[], str]) -> str:
        """What `make` gives, or gave for the same key."""
        (text,) = self.texts(kind, [(name, key, None)], lambda _: make())
        return text

    def texts(self, kind: str, wanted: Iterable[tuple[str, str, T]], make: Callable[[T], str]) -> list[str]:
        """The same of many: name, key, and what `make` makes it from."""
        if self._file is None:
            return [make(item) for _, _, item in wanted]
        if kind != self._kind:
            self.save()
            self._kind, self._known = kind, self._read(kind)
        found, known = [], self._known
        for name, key, item in wanted:
            kept = known.get(name)
            if kept is None or kept[0] != key:
                kept = known[name] = self._new[name] = key, make(item)
            found.append(kept[1])
        return found

    def save(self) -> None:
        """Write what is new."""
        if self._file is None or not self._new:
            return
        rows = [(self._kind, name, key, text) for name, (key, text) in self._new.items()]
        with closing(sqlite3.connect(self._file, timeout=_PATIENCE)) as file, file:
            file.execute(_TABLE)
            file.execute("INSERT OR REPLACE INTO piece VALUES ('', '', '', ?)", (template_set(),))
            file.executemany("INSERT OR REPLACE INTO piece VALUES (?, ?, ?, ?)", rows)
        self._new = {}

    def _read(self, kind: str) -> dict[str, tuple[str, str]]:
        if self._file is None or not self._file.exists():
            return {}
        with closing(sqlite3.connect(self._file, timeout=_PATIENCE)) as file:
            rows = file.execute("SELECT name, key, text FROM piece WHERE kind = ?", (kind,))
            return {name: (key, text) for name, key, text in rows}


def _is_ours(file: Path) -> bool:
    if not file.exists():
        return True
    try:
        with closing(sqlite3.connect(file)) as opened:
            found = opened.execute("SELECT text FROM piece WHERE kind = ''").fetchone()
    except sqlite3.DatabaseError:
        return False
    return bool(found == (template_set(),))
