"""Tables that the user names: what other tools write, and what they get wrong."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from evals.tables import InputFileError, optional_cell, parse_rows, read_rows

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\ue00d"), max_size=30)


@settings(max_examples=50)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_a_csv_comes_back_as_it_was_written(rows: list[tuple[str, str]]) -> None:
    """Whatever the cells hold: quotes, lines of any kind, separators of other alphabets."""
    file = io.StringIO(newline="")
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    found = parse_rows(file.getvalue().encode(), ".csv")
    assert [(row["a"], row["b"]) for row in found] == rows


def test_a_carriage_return_in_a_bare_cell_starts_no_row() -> None:
    """As pandas writes it; read naively this is three rows."""
    found = parse_rows(b"id,prompt\n1,first\rsecond\n2,other\n", ".csv")
    assert [row["prompt"] for row in found] == ["first\rsecond", "other"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_end_of_line(end: str) -> None:
    """Of Unix, Windows and old Macs; with a byte order mark."""
    raw = b"\xef\xbb\xbf" + end.join(["id,prompt", "1,x", "2,y", ""]).encode()
    assert parse_rows(raw, ".csv") == [{"id": "1", "prompt": "x"}, {"id": "2", "prompt": "y"}]


def test_parquet(tmp_path: Path) -> None:
    """Read where pyarrow is installed; damage is an error."""
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"prompt": ["x", "y"], "n": [1, 2]}), path)
    assert read_rows(path) == [{"prompt": "x", "n": 1}, {"prompt": "y", "n": 2}]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputFileError, match=r"a\.parquet: it is damaged"):
        read_rows(path)


@pytest.mark.parametrize(
    "raw", [b"\xff,a\n1,2\n", b'a,b\n"1,2\n', b'a\n"1"2\n', b"a\n\x00\n", "a\n\ue00d\n".encode()]
)
def test_damaged_csv_is_an_error(raw: bytes) -> None:
    """Not UTF-8, an open quote, text after a quote, a null, our own placeholder."""
    try:
        found = parse_rows(raw, ".csv")
    except InputFileError:
        return
    assert found == [{"a": "\x00"}]  # Python 3.11 and later take a null for text


def test_cells_are_text() -> None:
    """Numbers and truth values as JSON writes them, nothing for nothing, no lists, no lone surrogates."""
    row = {"n": 1, "t": True, "none": None, "list": [1], "bad": "\ud800"}
    assert [optional_cell(row, name, "row") for name in ("n", "t", "none", "gone")] == ["1", "true", "", ""]
    for name in ("list", "bad"):
        with pytest.raises(InputFileError):
            optional_cell(row, name, "row")
