"""Hostile text, made fit for a terminal or a log line."""

from __future__ import annotations

import unicodedata

_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def plain(text: str, limit: int = 300) -> str:
    """`text` on one line: control, bidi and other invisible characters escaped, cut at `limit` characters."""
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    shown = "".join(
        char if unicodedata.category(char) not in _UNSAFE else _escaped(char) for char in text[: limit + 1]
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _escaped(char: str) -> str:
    return " " if char in "\t\n\r" else f"\\u{{{ord(char):x}}}"
