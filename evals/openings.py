"""How a release begins its refusals, as token ids. No model, no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Tokens = tuple[int, ...]

LENGTH = 4
"""Tokens of an opening: "I can't help" tells what "I" does not."""

MOST = 12
"""Openings, the commonest: all together they are a few dozen tokens."""


def openings_of(refusals: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> tuple[Tokens, ...]:
    """The commonest beginnings of refusals. None begins another, so that their probabilities add.

    Args:
        refusals: Token ids of answers that refuse.
        answers: Token ids of answers that do not; what one of them begins with tells nothing and is left out.
    """
    counts = Counter(tuple(row[:LENGTH]) for row in refusals if row)
    # Ties are broken by the ids, so that the same answers give the same openings.
    ranked = sorted(counts, key=lambda row: (-counts[row], row))[:MOST]
    alone = [row for row in ranked if not any(begins(row, [other]) for other in ranked if other != row)]
    return tuple(row for row in alone if not any(begins(answer, [row]) for answer in answers))


def begins(tokens: Sequence[int], openings: Iterable[Tokens]) -> bool:
    """Whether an answer begins with one of them."""
    return any(tuple(tokens[: len(opening)]) == opening for opening in openings)


@dataclass(frozen=True, slots=True)
class Tree:
    """Openings merged by their common beginnings: each node is a token, its parent the node before it."""

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    """Index of the parent, always smaller; -1 for a first token."""
    depths: tuple[int, ...]
    """0 for a first token."""
    ends: tuple[int, ...]
    """The last node of each opening, in order."""

    @staticmethod
    def of(openings: Sequence[Tokens]) -> Tree:
        """Merge them."""
        nodes: dict[Tokens, int] = {}
        parents: list[int] = []
        for opening in openings:
            for end in range(1, len(opening) + 1):
                if opening[:end] not in nodes:
                    parents.append(nodes.get(opening[: end - 1], -1))
                    nodes[opening[:end]] = len(nodes)
        return Tree(
            tokens=tuple(path[-1] for path in nodes),
            parents=tuple(parents),
            depths=tuple(len(path) - 1 for path in nodes),
            ends=tuple(nodes[opening] for opening in openings),
        )
