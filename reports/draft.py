"""The folder that becomes the site: the spare, brought up to date with the fewest changes.

Its files are hard links to those of the present site wherever both have the same content. None is ever
written to: a new content is a new file, so that a reader of the present site sees nothing of it.
"""

# A Path for each of 100,000 files would cost more than all the rest.
# ruff: noqa: PTH103, PTH106, PTH108, PTH120, PTH121, PTH123

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from reports.manifest import NAME, Blocks, Record, files_of, read_blocks


class Draft:
    """Open it, `write` what is new, then `finish` with the whole manifest.

    A crash leaves a folder without a manifest: the next draft then looks at each of its files.
    """

    def __init__(self, folder: Path, site: Path, present: Callable[[], Mapping[str, Record]]) -> None:
        """`present`: the files of the site, asked for when the folder has to be looked at."""
        self._folder = folder
        self._site = site
        self._made: set[str] = set()
        self._written: set[str] = set()
        known = read_blocks(folder)
        folder.mkdir(exist_ok=True)
        (folder / NAME).unlink(missing_ok=True)
        self._lines: Mapping[str, str] = {} if known is None else known.lines
        self._loose: dict[str, str] = dict(self._shared(present())) if known is None else {}
        """Digests of the files that are in no line."""

    def write(self, path: str, data: bytes) -> None:
        """A file with new content.

        Raises:
            FileNotFoundError: the folder lacks a file that it should have.
        """
        target = self._place(path)
        try:
            os.unlink(target)
        except FileNotFoundError:
            if path in self._has:
                raise
        with open(target, "xb") as file:
            file.write(data)
        self._written.add(path)

    @cached_property
    def _has(self) -> frozenset[str]:
        """What the folder should have; seldom asked for, since most that is written was there before."""
        return frozenset(self._loose).union(*(line.split("\t")[1::4] for line in self._lines.values()))

    def note(self, paths: Iterable[str]) -> None:
        """Files that a fork of this process has written."""
        self._written.update(paths)

    def finish(self, manifest: Blocks) -> None:
        """Link what stays as it is, remove what is gone, and add the manifest.

        Raises:
            FileNotFoundError: the present site lacks a file that it should have.
            ValueError: the spare's manifest is broken.
        """
        has = dict(self._loose)
        wanted: dict[str, Record] = {}
        for name, line in self._lines.items():
            if manifest.lines.get(name) != line:
                has |= {path: record.sha256 for path, record in files_of(line).items()}
        for name, line in manifest.lines.items():
            if self._lines.get(name) != line:
                wanted |= files_of(line)
        for path in has.keys() - wanted.keys():
            os.unlink(f"{self._folder}/{path}")
            self._prune(path)
        for path, record in wanted.items():
            if path in self._written or has.get(path) == record.sha256:
                continue
            target = self._place(path)
            if path in has:
                os.unlink(target)
            link(f"{self._site}/{path}", target)
        (self._folder / NAME).write_text(manifest.to_text(), encoding="utf-8")

    def _shared(self, present: Mapping[str, Record]) -> Iterator[tuple[str, str]]:
        """Files that are the present site's own, with their digests. All others are removed."""
        for path in list_files(self._folder):
            record = present.get(path)
            if record is not None and _same_file(f"{self._folder}/{path}", f"{self._site}/{path}"):
                yield path, record.sha256
            else:
                os.unlink(f"{self._folder}/{path}")
                self._prune(path)

    def _place(self, path: str) -> str:
        above = os.path.dirname(path)
        if above not in self._made:
            os.makedirs(f"{self._folder}/{above}", exist_ok=True)
            self._made.add(above)
        return f"{self._folder}/{path}"

    def _prune(self, path: str) -> None:
        """Remove folders that a removed file left empty."""
        above = os.path.dirname(path)
        while above:
            try:
                os.rmdir(f"{self._folder}/{above}")
            except OSError:
                return
            self._made.discard(above)
            above = os.path.dirname(above)


def link(old: str, new: str) -> None:
    """The same file under another name."""
    try:
        os.link(old, new)
    except FileNotFoundError:
        raise
    except OSError:  # A file system without hard links: a copy that keeps the time serves as well.
        shutil.copy2(old, new)


def copy_links(site: Path, folder: Path) -> None:
    """A second folder of the same files, for the next build to start from."""
    present = read_blocks(site)
    if present is not None:
        Draft(folder, site, dict).finish(present)


def list_files(folder: Path) -> list[str]:
    """All files below a folder, relative to it."""
    found, pile = [], [""]
    while pile:
        below = pile.pop()
        with os.scandir(f"{folder}/{below}") as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pile.append(f"{below}{entry.name}/")
                else:
                    found.append(f"{below}{entry.name}")
    return found


def _same_file(first: str, second: str) -> bool:
    try:
        return os.path.samefile(first, second)
    except FileNotFoundError:
        return False
