"""CSV that a spreadsheet can open without running anything (RFC 4180: CRLF, quotes doubled, UTF-8).

A cell of text that a spreadsheet could take for a formula gets an apostrophe in front: the guard that OWASP
describes as "CSV injection". Numbers are ours and stay numbers. The exact text is in the JSON exports.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from reports.text import clean

Cell = str | int | float | bool | None

_STARTS = frozenset("=+-@\t\r\n|%＝＋－＠")
"""First characters of formulas, of old DDE links, and their full-width twins, which some programs fold."""

MOST = 1000
"""Characters of one cell."""


def to_csv(columns: Sequence[str] | None, rows: Iterable[Sequence[Cell]]) -> bytes:
    """A table with a header line, unless there are no columns. Nothing (None) is an empty cell."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    if columns is not None:
        writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return out.getvalue().encode("utf-8")


def _cell(value: Cell) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
    return guarded(clean(value, MOST))


def guarded(text: str) -> str:
    """`text` so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text.lstrip()[:1] in _STARTS and text.strip() else text
