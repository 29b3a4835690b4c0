"""What the tests need to know about a page, with the standard library's parser."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

LINKS = {"href", "src", "srcset", "action", "data", "poster"}


@dataclass
class Page:
    """Elements, links, ids and visible text of a page."""

    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""

    @property
    def links(self) -> list[str]:
        return [value for _, attrs in self.tags for name, value in attrs.items() if name in LINKS]

    @property
    def ids(self) -> list[str]:
        return [attrs["id"] for _, attrs in self.tags if "id" in attrs]

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.page.text += data


def parse(html: str) -> Page:
    """Parse one page."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    return parser.page


def pages_of(site: Path) -> dict[str, Page]:
    """Every HTML page under a folder, by path."""
    files = sorted(site.rglob("*.html"))
    return {path.relative_to(site).as_posix(): parse(path.read_text(encoding="utf-8")) for path in files}


def broken_links(site: Path) -> list[str]:
    """Internal links that lead nowhere, as `page -> link`."""
    pages = pages_of(site)
    broken = []
    for name, page in pages.items():
        for link in page.links:
            if link.startswith(("https:", "mailto:")):
                continue
            path, _, anchor = link.partition("#")
            target = (
                posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(path))) if path else name
            )
            found = (site / target).is_file()
            if not found or (anchor and target in pages and anchor not in pages[target].ids):
                broken.append(f"{name} -> {link}")
    return broken


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder with its bytes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
