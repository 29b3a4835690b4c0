"""Pieces of files about a whole release: kept while their key holds, and never seen in what is built."""

from __future__ import annotations

import pickle
import posixpath
import random
import sqlite3
import unicodedata
from contextlib import closing
from datetime import date
from enum import StrEnum

import pytest

from reports import pieces, text, verdicts
from reports.context import site_of
from reports.exports import site_exports
from reports.pieces import Pieces
from reports.plan import digest_of
from reports.routes import relative
from tests.reports.exports.built import hostile_view, view


class VerdictLabelOf(StrEnum):
    """A text that is more than a text."""

    A = "a"


def refuse() -> str:
    """For a piece that is known."""
    raise AssertionError("made anew")


def test_a_piece_is_made_once_for_a_key(tmp_path):
    """Over two builds; another kind, name or key is another piece."""
    first = Pieces(tmp_path / "pieces.db")
    assert first.text("row", "a", "1", lambda: "one") == "one"
    assert first.text("row", "a", "1", refuse) == "one"
    assert first.text("csv", "a", "1", lambda: "two") == "two"
    assert first.text("row", "a", "1", refuse) == "one"
    first.save()
    second = Pieces(tmp_path / "pieces.db")
    assert second.text("csv", "a", "1", refuse) == "two"
    assert second.text("csv", "a", "2", lambda: "three") == "three"
    assert second.text("csv", "b", "2", lambda: "four") == "four"


@pytest.mark.parametrize("few", [0, 3, 100])
def test_pieces_are_found_however_many_are_asked_for(tmp_path, monkeypatch, few):
    """One by one or all of a kind; some new, some with another key, before and after they were written."""
    monkeypatch.setattr(pieces, "_FEW", few)
    monkeypatch.setattr(pieces, "_UNSAVED", 7)
    kept = Pieces(tmp_path / "pieces.db")
    rng = random.Random(8)
    known: dict[tuple[str, str], str] = {}
    for step in range(200):
        kind, names = rng.choice(("row", "csv")), rng.sample("abcdefgh", rng.randint(1, 8))
        wanted = [(name, known.get((kind, name), "1"), name) for name in names]
        if rng.random() < 0.3:
            wanted[0] = names[0], f"{step}", names[0]
        anew = {name for name, key, _ in wanted if known.get((kind, name)) != key}
        made: list[str] = []
        texts = kept.texts(kind, wanted, lambda name: made.append(name) or name)  # noqa: B023
        assert (texts, set(made)) == (names, anew)
        known |= {(kind, name): key for name, key, _ in wanted}
        if rng.random() < 0.2:
            kept.save()
            kept = Pieces(tmp_path / "pieces.db")


def test_keys_of_equal_values_are_equal():
    """However the values came to be; what has no one way to be written is refused."""
    long = "".join(["forks/", "a" * 30])
    shared = (long, [long, 1, 2.5, None, ("\udc80",)], long)
    apart = (long[:9] + long[9:], ["".join(list(long)), 1, 2.5, None, ("\udc80",)], f"{long}")
    assert digest_of(shared) == digest_of(apart) == digest_of(pickle.loads(pickle.dumps(shared)))
    assert len({digest_of(each) for each in ((1,), ("1",), ((1,),), ([1],), (True,), (1.0,), (None,))}) == 7
    for other in (object(), VerdictLabelOf("a"), date(2026, 1, 1)):
        with pytest.raises(ValueError, match="unmarshallable"):
            digest_of((other,))


@pytest.mark.parametrize("damage", ["broken", "no-table", "other-templates", "anew"])
def test_a_file_that_does_not_hold_counts_as_empty(tmp_path, damage):
    """And is written again."""
    path = tmp_path / "pieces.db"
    old = Pieces(path)
    old.text("row", "a", "1", lambda: "old")
    old.save()
    match damage:
        case "broken":
            path.write_bytes(b"no data base" * 1000)
        case "no-table" | "other-templates":
            change = (
                "DROP TABLE piece" if damage == "no-table" else "UPDATE piece SET text = '' WHERE kind = ''"
            )
            with closing(sqlite3.connect(path)) as file, file:
                file.execute(change)
    new = Pieces(path, anew=damage == "anew")
    assert new.text("row", "a", "1", lambda: "new") == "new"
    new.save()
    assert Pieces(path).text("row", "a", "1", refuse) == "new"


@pytest.mark.parametrize("made", [view, hostile_view], ids=["sample", "hostile"])
def test_verdicts_from_pieces_are_the_verdicts(made):
    """What is put together from rows is what writing the whole document gives."""
    (entry,) = [each for each in site_exports(site_of(made())) if each.path == "verdicts.json"]
    assert entry.render() == verdicts.verdicts_json(made())


@pytest.mark.parametrize("source", ["index.html", "a/index.html", "a/b/c.html", "a/c/d/e.html"])
@pytest.mark.parametrize(
    "target", ["index.html", "a/index.html", "a/b/index.html", "b/a/b.html", "a/b/c.html"]
)
def test_relative_links_are_what_posixpath_says(source, target):
    """Without asking for the working directory, as that does."""
    assert relative(source, target) == posixpath.relpath(target, posixpath.dirname(source) or ".")


def test_plain_text_holds_nothing_that_is_removed():
    """Of all letters that pass unseen, one by one."""
    plain = [char for char in map(chr, range(0x110000)) if text._PLAIN.fullmatch(char)]
    assert len(plain) > 700
    assert not {unicodedata.category(char) for char in plain} & (text._HIDDEN | {"Mn", "Me", "Zl", "Zp"})
