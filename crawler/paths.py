"""File paths from the Hub: hostile until checked here, once, when a snapshot is taken."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from crawler.interface import RefusedSnapshotError

MAX_PATH_BYTES = 255
MAX_FILES = 50_000
"""Ten times the largest training dump seen on the Hub; a longer list is an attack on our memory."""

_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Embeddings, overrides and isolates: they make `exe.txt` look like `txt.exe`."""


def check_paths(paths: Iterable[str]) -> None:
    """Refuse a file list that could not be written to any disk as it stands, one file a path.

    Raises:
        RefusedSnapshotError: names the first offending path, escaped.
    """
    files: dict[str, str] = {}
    folders: set[str] = set()
    for count, path in enumerate(paths):
        if count >= MAX_FILES:
            raise RefusedSnapshotError(f"more than {MAX_FILES} files")
        if reason := _objection(path):
            raise RefusedSnapshotError(f"path {path[:MAX_PATH_BYTES]!a}: {reason}")
        key = _folded(path)
        if key in files:
            raise RefusedSnapshotError(f"paths {files[key]!a} and {path!a} collide")
        files[key] = path
        parts = key.split("/")
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    if clash := sorted(folders & files.keys()):
        raise RefusedSnapshotError(f"path {files[clash[0]]!a} is both a file and a folder")


def _folded(path: str) -> str:
    """Equal for two paths that some file system cannot tell apart (letter case, Unicode composition)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _objection(path: str) -> str:
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
