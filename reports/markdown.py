"""Our own pages of findings and methodology, from Markdown to HTML.

The text is ours, yet nothing in it becomes active: raw HTML is shown as text, images are dropped, and a link
survives only when it leads to another such page or to an https address.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

_DOC_LINK = re.compile(r"(?:\./|methodology/)?([a-z0-9-]+)\.md(?:#.*)?")
"""In the folder of the page: what lies above it is not on the site, also where its name is that of a page."""


def to_html(text: str, known: Collection[str], page: Callable[[str], str]) -> Markup:
    """HTML of one page without its first heading, which the page's template shows.

    Args:
        text: CommonMark with tables.
        known: Names, without `.md`, that have a page.
        page: Link to the page of such a name.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = _without_title(parser.parse(text))
    _mark_headers(tokens)
    for token in tokens:
        if token.children is not None:
            token.children = list(_safe_links(token.children, known, page))
    return Markup(parser.renderer.render(list(_scrolling(tokens)), parser.options, {}))  # noqa: S704 - see above


def _without_title(tokens: list[Token]) -> list[Token]:
    if tokens and tokens[0].type == "heading_open" and tokens[0].tag == "h1":
        return tokens[3:]
    return tokens


def _safe_links(
    tokens: Iterable[Token], known: Collection[str], page: Callable[[str], str]
) -> Iterable[Token]:
    """Rewrite or drop links; markdown-it never nests them."""
    dropped = False
    for token in tokens:
        if token.type == "link_open":
            target = _target(str(token.attrs.get("href", "")), known, page)
            dropped = target is None
            if target is not None:
                token.attrs = {"href": target, "rel": "noopener noreferrer"}
        if not (dropped and token.type in ("link_open", "link_close")):
            yield token


def _target(href: str, known: Collection[str], page: Callable[[str], str]) -> str | None:
    match = _DOC_LINK.fullmatch(href)
    if match is not None:
        return page(match[1]) if match[1] in known else None
    return href if href.startswith("https://") else None


def _mark_headers(tokens: list[Token]) -> None:
    """Give header cells a scope; an empty one, which would head nothing, becomes a plain cell."""
    for token, content, end in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if token.type in ("td_open", "th_open"):
            token.attrs = {"scope": "col"} if token.tag == "th" else {}
            if not content.content:
                token.tag = end.tag = "td"
                token.attrs = {}


def _scrolling(tokens: Iterable[Token]) -> Iterable[Token]:
    """Put tables into a region that can be scrolled with the keyboard."""
    for token in tokens:
        if token.type == "table_open":
            attrs: dict[str, str | int | float] = {
                "class": "scroll",
                "role": "region",
                "aria-label": "Table",
                "tabindex": 0,
            }
            yield Token("scroll_open", "div", 1, attrs=attrs, block=True)
        yield token
        if token.type == "table_close":
            yield Token("scroll_close", "div", -1, block=True)
