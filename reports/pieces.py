"""Texts about one fork that files about a whole release are put together from, kept between builds.

A list of 10,000 forks changes with each of them. Its pieces do not: each is kept with the key of its fork and
made anew only when that key is another one. What is kept is inserted as it is: nobody else may write to it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from reports.plan import template_set

T = TypeVar("T")

_TABLE = (
    "CREATE TABLE IF NOT EXISTS piece (kind TEXT, name TEXT, key TEXT, text TEXT, PRIMARY KEY (kind, name))"
)

_FEW = 500
"""Pieces that are read one by one; for more, all of the kind."""
_UNSAVED = 2_000
"""New pieces that are written at once: each writing waits for the disk."""
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
        self._whole = False
        """All of the kind is known."""
        self._new: dict[tuple[str, str], tuple[str, str]] = {}
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
        asked = list(wanted)
        self._read(kind, [name for name, _, _ in asked])
        found, known = [], self._known
        for name, key, item in asked:
            kept = known.get(name)
            if kept is None or kept[0] != key:
                kept = known[name] = self._new[kind, name] = key, make(item)
            found.append(kept[1])
        if len(self._new) >= _UNSAVED:
            self.save()
        return found

    def save(self) -> None:
        """Write what is new."""
        if self._file is None or not self._new:
            return
        rows = [(kind, name, key, text) for (kind, name), (key, text) in self._new.items()]
        with closing(sqlite3.connect(self._file, timeout=_PATIENCE)) as file, file:
            file.execute(_TABLE)
            file.execute("INSERT OR REPLACE INTO piece VALUES ('', '', '', ?)", (template_set(),))
            file.executemany("INSERT OR REPLACE INTO piece VALUES (?, ?, ?, ?)", rows)
        self._new = {}

    def _read(self, kind: str, names: Sequence[str]) -> None:
        """Of a kind those that are asked for, or all of them where that is less work."""
        if kind != self._kind:
            self._kind, self._whole = kind, False
            self._known = {name: piece for (of, name), piece in self._new.items() if of == kind}
        missing = [name for name in names if name not in self._known]
        if self._file is None or self._whole or not missing or not self._file.exists():
            return
        self._whole = len(missing) > _FEW
        query, values = "SELECT name, key, text FROM piece WHERE kind = ?", [kind]
        if not self._whole:
            query += f" AND name IN ({','.join('?' * len(missing))})"
            values += missing
        with closing(sqlite3.connect(self._file, timeout=_PATIENCE)) as file:
            rows = file.execute(query, values).fetchall()
        self._known = {name: (key, text) for name, key, text in rows} | self._known


def _is_ours(file: Path) -> bool:
    if not file.exists():
        return True
    try:
        with closing(sqlite3.connect(file)) as opened:
            found = opened.execute("SELECT text FROM piece WHERE kind = ''").fetchone()
    except sqlite3.DatabaseError:
        return False
    return bool(found == (template_set(),))
