"""A small SVG that says a fork's verdict, to embed in a page. Words carry it; colour only repeats them."""

from __future__ import annotations

from html import escape

from reports.context import Fork
from reports.scan import VerdictLabel
from reports.summary import withdrawal
from reports.words import VERDICTS

_LEFT = "forkwatch"
_WIDTH = 7
"""Pixels that a letter takes at 11 px; SVG cannot measure text, so `textLength` fits it exactly."""

_COLOURS: dict[VerdictLabel, str] = {
    "authentic": "#1f6b43",
    "faithful-conversion": "#1f6b43",
    "benign-derivative": "#2b5f9e",
    "safety-degraded": "#8a4b00",
    "safety-removed": "#9c2a12",
    "misrepresented": "#702f86",
    "unsafe-files": "#8c2257",
    "unrelated": "#565f6e",
    "inconclusive": "#565f6e",
}
"""White text on each has a contrast of at least 4.5."""


def to_svg(fork: Fork) -> bytes:
    """The badge."""
    label = fork.row.verdict.label
    words, colour = VERDICTS[label].title.lower(), _COLOURS[label]
    if withdrawal(fork.disputes) is not None:
        words, colour = "verdict withdrawn", _COLOURS["inconclusive"]
    elif any(dispute.status == "open" for dispute in fork.disputes):
        words += ", disputed"
    return badge(words, colour).encode("utf-8")


def badge(words: str, colour: str) -> str:
    """`forkwatch | words`, 20 px high."""
    left, right = len(_LEFT) * _WIDTH + 12, len(words) * _WIDTH + 12
    title = f"{_LEFT}: {words}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>'
        f'<rect width="{left}" height="20" fill="#3a4250"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{colour}"/>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f'<text x="6" y="14" textLength="{left - 12}">{_LEFT}</text>'
        f'<text x="{left + 6}" y="14" textLength="{right - 12}">{escape(words)}</text></g></svg>\n'
    )
