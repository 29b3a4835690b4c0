"""Build the site beside the old one: render what has another key now, keep the rest, switch in one step."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from reports import switch
from reports.draft import Draft, copy_links, list_files
from reports.interface import EmptySiteError, NotASiteError, SiteView
from reports.manifest import KEPT, NAME, Blocks, Record, block, files_of, read_blocks, record
from reports.pieces import Pieces
from reports.plan import Bundle, Entry, template_set
from reports.sharing import MOST, can_share, shared
from reports.site import plan

SPARE_FROM = 2_000
"""Files of a site from which on the former site stays beside it, hidden, to be brought up to date by the next
build. A site of 100,000 files takes half a minute to delete and seconds to link anew; a small one nothing."""

SHARED_FROM = 500
"""Forks of a site from which on two processes render: with fewer the second is not worth its start."""
_LISTS, _FORKS = 3, 32
"""Files about many forks, and forks, that a process takes at a time. Files that share work are neighbours."""

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


def build_site(
    view: SiteView,
    out: Path,
    *,
    full: bool = False,
    pieces: Path | None = None,
    before_fork: Callable[[], None] | None = None,
) -> BuildReport:
    """Build the whole site at `out`. The same view gives the same bytes, whatever was there before.

    Digests of earlier weeks (`digest/`) are carried over from the site that is replaced.

    Args:
        view: what it says.
        out: its folder.
        full: render every file, whatever the manifest of the last build says.
        pieces: the file in which `reports.pieces` are kept; None keeps none.
        before_fork: this process may be forked, so that two render a large site: closes what the view reads
            from, which is opened anew when it is asked. None: one process renders, see `reports.sharing`.

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
            return _build(view, out, None if full else read_blocks(out), pieces, before_fork)
        except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, ValueError):
            # Somebody changed the site, or the spare, by hand: what is left is looked at file by file.
            shutil.rmtree(switch.spare(out), ignore_errors=True)
            return _build(view, out, None, pieces, before_fork)


def _build(
    view: SiteView,
    out: Path,
    present: Blocks | None,
    pieces: Path | None,
    before_fork: Callable[[], None] | None,
) -> BuildReport:
    reuse = present is not None and present.templates == template_set()
    work = _Work(out, _as_it_is(out) if present is None else present.lines, reuse=reuse)
    kept = Pieces(pieces, anew=not work.reuse)
    changed = work.changed(plan(view, kept))
    if before_fork is None or len(work.lines) + len(changed) < SHARED_FROM or not can_share():
        work.take(map(work.rendered, changed))
    elif changed:
        work.begin()
        before_fork()
        for found in shared(list(_shares(changed)), work.all_rendered, kept.save):
            work.take(found)
    kept.save()
    work.keep_digests()
    files = Blocks(work.lines)
    report = BuildReport(tuple(sorted(work.written)), work.removed(), work.rendered_files, files)
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


@dataclass(frozen=True, slots=True)
class _Rendered:
    """Files of one line, as far as they had to be rendered."""

    name: str
    line: str
    written: tuple[str, ...]
    """Those with another content."""
    count: int


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
    rendered_files: int = 0
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

    def begin(self) -> None:
        """Look at what there is, which two processes would do twice."""
        _ = self.draft
        _ = self.reuse or self._files

    def changed(self, items: Iterable[Entry | Bundle]) -> list[Entry | Bundle]:
        """What may differ from the present site. The rest is noted as it is."""
        found: dict[str, Entry | Bundle] = {}
        for item in items:
            name, key = _name(item), item.key[:_KEY]
            if name in self.lines or name in found or name == NAME:
                raise AssertionError(f"two entries of the plan are {name}")
            old = self.had.get(name) if self.reuse else None
            if old is not None and old.startswith(f"{key}\t"):
                self.lines[name] = old
            else:
                found[name] = item
        return list(found.values())

    def all_rendered(self, items: Iterable[Entry | Bundle]) -> list[_Rendered]:
        """Of some of them."""
        return [self.rendered(item) for item in items]

    def rendered(self, item: Entry | Bundle) -> _Rendered:
        """Render files of one line whose keys do not hold; new contents are written to the draft."""
        name, entries = _name(item), item.entries() if isinstance(item, Bundle) else (item,)
        line = self.had.get(name) if self.reuse else None
        old = {} if line is None else files_of(line)
        files: dict[str, Record] = {}
        written: list[str] = []
        count = 0
        for entry in entries:
            key, before = entry.key[:32], old.get(entry.path)
            if before is not None and before.key == key:
                files[entry.path] = before
                continue
            content = entry.render()
            data = content if isinstance(content, bytes) else content.encode("utf-8")
            count += 1
            new = files[entry.path] = record(key, data)
            before = before if self.reuse else self._files.get(entry.path)
            if before is None or before.sha256 != new.sha256:
                self.draft.write(entry.path, data)
                written.append(entry.path)
        return _Rendered(name, block(item.key[:_KEY], files), tuple(written), count)

    def take(self, found: Iterable[_Rendered]) -> None:
        """Note what was rendered."""
        for each in found:
            self.lines[each.name] = each.line
            self.written += each.written
            self.rendered_files += each.count
            self.draft.note(each.written)

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


def _name(item: Entry | Bundle) -> str:
    return item.name if isinstance(item, Bundle) else item.path


def _shares(items: list[Entry | Bundle]) -> Iterator[list[Entry | Bundle]]:
    """Neighbours, a few at a time. Forks are last, so that both processes end at once."""
    lists: list[Entry | Bundle] = [item for item in items if isinstance(item, Entry)]
    forks: list[Entry | Bundle] = [item for item in items if isinstance(item, Bundle)]
    for found, least in ((lists, _LISTS), (forks, _FORKS)):
        size = max(least, -(-len(found) // (MOST // 2)))
        for start in range(0, len(found), size):
            yield found[start : start + size]


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
