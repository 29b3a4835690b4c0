"""Finding pages: our Markdown, and nothing active in it."""

from __future__ import annotations

import pytest

from reports.markdown import to_html
from tests.reports.html_tools import parse


def render(text: str) -> str:
    return str(to_html(text, {"known"}, lambda finding: f"{finding}.html"))


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](data:text/html;base64,AA)",
        "[x](http://example.org)",
        "[x](//example.org)",
        "[x](../../secret.md)",
        "[x](unknown.md)",
        "[x](../known.md)",
        "![x](https://example.org/pixel.png)",
        '[x](https://example.org "a\\" onmouseover=alert(1)")',
    ],
)
def test_nothing_becomes_active(text):
    """Raw HTML, script links, images and links to nowhere end as text."""
    page = parse(render(text))
    assert {tag for tag, _ in page.tags} <= {"p", "a"}
    assert all(set(attrs) <= {"href", "rel"} for _, attrs in page.tags)
    assert all(link.startswith("https://example.org") for link in page.links)


def test_what_is_kept():
    """Headings below the first, lists, code, tables, links to findings and to https."""
    html = render(
        "# Title\n\n## A\n\n- [k](known.md)\n- [s](https://example.org/s)\n\n`x < y`\n\n"
        "| a | b |\n|---|--:|\n| 1 | 2 |\n"
    )
    page = parse(html)
    assert not page.all("h1")
    assert page.links == ["known.html", "https://example.org/s"]
    assert page.all("th") == [{"scope": "col"}] * 2
    assert page.all("div")[0]["tabindex"] == "0"
    assert "x < y" in page.text
