"""The plan of the whole site: every file of it, in an order in which each fork is met once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

from reports.context import Fork, site_of
from reports.digest import build_digest
from reports.exports import fork_exports, release_exports, site_exports
from reports.fork_page import is_old
from reports.interface import SiteView
from reports.pages import fork_pages, release_pages, site_pages
from reports.pieces import Pieces
from reports.plan import Bundle, Entry, digest, fixed
from reports.routes import sorted_releases

ASSETS = ("site.css", "site.js", "icon.svg")


def plan(view: SiteView, pieces: Pieces | None = None) -> Iterator[Entry | Bundle]:
    """Every file of the site but its manifest.

    Files about one fork follow each other, so that its document is loaded once.
    """
    site = site_of(view, pieces)
    yield fixed(".nojekyll", "")
    for name in ASSETS:
        yield fixed(f"assets/{name}", (Path(__file__).parent / "assets" / name).read_text(encoding="utf-8"))
    yield from site_pages(site)
    yield from site_exports(site)
    week = site.week
    made = cache(lambda: build_digest(view, week, site.routes))
    yield Entry(f"digest/{week}.html", digest("digest", site.key), lambda: made().html)
    yield Entry(f"digest/{week}.txt", digest("digest text", site.key), lambda: made().text)
    for release in (site.about(release) for release in sorted_releases(view)):
        yield from release_pages(release)
        yield from release_exports(release)
        for fork in (*release.forks, *release.formers):
            yield Bundle(fork.path, f"{fork.file_key}{is_old(fork):d}", partial(_about, fork))


def _about(fork: Fork) -> Iterator[Entry]:
    yield from fork_pages(fork)
    yield from fork_exports(fork)


def entries(view: SiteView) -> Iterator[Entry]:
    """The same file by file."""
    for item in plan(view):
        yield from item.entries() if isinstance(item, Bundle) else (item,)


def site_files(view: SiteView) -> Iterator[tuple[str, str | bytes]]:
    """Every file of the site, rendered: path relative to its root, and content."""
    for entry in entries(view):
        yield entry.path, entry.render()
