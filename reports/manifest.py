"""What a built site holds: the key, digest and size of each file. It is itself a file of the site.

It makes the next build incremental, tells a publisher what differs from what is published, and lets anybody
verify a copy. It is replaced together with the site, so that it never speaks of another state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reports.plan import template_set

NAME = ".forkwatch-site"
"""Its file name. A folder that has it was written by `build_site`, which may replace it."""

FORMAT = "forkwatch.site/2"

KEPT = "-"
"""The key of a file that no plan made: a digest of an earlier week."""


@dataclass(frozen=True, slots=True)
class Record:
    """One file."""

    key: str
    sha256: str
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """All files of a site but the manifest, by path relative to its root."""

    files: Mapping[str, Record]
    templates: str = field(default_factory=template_set)
    """What the keys hold for, see `reports.plan.template_set`."""

    def to_text(self) -> str:
        """One line a file, sorted by path."""
        lines = [
            f"{path}\t{record.key}\t{record.sha256}\t{record.size}\n"
            for path, record in sorted(self.files.items())
        ]
        return f"{FORMAT}\t{self.templates}\t{len(lines)}\n{''.join(lines)}"


def record(key: str, data: bytes) -> Record:
    """The record of a file's content."""
    return Record(key, hashlib.sha256(data).hexdigest(), len(data))


def from_text(text: str) -> Manifest | None:
    """Read a manifest; None when it is not one, or not whole."""
    head, _, body = text.partition("\n")
    lines = body.splitlines()
    match head.split("\t"):
        case [name, templates, count] if name == FORMAT and count == str(len(lines)):
            pass
        case _:
            return None
    files = {}
    for line in lines:
        parts = line.split("\t")
        if len(parts) != 4 or not parts[3].isdecimal() or not is_inside(parts[0]):
            return None
        files[parts[0]] = Record(parts[1], parts[2], int(parts[3]))
    return Manifest(files, templates)


def read_manifest(site: Path) -> Manifest | None:
    """The manifest of a built site; None when there is none, or it is broken."""
    try:
        return from_text((site / NAME).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def is_inside(path: str) -> bool:
    """Whether a path stays below the folder that it is relative to."""
    bounded = f"/{path}/"
    return "//" not in bounded and "/./" not in bounded and "/../" not in bounded
