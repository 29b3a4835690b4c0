"""Character n-grams of texts, hashed to buckets as scikit-learn's HashingVectorizer does, in numpy alone.

No vocabulary is kept, so nothing of the training texts is republished. Equal to
`HashingVectorizer(analyzer="char", ngram_range=(1, 4), lowercase=False, alternate_sign=False)` bucket by
bucket, which is tested; scikit-learn hashes one n-gram at a time, this hashes all at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Indices = NDArray[np.int64]
    Words = NDArray[np.uint32]

BUCKETS = 1 << 18
LONGEST = 4
"""Characters of the longest n-gram."""
MAX_CHARACTERS = 4000
"""Of one text; the rest is not looked at."""
_CHUNK = 256
"""Texts hashed at once: about 20 MB of working memory at 1,000 characters each."""
_SPACES = re.compile(r"\s\s+")


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """How often each bucket occurs in each text; sorted by text, then bucket."""

    texts: int
    row: Indices
    """(entries,) number of the text."""
    bucket: Indices
    """(entries,)"""
    count: Indices
    """(entries,) at least 1."""


def count_ngrams(texts: Sequence[str]) -> Counts:
    """The hashed n-grams of 1 to `LONGEST` characters of each text. The same texts give the same counts."""
    keys, counts = [], []
    for start in range(0, len(texts), _CHUNK):
        chunk = [_plain(text) for text in texts[start : start + _CHUNK]]
        key, count = np.unique(_keys(chunk), return_counts=True)
        keys.append(key + start * BUCKETS)
        counts.append(count)
    key = np.concatenate([np.empty(0, np.int64), *keys])
    count = np.concatenate([np.empty(0, np.int64), *counts])
    return Counts(len(texts), key // BUCKETS, key % BUCKETS, count)


def _plain(text: str) -> str:
    """Bounded, with runs of white space as one space; a lone surrogate has no UTF-8."""
    encoded = text[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
    return _SPACES.sub(" ", encoded)


def _keys(texts: Sequence[str]) -> Indices:
    """`row * BUCKETS + bucket` of every n-gram of every text, repeated as often as it occurs."""
    data = np.frombuffer("".join(texts).encode("utf-8"), np.uint8)
    starts = np.flatnonzero((data & 0xC0) != 0x80)  # the first byte of each character
    ends = np.append(starts[1:], len(data))
    lengths = np.array([len(text) for text in texts], np.int64)
    rows = np.repeat(np.arange(len(texts), dtype=np.int64), lengths)
    last = np.repeat(lengths.cumsum(), lengths)  # one past the last character of the text
    keys = []
    for n in range(1, LONGEST + 1):
        first = np.flatnonzero(np.arange(len(starts)) + n <= last)
        begin, size = starts[first], ends[first + n - 1] - starts[first]
        for length in np.unique(size):
            chosen = size == length
            window = data[begin[chosen, None] + np.arange(length)]
            keys.append(rows[first[chosen]] * BUCKETS + _buckets(_murmur(window)))
    return np.concatenate([np.empty(0, np.int64), *keys])


def _buckets(hashed: Words) -> Indices:
    return np.abs(hashed.view(np.int32).astype(np.int64)) % BUCKETS


def _murmur(window: NDArray[np.uint8]) -> Words:
    """MurmurHash3 (x86, 32 bits, seed 0; Appleby, public domain) of each row of bytes, (n, length) → (n,)."""
    count, length = window.shape
    padded = np.zeros((count, -(-length // 4) * 4), np.uint8)
    padded[:, :length] = window
    blocks = padded.view("<u4").astype(np.uint32)
    state = np.zeros(count, np.uint32)
    for i in range(length // 4):
        state = _rotated(state ^ _mixed(blocks[:, i]), 13) * np.uint32(5) + np.uint32(0xE6546B64)
    if length % 4:
        state ^= _mixed(blocks[:, -1])
    state ^= np.uint32(length)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        state = (state ^ (state >> np.uint32(shift))) * np.uint32(factor)
    return state ^ (state >> np.uint32(16))


def _mixed(block: Words) -> Words:
    return _rotated(block * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)


def _rotated(word: Words, by: int) -> Words:
    return (word << np.uint32(by)) | (word >> np.uint32(32 - by))
