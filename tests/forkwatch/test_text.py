"""Hostile text on its way to a terminal."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from forkwatch.text import plain


@given(st.text(max_size=500))
def test_plain_is_one_visible_line(text: str) -> None:
    """Whatever goes in, what comes out holds no control, format or separator character, within the limit."""
    shown = plain(text, 100)

    assert all(unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in shown)
    assert len(shown) <= 100


def test_plain_keeps_ordinary_text() -> None:
    """Letters of any script and punctuation stay as they are."""
    text = "Größe 1, 模型, naïve – “quoted”"

    assert plain(text) == text
