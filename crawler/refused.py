"""Files that a snapshot leaves out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RefusedFile:
    """A file that no disk could hold as it is named, beside the others; it is there and never looked at."""

    path: str
    """Escaped to ASCII, at most 255 characters."""
    reason: str
    collides: bool = False
    """With a file that is kept: on some disks the two names are one."""
