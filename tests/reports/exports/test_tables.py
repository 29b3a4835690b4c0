"""Tables run nothing in a spreadsheet, and read back as what they were."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.exports.rows import COLUMNS
from reports.exports.tables import guarded, to_csv
from tests.reports.exports.built import built, hostile_built

FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r=1", "|cmd", "%0A", "＝1", "=cmd|' /C calc'!A0")


def _read(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode("utf-8"), newline="")))


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_text(text):
    """It begins with an apostrophe."""
    ((cell,),) = _read(to_csv(("a",), [(text,)]))[1:]
    assert cell.startswith("'")


@given(st.text(max_size=40))
def test_a_cell_never_begins_like_a_formula(text):
    """Also after spaces, and whatever was cleaned away in front of it."""
    ((cell,),) = _read(to_csv(("a",), [(text or "x",)]))[1:] or [[""]]
    assert cell.lstrip()[:1] not in tuple("=+-@|%\t\r\n＝＋－＠")


@given(st.lists(st.text("a,\"'; é", min_size=1, max_size=9).filter(str.strip), min_size=2, max_size=4))
def test_quotes_and_separators_survive(cells):
    """What is written is what a reader of RFC 4180 gets, on one line a row."""
    data = to_csv(["c"] * len(cells), [cells])
    assert data.count(b"\r\n") == 2
    assert data.count(b"\n") == 2
    assert _read(data)[1] == [guarded(cell) for cell in cells]


def test_numbers_stay_numbers():
    """A negative number is no formula of anybody's."""
    assert to_csv(("a", "b", "c", "d"), [(-0.5, 3, True, None)]) == b"a,b,c,d\r\n-0.5,3,true,\r\n"


@pytest.mark.parametrize("files", [built, hostile_built], ids=["sample", "hostile"])
def test_forks_are_rows(files):
    """CSV and JSONL say the same of the same forks."""
    made = files()
    (table,) = (_read(data) for path, data in made.items() if path.endswith("forks.csv"))
    (lines,) = (data for path, data in made.items() if path.endswith("forks.jsonl"))
    assert tuple(table[0]) == COLUMNS
    assert {len(row) for row in table} == {len(COLUMNS)}
    objects = [json.loads(line) for line in lines.splitlines()]
    assert len(objects) == len(table) - 1
    place = COLUMNS.index("verdict")
    assert [row[place] for row in table[1:]] == [each["verdict"] for each in objects]


def test_disputes_are_columns():
    """Who reads tables sees them too."""
    (lines,) = (data for path, data in built().items() if path.endswith("forks.jsonl"))
    by_name = {
        (each := json.loads(line))["repo"]: each for line in lines.splitlines() if b'"gone_at": null' in line
    }
    assert by_name["rp/smollm2-roleplay"]["withdrawn_at"].startswith("2026-11-20")
    assert sum(each["disputed"] for each in map(json.loads, lines.splitlines())) == 1
