"""Hostile text becomes inert, and names become paths that never meet."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.text import clean, is_https_url, is_mail_address, is_repo_id, repo_folder, slug

ANY = st.text(st.characters())


@given(ANY)
def test_nothing_invisible_is_left(text):
    """No control, bidi, surrogate or private character survives, whatever the text."""
    shown = clean(text)
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert clean(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a/b", "a/b"),
        ("\x1b[31;1mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "]0;titlex"),
        ("abc\u202etxt.exe", "abctxt.exe"),
        ("one\ntwo\r\n\u2028three", "one two   three"),
        ("Z" + "\u0301" * 50, "Z" + "\u0301" * 4),
        ("größe 模型 ü", "größe 模型 ü"),
    ],
)
def test_what_is_shown(text, shown):
    """Escapes go, line breaks become spaces, other scripts stay."""
    assert clean(text) == shown


@given(ANY, st.integers(2, 50))
def test_the_limit_holds(text, limit):
    """No text is longer than its limit, and a cut shows."""
    shown = clean(text, limit)
    assert len(shown) <= limit


def test_a_cut_shows():
    """A shortened text ends in an ellipsis."""
    assert clean("x" * 10_000, 96) == "x" * 95 + "…"


@given(ANY)
def test_a_slug_is_one_safe_segment(name):
    """No separator, no dot name, no capital, no character that a URL would escape, bounded length."""
    segment = slug(name)
    assert 1 <= len(segment) <= 96
    assert set(segment) <= set("abcdefghijklmnopqrstuvwxyz0123456789._~-")
    assert segment.strip(".") == segment


@given(st.lists(st.text("aAbB.-_~/ \u0130", max_size=6), unique=True, max_size=30))
def test_two_names_never_share_a_slug(names):
    """Also where upper and lower case are the same file."""
    assert len({slug(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    "name", ["..", ".", "", "con", "NUL", "aux.txt", ".git", "a.", "../../etc/passwd", "a\\b"]
)
def test_names_that_a_file_system_reserves(name):
    """They get a digest instead of their own name."""
    assert "~" in slug(name)


def test_a_plain_name_keeps_its_address():
    """Addresses of ordinary repositories can be guessed; case makes them longer, never ambiguous."""
    assert repo_folder("org/model-1.5_b") == "org/model-1.5_b"
    assert repo_folder("Org/model") != repo_folder("org/model")
    assert repo_folder("Org/model").endswith("/model")
    assert repo_folder("../../x").startswith("~/")


@pytest.mark.parametrize("text", ["a/b", "Meta-Llama/x.y_z-1"])
def test_repo_ids(text):
    """What the Hub allows is an id."""
    assert is_repo_id(text)


@pytest.mark.parametrize("text", ["a", "a/b/c", "a/..", "./b", "a/b;rm", "a/b\n", "ä/b", "a/" + "b" * 97, ""])
def test_not_repo_ids(text):
    """What a shell or a path could trip over is none."""
    assert not is_repo_id(text)


def test_addresses():
    """Only plain https and mail addresses become links."""
    assert is_https_url("https://example.org/forks/")
    assert not any(
        map(
            is_https_url,
            ["http://a.b/", "javascript:1", "https://a.b/?q=1", 'https://a.b/"x', "https://u@a.b/"],
        )
    )
    assert is_mail_address("a.b+c@example.org")
    assert not any(map(is_mail_address, ["a@b", "a@b.c?subject=x", "x", "<a@b.c>", "a b@c.d"]))
