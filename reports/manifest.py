"""What a built site holds: the key, digest and size of each file. It is itself a file of the site.

It makes the next build incremental, tells a publisher what differs from what is published, and lets anybody
verify a copy. It is replaced together with the site, so that it never speaks of another state.

A line is a block of files that have a key in common, with a key for each of them: all files about one fork,
or one file. Who builds a site of 50,000 files compares lines, and takes apart those that differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reports.plan import template_set

NAME = ".forkwatch-site"
"""Its file name. A folder that has it was written by `build_site`, which may replace it."""

FORMAT = "forkwatch.site/3"

KEPT = "-"
"""The key of a file that no plan made: a digest of an earlier week."""


@dataclass(frozen=True, slots=True)
class Record:
    """One file."""

    key: str
    sha256: str
    size: int
    """Bytes."""


Files = Mapping[str, Record]
"""By path relative to the site's root."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """All files of a site but the manifest."""

    files: Files
    templates: str = field(default_factory=template_set)
    """What the keys hold for, see `reports.plan.template_set`."""

    def to_text(self) -> str:
        """Each file in a block of its own."""
        lines = {path: block(record.key, {path: record}) for path, record in self.files.items()}
        return Blocks(lines, self.templates).to_text()


@dataclass(frozen=True, slots=True)
class Blocks:
    """The same, as lines that are taken apart when somebody asks."""

    lines: Mapping[str, str]
    """By the path of the first file of the block."""
    templates: str = field(default_factory=template_set)

    @property
    def count(self) -> int:
        """How many files there are."""
        return sum(map(_count, self.lines.values()))

    @property
    def paths(self) -> Iterator[str]:
        """Of all files."""
        for line in self.lines.values():
            yield from line.split("\t")[1::4]

    def to_text(self) -> str:
        """Sorted by first path."""
        body = "".join(f"{self.lines[name]}\n" for name in sorted(self.lines))
        return f"{FORMAT}\t{self.templates}\t{len(self.lines)}\t{_count(body)}\n{body}"


def _count(lines: str) -> int:
    """How many files there are in them."""
    return lines.count("\t") // 4


def record(key: str, data: bytes) -> Record:
    """The record of a file's content."""
    return Record(key, hashlib.sha256(data).hexdigest(), len(data))


def block(key: str, files: Files) -> str:
    """The line of some files."""
    return key + "".join(f"\t{path}\t{r.key}\t{r.sha256}\t{r.size}" for path, r in files.items())


def files_of(line: str) -> dict[str, Record]:
    """The files of a line.

    Raises:
        ValueError: it is none, or one of them is outside the site.
    """
    parts = line.split("\t")[1:]
    if not parts or len(parts) % 4 or not all(map(is_inside, parts[::4])):
        raise ValueError("not a line of a manifest")
    each = iter(parts)
    return {
        path: Record(key, sha256, int(size))
        for path, key, sha256, size in zip(each, each, each, each, strict=True)
    }


def blocks_from_text(text: str) -> Blocks | None:
    """Read a manifest; None when it is not one, or not whole. Its lines are not looked into."""
    head, _, body = text.partition("\n")
    lines = body.splitlines()
    match head.split("\t"):
        case [name, templates, count, files] if name == FORMAT and count == str(len(lines)):
            pass
        case _:
            return None
    found = {line.split("\t", 2)[1]: line for line in lines if "\t" in line}
    whole = files == str(_count(body)) and len(found) == len(lines)
    return Blocks(found, templates) if whole else None


def from_text(text: str) -> Manifest | None:
    """Read a manifest; None when it is not one, or not whole."""
    blocks = blocks_from_text(text)
    if blocks is None:
        return None
    files: dict[str, Record] = {}
    try:
        for line in blocks.lines.values():
            files |= files_of(line)
    except ValueError:
        return None
    return Manifest(files, blocks.templates)


def read_blocks(site: Path) -> Blocks | None:
    """The manifest of a site that this program built and is about to replace; else as `read_manifest`."""
    try:
        return blocks_from_text((site / NAME).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


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
