"""How a release begins its refusals and its answers, as token ids. No model, no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Tokens = tuple[int, ...]

LENGTH = 4
"""Tokens of an opening: "I can't help" tells what "I" does not."""

MOST = 12
"""Openings of either kind, the commonest: all together they are a few dozen tokens."""


@dataclass(frozen=True, slots=True)
class Openings:
    """Beginnings of which none begins another, so that their probabilities add."""

    refusing: tuple[Tokens, ...]
    answering: tuple[Tokens, ...]


def openings_of(refusals: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Openings:
    """The commonest beginnings of each kind; one that both kinds use tells nothing and is left out.

    Args:
        refusals: Token ids of answers that refuse.
        answers: Token ids of answers that do not.
    """
    refusing, answering = _common(refusals), _common(answers)
    return Openings(
        tuple(row for row in refusing if not _overlaps(row, answering)),
        tuple(row for row in answering if not _overlaps(row, refusing)),
    )


def begins(tokens: Sequence[int], openings: Iterable[Tokens]) -> bool:
    """Whether an answer begins with one of them."""
    return any(tuple(tokens[: len(opening)]) == opening for opening in openings)


def _common(rows: Sequence[Sequence[int]]) -> tuple[Tokens, ...]:
    counts = Counter(tuple(row[:LENGTH]) for row in rows if row)
    # Ties are broken by the ids, so that the same answers give the same openings.
    ranked = sorted(counts, key=lambda row: (-counts[row], row))[:MOST]
    return tuple(row for row in ranked if not any(begins(row, [other]) for other in ranked if other != row))


def _overlaps(row: Tokens, others: Sequence[Tokens]) -> bool:
    return any(begins(row, [other]) or begins(other, [row]) for other in others)


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
