"""Seeds of sampled answers."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence


def row_seeds(prompts: Sequence[str], seed: int) -> list[int]:
    """A seed of 63 bits for each prompt, from its text and how often it was asked before in this call."""
    asked: Counter[str] = Counter()
    seeds: list[int] = []
    for prompt in prompts:
        material = f"{seed}/{asked[prompt]}/{prompt}".encode()
        seeds.append(int.from_bytes(hashlib.sha256(material).digest()[:8]) >> 1)
        asked[prompt] += 1
    return seeds
