"""The static site: build it beside the old one, keep what did not change, switch in one step."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reports import switch
from reports.context import site_of
from reports.digest import build_digest
from reports.exports import fork_exports, release_exports, site_exports
from reports.interface import EmptySiteError, NotASiteError, SiteView
from reports.pages import fork_pages, release_pages, site_pages
from reports.plan import Entry, digest, fixed
from reports.routes import sorted_releases

MARKER = ".forkwatch-site"
"""A file that says: this folder was written by `build_site`, which may replace it."""

ASSETS = ("site.css", "site.js", "icon.svg")

_DIGEST = re.compile(r"\d{4}-W\d\d\.(?:html|eml)")


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did, as paths relative to the site's root, sorted."""

    written: tuple[str, ...]
    """New or different."""
    unchanged: tuple[str, ...]
    """Same bytes as before: same inode, same modification time."""
    removed: tuple[str, ...]


def build_site(view: SiteView, out: Path) -> BuildReport:
    """Build the whole site at `out`. The same view gives the same bytes.

    Digests of earlier weeks (`digest/`) are carried over from the site that is replaced.

    Raises:
        EmptySiteError: no release has a single candidate.
        NotASiteError: `out` holds something that is not a site of ours.
    """
    if not any(release.scans or release.gaps for release in view.releases):
        raise EmptySiteError("no candidate has been examined yet, so there is nothing to publish")
    out = out.resolve()
    with switch.sole_builder(out):
        _refuse_foreign(out)
        new = switch.prepare(out)
        written, unchanged = _fill(view, new, out)
        before = _listing(out)
        report = BuildReport(
            written=tuple(sorted(written)),
            unchanged=tuple(sorted(unchanged)),
            removed=tuple(sorted(before - set(written) - set(unchanged))),
        )
        if report.written or report.removed:
            switch.replace(out)
        else:
            shutil.rmtree(new)
    return report


def plan(view: SiteView) -> Iterator[Entry]:
    """Every file of the site. Files about one fork follow each other, so that its document is loaded once."""
    site = site_of(view)
    yield fixed(MARKER, "forkwatch.site/1\n")
    yield fixed(".nojekyll", "")
    for name in ASSETS:
        yield fixed(f"assets/{name}", (Path(__file__).parent / "assets" / name).read_text(encoding="utf-8"))
    yield from site_pages(site)
    yield from site_exports(site)
    week = site.week
    yield Entry(f"digest/{week}.html", digest("digest", site.key), lambda: build_digest(view, week).html)
    for release in (site.about(release) for release in sorted_releases(view)):
        yield from release_pages(release)
        yield from release_exports(release)
        for fork in (*release.forks, *release.formers):
            yield from fork_pages(fork)
            yield from fork_exports(fork)


def site_files(view: SiteView) -> Iterator[tuple[str, str | bytes]]:
    """Every file of the site, rendered: path relative to its root, and content."""
    for entry in plan(view):
        yield entry.path, entry.render()


def _fill(view: SiteView, new: Path, out: Path) -> tuple[list[str], list[str]]:
    """Write all files to `new`, linking those that `out` already has with the same bytes."""
    written: list[str] = []
    unchanged: list[str] = []
    for path, content in site_files(view):
        data = content if isinstance(content, bytes) else content.encode("utf-8")
        (new / path).parent.mkdir(parents=True, exist_ok=True)
        if _same(out / path, data):
            _link(out / path, new / path)
            unchanged.append(path)
        else:
            (new / path).write_bytes(data)
            written.append(path)
    for old in sorted((out / "digest").glob("*")):
        path = f"digest/{old.name}"
        if _DIGEST.fullmatch(old.name) and not (new / path).exists():
            _link(old, new / path)
            unchanged.append(path)
    return written, unchanged


def _same(path: Path, data: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except OSError:  # A file system without hard links: a copy that keeps the time serves as well.
        shutil.copy2(old, new)


def _listing(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _refuse_foreign(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file()):
        raise NotASiteError(f"{out} was not built by forkwatch and is not empty")
