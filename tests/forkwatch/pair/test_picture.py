"""The comparison on a terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from forkwatch.picture import DIGITS, RAMP, draw
from reports.diff import DiffDocument
from tests.reports import sample_diffs as samples
from tests.reports.hostile import HIDDEN, poisoned


class _Pipe(io.StringIO):
    """A stream with an encoding of its own."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only is enough
        return self._encoding


def _drawn(document: DiffDocument, width: int = 80, encoding: str = "utf-8", **options: object) -> str:
    stream = _Pipe(encoding)
    draw(document, Console(file=stream, width=width, emoji=False, **options))  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.mark.parametrize("width", [40, 80, 120, 200])
@pytest.mark.parametrize("document", [samples.llama(70, experts=3), samples.sketch()], ids=["full", "sketch"])
def test_no_line_is_wider_than_the_terminal(document: DiffDocument, width: int) -> None:
    """Seventy layers fold into several rows of columns, and prose wraps; nothing is cut off at the edge."""
    text = _drawn(document, width)

    assert [line for line in text.splitlines() if cell_len(line) > width] == []


def test_every_layer_is_drawn_when_rows_fold() -> None:
    """The folded rows of a module together have one character a layer."""
    text = _drawn(samples.llama(90))

    rows = re.findall(r"^ *o_proj  (.*)$", text, re.MULTILINE)
    assert len(rows) > 1
    assert sum(map(len, rows)) == 90
    assert "".join(rows).count("=") == 45


def test_plain_output_has_no_escapes_and_a_ramp() -> None:
    """In a pipe the shades are a ramp of block characters; where those cannot be encoded, digits."""
    utf8, ascii_only = _drawn(samples.llama(4)), _drawn(samples.llama(4), encoding="ascii")

    assert "\x1b" not in utf8
    assert RAMP[-1] in utf8
    (row,) = re.findall(r"^ *o_proj  (.*)$", ascii_only, re.MULTILINE)
    assert set(row) <= set(f"= {DIGITS}")


def test_colour_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A colour terminal gets coloured digits; NO_COLOR gets the ramp, without any colour."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = _drawn(samples.llama(4), force_terminal=True, color_system="truecolor")
    monkeypatch.setenv("NO_COLOR", "1")
    plain = _drawn(samples.llama(4), force_terminal=True, color_system="truecolor")

    assert "48;2;" in coloured
    assert re.search(r"[34]8;[25];", plain) is None
    assert RAMP[4] in plain


def test_states_are_told_apart_without_colour() -> None:
    """What was not read, only sampled, added, missing or reshaped has a character, and a legend for it."""
    text = _drawn(samples.sketch(), 200)

    (row,) = re.findall(r"^ *x  (.*)$", text, re.MULTILINE)
    assert row.split() == ["+", "-", "/", "?"]
    for words in (
        "? not measured",
        ": no change in the sampled rows",
        "+ only in the fork",
        "/ another shape",
    ):
        assert words in text
    assert "worth reading next" in text


def test_document_without_tensors() -> None:
    """An adapter or an unrelated model may leave nothing to draw; the rest is still said."""
    text = _drawn(samples.full())

    assert "edit: directional-edit (proved)" in text
    assert "change by layer" not in text


def test_hostile_names_cannot_steer_the_terminal() -> None:
    """No control, bidi or invisible character of a name reaches the terminal, and markup stays text."""
    for document in (samples.llama(2), samples.sketch()):
        text = _drawn(poisoned(document))  # type: ignore[arg-type]  # poisoned keeps the type

        assert not (set(HIDDEN) | {"\x9b"}) & set(text.replace("\n", ""))
    assert "[bold]x[/bold]" in _drawn(samples.full(fork="[bold]x[/bold]"))
