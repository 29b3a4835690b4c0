"""What was found of each file that a signature covers, and how that is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class FileState(StrEnum):
    """How a file relates to what was signed."""

    MATCHED = "matched"
    DIFFERS = "differs"
    MISSING = "missing"
    UNCOVERED = "uncovered"
    """A loader would use it, and nobody signed it."""
    UNKNOWN = "unknown"
    """Nothing is known of its content; the note says why."""


class Basis(StrEnum):
    """Who says what the content of a file is, the strongest first."""

    READ = "read"
    """Every byte, here and now."""
    FETCHED = "fetched"
    """Every byte, after download."""
    REMEMBERED = "remembered"
    """Every byte, at an earlier time; the file system says that the file has not changed since."""
    HUB_SHA256 = "hub-sha256"
    """The Hub reports the SHA-256 of a file in its large-file storage; nothing was downloaded."""
    HUB_GIT_OID = "hub-git-oid"
    """The Hub reports the git blob id of content that is known here: SHA-1, so no stronger than that."""
    NONE = "none"


HUB_REPORTED = frozenset({Basis.HUB_SHA256, Basis.HUB_GIT_OID})
"""Somebody else's word: enough to decide what to download, not enough to load it."""


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """One file."""

    path: str
    """Hostile text when the state is `UNCOVERED`: it is the name that somebody gave the file."""
    state: FileState
    basis: Basis = Basis.NONE
    size: int | None = None
    """Bytes; None for a file that is missing."""
    note: str = ""


def paths_in(files: Iterable[CheckedFile], *states: FileState) -> tuple[str, ...]:
    """Paths of the files in these states, in order."""
    return tuple(file.path for file in files if file.state in states)
