"""File paths from the Hub: hostile until checked here, once, when a snapshot is taken."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from itertools import islice

from crawler.interface import RefusedSnapshotError
from crawler.refused import RefusedFile

MAX_PATH_BYTES = 255
MAX_FILES = 50_000
"""Ten times the largest training dump seen on the Hub; a longer list is an attack on our memory."""

MAX_REFUSED = 64
"""Refused files that are kept to be shown; the last one says how many more there are."""

_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Embeddings, overrides and isolates: they make `exe.txt` look like `txt.exe`."""


def check_path(path: str) -> None:
    """Refuse a path that could not be written to any disk as it stands.

    Raises:
        RefusedSnapshotError: it is unsafe; the message shows it escaped.
    """
    if reason := _objection(path):
        raise RefusedSnapshotError(f"path {path[:MAX_PATH_BYTES]!a}: {reason}")


def sift_paths(paths: Iterable[str]) -> tuple[frozenset[str], tuple[RefusedFile, ...]]:
    """The paths that can be written to any disk as they stand, one file a path; and the others, with why not.

    One bad name must not make us blind to the rest: it would be the cheapest way not to be looked at. Of
    names that some disk holds for one, the last in order is kept: `config.json`, which loaders ask for,
    comes after `Config.json`.

    Raises:
        RefusedSnapshotError: more than `MAX_FILES` paths.
    """
    kept: dict[str, str] = {}
    refused: list[RefusedFile] = []
    for path in sorted(_counted(paths), reverse=True):
        if reason := _objection(path):
            refused.append(RefusedFile(_escaped(path), reason))
        elif (key := _folded(path)) in kept:
            reason = f"the same as {_escaped(kept[key])} where case or composition do not count"
            refused.append(RefusedFile(_escaped(path), reason, collides=True))
        else:
            kept[key] = path
    refused.extend(
        RefusedFile(_escaped(kept.pop(folder)), "both a file and a folder", collides=True)
        for folder in sorted(_folders(kept) & kept.keys())
    )
    if len(refused) > MAX_REFUSED:
        last, more = refused[MAX_REFUSED - 1], len(refused) - MAX_REFUSED
        refused[MAX_REFUSED - 1 :] = [
            RefusedFile(last.path, f"{last.reason}; and {more} more", last.collides)
        ]
    return frozenset(kept.values()), tuple(refused)


def _counted(paths: Iterable[str]) -> list[str]:
    counted = list(islice(paths, MAX_FILES + 1))
    if len(counted) > MAX_FILES:
        raise RefusedSnapshotError(f"more than {MAX_FILES} files")
    return counted


def _folders(keys: Iterable[str]) -> set[str]:
    parts = (key.split("/") for key in keys)
    return {"/".join(names[:depth]) for names in parts for depth in range(1, len(names))}


def _escaped(path: str) -> str:
    return ascii(path[:MAX_PATH_BYTES])[1:-1][:MAX_PATH_BYTES]


def _folded(path: str) -> str:
    """Equal for two paths that some file system cannot tell apart (letter case, Unicode composition)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _objection(path: str) -> str:
    if len(path) > MAX_PATH_BYTES:
        return f"longer than {MAX_PATH_BYTES} bytes"
    parts = path.split("/")
    if path.startswith("/") or "" in parts:
        return "absolute, or with an empty part"
    if {".", "..", ".git"} & set(parts):
        return "leads out of the repository"
    if "\\" in path or any(
        char in _BIDI or unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} for char in path
    ):
        return "has control, bidi or separator characters"
    if len(path.encode()) > MAX_PATH_BYTES:
        return f"longer than {MAX_PATH_BYTES} bytes"
    return ""
