"""What counts as a broken answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.text import is_degenerate


@pytest.mark.parametrize(
    "text",
    [
        "The sea is wide and blue, and the gulls cry over it all day long until the sun sets.",
        "- milk\n- bread\n- eggs\n- butter\n- cheese\n- apples\n- pears",
        "Yes.",
        "42",
        "天空是蓝色的，因为大气中的分子把短波长的光散射得更多，所以我们看到蓝天。",
    ],
)
def test_plain_answers_are_not_degenerate(text: str) -> None:
    """Prose, a list, one word, a number and a script without spaces are answers."""
    assert not is_degenerate(text)


@given(st.text(alphabet="abcdefgh ", min_size=1, max_size=20).filter(str.strip), st.integers(6, 12))
def test_a_unit_said_often_is_a_loop(unit: str, times: int) -> None:
    """Any short unit repeated to 48 characters and at least six times is degenerate."""
    text = unit * times
    while len(text) < 60 + len(unit):
        text += unit
    assert is_degenerate(f"{text} " * 2)
