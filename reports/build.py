"""Build the site beside the old one: render what has another key now, keep the rest, switch in one step."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from reports import switch
from reports.draft import Draft, copy_links, list_files
from reports.interface import EmptySiteError, NotASiteError, SiteView
from reports.manifest import KEPT, NAME, Blocks, Record, block, files_of, read_blocks, record
from reports.pieces import Pieces
from reports.plan import Bundle, Entry, template_set
from reports.site import plan

SPARE_FROM = 2_000
"""Files of a site from which on the former site stays beside it, hidden, to be brought up to date by the next
build. A site of 100,000 files takes half a minute to delete and seconds to link anew; a small one nothing."""

_KEY = 70
"""Digits of a key that a line begins with: a bundle's is of two digests."""
_DIGEST = re.compile(r"\d{4}-W\d\d\.(?:html|eml|txt)")


@dataclass(frozen=True)
class BuildReport:
    """What a build did, as paths relative to the site's root, sorted."""

    written: tuple[str, ...]
    """New or different."""
    removed: tuple[str, ...]
    rendered: int
    """Files that had to be rendered to know which they are."""
    files: Blocks = field(repr=False)
    """All of the site."""

    @property
    def kept(self) -> int:
        """How many files are unchanged."""
        return self.files.count - len(self.written)

    @cached_property
    def unchanged(self) -> tuple[str, ...]:
        """Same bytes as before: same inode, same modification time."""
        return tuple(sorted(set(self.files.paths) - set(self.written)))


def build_site(view: SiteView, out: Path, *, full: bool = False, pieces: Path | None = None) -> BuildReport:
    """Build the whole site at `out`. The same view gives the same bytes, whatever was there before.

    Digests of earlier weeks (`digest/`) are carried over from the site that is replaced.

    Args:
        view: what it says.
        out: its folder.
        full: render every file, whatever the manifest of the last build says.
        pieces: the file in which `reports.pieces` are kept; None keeps none.

    Raises:
        EmptySiteError: no release has a single candidate.
        NotASiteError: `out` holds something that is not a site of ours.
    """
    if not any(release.scans or release.gaps for release in view.releases):
        raise EmptySiteError("no candidate has been examined yet, so there is nothing to publish")
    out = out.resolve()
    with switch.sole_builder(out):
        switch.recover(out)
        _refuse_foreign(out)
        try:
            return _build(view, out, None if full else read_blocks(out), pieces)
        except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, ValueError):
            # Somebody changed the site, or the spare, by hand: what is left is looked at file by file.
            shutil.rmtree(switch.spare(out), ignore_errors=True)
            return _build(view, out, None, pieces)


def _build(view: SiteView, out: Path, present: Blocks | None, pieces: Path | None) -> BuildReport:
    reuse = present is not None and present.templates == template_set()
    work = _Work(out, _as_it_is(out) if present is None else present.lines, reuse=reuse)
    kept = Pieces(pieces, anew=not work.reuse)
    work.take(plan(view, kept))
    kept.save()
    work.keep_digests()
    files = Blocks(work.lines)
    report = BuildReport(tuple(sorted(work.written)), work.removed(), work.rendered, files)
    if not work.is_same():
        work.draft.finish(files)
        switch.replace(out)
    _keep_spare(out, files.count)
    return report


def _as_it_is(out: Path) -> dict[str, str]:
    """What the present site holds, read file by file; no key is known of it."""
    if not out.is_dir():
        return {}
    paths = (path for path in list_files(out) if path != NAME)
    return {path: block(KEPT, {path: record(KEPT, (out / path).read_bytes())}) for path in paths}


@dataclass
class _Work:
    """One build under way. Files are compared by the lines of `reports.manifest.Blocks`."""

    out: Path
    had: Mapping[str, str]
    """Lines of the present site."""
    reuse: bool
    """The keys of the present site hold."""
    lines: dict[str, str] = field(default_factory=dict)
    """Of the new one."""
    written: list[str] = field(default_factory=list)
    rendered: int = 0
    _draft: Draft | None = None

    @property
    def draft(self) -> Draft:
        if self._draft is None:
            self._draft = Draft(switch.spare(self.out), self.out, lambda: self._files)
        return self._draft

    @cached_property
    def _files(self) -> dict[str, Record]:
        """Of the present site, one by one."""
        return {path: each for line in self.had.values() for path, each in files_of(line).items()}

    def take(self, items: Iterable[Entry | Bundle]) -> None:
        """Render what may differ."""
        for item in items:
            name, key = item.name if isinstance(item, Bundle) else item.path, item.key[:_KEY]
            if name in self.lines or name == NAME:
                raise AssertionError(f"two entries of the plan are {name}")
            old = self.had.get(name) if self.reuse else None
            if old is not None and old.startswith(f"{key}\t"):
                self.lines[name] = old
            else:
                entries = item.entries() if isinstance(item, Bundle) else (item,)
                self.lines[name] = block(key, self._rendered(entries, {} if old is None else files_of(old)))

    def _rendered(self, entries: Iterable[Entry], old: Mapping[str, Record]) -> dict[str, Record]:
        """Files of one line; `old` holds those whose keys may hold as well."""
        files: dict[str, Record] = {}
        for entry in entries:
            key, before = entry.key[:32], old.get(entry.path)
            if before is not None and before.key == key:
                files[entry.path] = before
                continue
            content = entry.render()
            data = content if isinstance(content, bytes) else content.encode("utf-8")
            self.rendered += 1
            new = files[entry.path] = record(key, data)
            before = before if self.reuse else self._files.get(entry.path)
            if before is None or before.sha256 != new.sha256:
                self.draft.write(entry.path, data)
                self.written.append(entry.path)
        return files

    def keep_digests(self) -> None:
        """The archive of earlier weeks, also what was put there without a build."""
        for path, line in _digests_of(self.out).items():
            self.lines.setdefault(path, line)

    def is_same(self) -> bool:
        return self.reuse and self.lines == self.had and not _strays(self.out, self.lines)

    def removed(self) -> tuple[str, ...]:
        """Files of the present site that are not of the new one."""
        gone: set[str] = set(_strays(self.out, self.lines))
        new: set[str] = set()
        for lines, others, found in ((self.had, self.lines, gone), (self.lines, self.had, new)):
            for name, line in lines.items():
                if others.get(name) != line:
                    found.update(files_of(line))
        return tuple(sorted(gone - new))


def _digests_of(out: Path) -> dict[str, str]:
    """Digest files by path, as they are."""
    found = {}
    for path in sorted((out / "digest").glob("*")):
        if _DIGEST.fullmatch(path.name):
            name = f"digest/{path.name}"
            found[name] = block(KEPT, {name: record(KEPT, path.read_bytes())})
    return found


def _strays(out: Path, lines: Mapping[str, str]) -> set[str]:
    """Files in the digests' folder that are not of the site."""
    return {f"digest/{path.name}" for path in (out / "digest").glob("*")} - lines.keys()


def _keep_spare(out: Path, files: int) -> None:
    spare = switch.spare(out)
    if files < SPARE_FROM:
        if spare.exists():
            shutil.rmtree(spare)
    elif not spare.exists():
        copy_links(out, spare)


def _refuse_foreign(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / NAME).is_file()):
        raise NotASiteError(f"{out} was not built by forkwatch and is not empty")
