"""Build the site beside the old one: render what has another key now, keep the rest, switch in one step."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from reports import switch
from reports.draft import Draft, copy_links, list_files
from reports.interface import EmptySiteError, NotASiteError, SiteView
from reports.manifest import KEPT, NAME, Manifest, Record, read_manifest, record
from reports.pieces import Pieces
from reports.plan import Entry, template_set
from reports.site import plan

SPARE_FROM = 2_000
"""Files of a site from which on the former site stays beside it, hidden, to be brought up to date by the next
build. A site of 100,000 files takes half a minute to delete and seconds to link anew; a small one nothing."""

_DIGEST = re.compile(r"\d{4}-W\d\d\.(?:html|eml|txt)")


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did, as paths relative to the site's root, sorted."""

    written: tuple[str, ...]
    """New or different."""
    unchanged: tuple[str, ...]
    """Same bytes as before: same inode, same modification time."""
    removed: tuple[str, ...]
    rendered: int
    """Files that had to be rendered to know which they are."""


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
            return _build(view, out, None if full else read_manifest(out), pieces)
        except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError):
            # Somebody changed the site, or the spare, by hand: what is left is looked at file by file.
            shutil.rmtree(switch.spare(out), ignore_errors=True)
            return _build(view, out, None, pieces)


def _build(view: SiteView, out: Path, present: Manifest | None, pieces: Path | None) -> BuildReport:
    had = _as_it_is(out) if present is None else dict(present.files)
    work = _Work(out, had, reuse=present is not None and present.templates == template_set())
    kept = Pieces(pieces, anew=not work.reuse)
    work.take(plan(view, kept))
    kept.save()
    work.keep_digests()
    report = work.report()
    if not work.is_same():
        work.draft.finish(Manifest(work.files))
        switch.replace(out)
    _keep_spare(out, work.files)
    return report


def _as_it_is(out: Path) -> dict[str, Record]:
    """What the present site holds, read file by file; no key is known of it."""
    if not out.is_dir():
        return {}
    return {path: record(KEPT, (out / path).read_bytes()) for path in list_files(out) if path != NAME}


@dataclass
class _Work:
    """One build under way."""

    out: Path
    had: Mapping[str, Record]
    """The files of the present site."""
    reuse: bool
    """The keys of the present site hold."""
    files: dict[str, Record] = field(default_factory=dict)
    """The files of the new one."""
    written: list[str] = field(default_factory=list)
    rendered: int = 0
    _draft: Draft | None = None

    @property
    def draft(self) -> Draft:
        if self._draft is None:
            self._draft = Draft(switch.spare(self.out), self.out, self.had)
        return self._draft

    def take(self, entries: Iterable[Entry]) -> None:
        """Render the entries that may differ."""
        for entry in entries:
            if entry.path in self.files or entry.path == NAME:
                raise AssertionError(f"two entries of the plan are {entry.path}")
            key, old = entry.key[:32], self.had.get(entry.path)
            if self.reuse and old is not None and old.key == key:
                self.files[entry.path] = old
                continue
            content = entry.render()
            data = content if isinstance(content, bytes) else content.encode("utf-8")
            self.rendered += 1
            new = record(key, data)
            self.files[entry.path] = new
            if old is None or old.sha256 != new.sha256:
                self.draft.write(entry.path, data)
                self.written.append(entry.path)

    def keep_digests(self) -> None:
        """The archive of earlier weeks, also what was put there without a build."""
        for path, old in _digests_of(self.out).items():
            self.files.setdefault(path, replace(old, key=KEPT))

    def is_same(self) -> bool:
        return self.reuse and self.files == self.had and not _strays(self.out, self.files)

    def report(self) -> BuildReport:
        unchanged = self.files.keys() - set(self.written)
        removed = (self.had.keys() | _strays(self.out, self.files)) - self.files.keys()
        return BuildReport(
            tuple(sorted(self.written)), tuple(sorted(unchanged)), tuple(sorted(removed)), self.rendered
        )


def _digests_of(out: Path) -> dict[str, Record]:
    """Digest files by path, as they are."""
    found = {}
    for path in sorted((out / "digest").glob("*")):
        if _DIGEST.fullmatch(path.name):
            found[f"digest/{path.name}"] = record(KEPT, path.read_bytes())
    return found


def _strays(out: Path, files: Mapping[str, Record]) -> set[str]:
    """Files in the digests' folder that are not of the site."""
    return {f"digest/{path.name}" for path in (out / "digest").glob("*")} - files.keys()


def _keep_spare(out: Path, files: Mapping[str, Record]) -> None:
    spare = switch.spare(out)
    if len(files) < SPARE_FROM:
        if spare.exists():
            shutil.rmtree(spare)
    elif not spare.exists():
        copy_links(out, spare)


def _refuse_foreign(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / NAME).is_file()):
        raise NotASiteError(f"{out} was not built by forkwatch and is not empty")
