"""The static site: build it beside the old one, keep what did not change, switch in one step."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reports import document, schemas, switch, tree_json, verdicts
from reports.digest import build_digest
from reports.interface import EmptySiteError, NotASiteError, SiteView
from reports.numbers import week_of
from reports.pages import pages
from reports.routes import routes, sorted_releases, sorted_replaced, sorted_scans

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


def site_files(view: SiteView) -> Iterator[tuple[str, str]]:
    """Every file of the site: path relative to its root, and text."""
    yield MARKER, "forkwatch.site/1\n"
    yield ".nojekyll", ""
    for name in ASSETS:
        yield f"assets/{name}", (Path(__file__).parent / "assets" / name).read_text(encoding="utf-8")
    yield from pages(view)
    yield "verdicts.json", verdicts.verdicts_json(view)
    for name, text in schemas.schema_files().items():
        yield f"api/v1/schema/{name}", text
    addresses = routes(view)
    for key in view.keys:
        yield addresses.key(key), key.pem
    for release in sorted_releases(view):
        for scan in sorted_scans(release):
            yield addresses.document(release, scan.repo), document.to_json(scan)
        for signed in release.signed:
            yield addresses.signed(addresses.document(release, signed.repo)), signed.bundle
        for former in sorted_replaced(release):
            place = addresses.former_document(release, former)
            yield place, document.to_json(former.scan)
            if former.signed is not None:
                yield addresses.signed(place), former.signed.bundle
        if release.tree is not None:
            yield addresses.tree(release), tree_json.to_json(release.tree)
    week = week_of(view.generated_at)
    yield f"digest/{week}.html", build_digest(view, week).html


def _fill(view: SiteView, new: Path, out: Path) -> tuple[list[str], list[str]]:
    """Write all files to `new`, linking those that `out` already has with the same bytes."""
    written: list[str] = []
    unchanged: list[str] = []
    for path, text in site_files(view):
        data = text.encode("utf-8")
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
