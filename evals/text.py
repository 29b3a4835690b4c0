"""Plain-text helpers shared by the judge and the metrics. No model, no language assumed."""

from __future__ import annotations

import re
import unicodedata

SHINGLE = 8
"""Characters in a repeated unit test: longer than most words, shorter than most phrases."""

DISTINCT_SHINGLES = 0.35
"""Below this share of distinct shingles a text is a loop: one unit said three times or more."""

MIN_LOOP = 48
"""Characters; a shorter text is too short to call a loop."""

_SPACES = re.compile(r"\s+")
_QUOTES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "“": '"', "”": '"', "…": "..."})


def normalise(text: str) -> str:
    """Compatibility characters folded, straight quotes, lower case, single spaces, no markup stars."""
    folded = unicodedata.normalize("NFKC", text).translate(_QUOTES).casefold()
    return _SPACES.sub(" ", folded.replace("*", "").replace("#", "")).strip()


def is_degenerate(text: str) -> bool:
    """Whether an answer is empty, without a letter or digit, or a loop.

    A loop is told by the share of distinct character shingles, so scripts without spaces are covered too.
    """
    plain = normalise(text)
    if not any(character.isalnum() for character in plain):
        return True
    if len(plain) < MIN_LOOP:
        return False
    shingles = [plain[start : start + SHINGLE] for start in range(len(plain) - SHINGLE + 1)]
    return len(set(shingles)) < DISTINCT_SHINGLES * len(shingles)
