"""Which rows are read: pseudo-random, the same every time, and within the budget.

A matrix is cut into as many strata as it gets bands, and each band lies at a pseudo-random place of its
stratum (seeded by name and shape). Let a change touch a share s of the rows, wherever they are. A band of b
rows in a stratum of h touches none of them with probability at most 1 − s'·h / (h − b + 1) ≤ 1 − s', where
s' is the share of the stratum that is touched, and the product over k strata is largest when all shares are
equal. So

    P(miss) ≤ (1 − s)^k,

and 0 when fewer than b rows of every stratum are untouched. The bound is for whoever does not know the
seed: the plan is public, and a patch that was made to hide from it will.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from detector.formats.views import view_cost
from detector.interface import WeightReader
from detector.pairing import Pair

VISIBLE_SHARE = 0.9
"""Share of a tensor's rows that miss probabilities are stated for: merges and fine-tunes touch all of
them."""
BANDS = 2
SURVEY_ROWS = (16, 8, 4, 2)
"""Rows a matrix in the survey, over all its bands; the first that fits is taken."""
VECTOR = 1 << 16
"""Elements of a vector that are read: norms and biases are seldom longer, and cost as much as one row."""

Places = tuple[tuple[int, int], ...]
"""`(first row, rows)` of each band, by first row."""


@dataclass(frozen=True, slots=True)
class Bands:
    """The rows of one pair that are to be read."""

    pair: Pair
    places: Places

    @property
    def rows(self) -> int:
        """Rows in all."""
        return sum(rows for _, rows in self.places)

    def miss(self, share: float = VISIBLE_SHARE) -> float:
        """Largest probability that none of the rows of a change of so many is read."""
        height = self.pair.fork.shape[0] if self.pair.fork.shape else 1
        untouched = int((1 - share) * height)
        if self.rows > untouched:
            return 0.0
        return float((1 - share) ** len(self.places))


def survey(pairs: Sequence[Pair], fork: WeightReader, budget: int) -> tuple[Bands, ...]:
    """A few rows of every pair; where the budget is too small for that, of as many of each module as fit."""
    readable = [pair for pair in pairs if pair.fork.shape and 0 not in pair.fork.shape]
    plans: list[Bands] = []
    for rows in SURVEY_ROWS:
        plans = [Bands(pair, _survey_places(pair, rows)) for pair in readable]
        if cost(plans, fork) <= budget:
            return tuple(plans)
    return _thinned(plans, fork, budget)


def cost(plans: Iterable[Bands], fork: WeightReader) -> int:
    """Bytes of the fork that these bands are."""
    return sum(view_cost(fork, plan.pair.fork, rows) for plan in plans for _, rows in plan.places)


def spread(height: int, rows: int, bands: int, seed: str) -> Places:
    """Bands at pseudo-random places of as many strata of a matrix; one, where they would be most of it."""
    rows = min(rows, height)
    bands = max(1, min(bands, rows))
    if 2 * rows > height:
        return ((_draw(seed, height - rows + 1), rows),)
    places = []
    for index in range(bands):
        start, end = index * height // bands, (index + 1) * height // bands
        count = (index + 1) * rows // bands - index * rows // bands
        places.append((start + _draw(f"{seed} {index}", end - start - count + 1), count))
    return tuple(places)


def by_module(pairs: Iterable[Pair]) -> Mapping[str, tuple[Pair, ...]]:
    """Pairs of each module, in layer order."""
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(pair.module, []).append(pair)
    return {
        module: tuple(sorted(members, key=lambda pair: (pair.layer or 0, pair.name)))
        for module, members in sorted(found.items())
    }


def _survey_places(pair: Pair, rows: int) -> Places:
    height = pair.fork.shape[0]
    if len(pair.fork.shape) == 1:
        return ((0, min(height, VECTOR)),)
    return spread(height, rows, BANDS, f"{pair.name} {pair.fork.shape}")


def _thinned(plans: list[Bands], fork: WeightReader, budget: int) -> tuple[Bands, ...]:
    """Every module gets a share of the budget by its number of tensors, spent on layers evenly apart."""
    planned = {plan.pair.name: plan for plan in plans}
    kept: list[Bands] = []
    for members in by_module(plan.pair for plan in plans).values():
        share = budget * len(members) // max(len(plans), 1)
        dearest = max(cost([planned[pair.name]], fork) for pair in members)
        count = min(len(members), share // max(dearest, 1))
        chosen = [members[index * len(members) // count] for index in range(count)]
        kept += [planned[pair.name] for pair in chosen]
    if not kept and plans:  # rather one matrix too dear than nothing
        cheapest = min(plans, key=lambda plan: cost([plan], fork))
        kept = [cheapest] if cost([cheapest], fork) <= budget else []
    return tuple(sorted(kept, key=lambda plan: plan.pair.name))


def _draw(seed: str, count: int) -> int:
    """A number below `count`."""
    digest = hashlib.blake2b(seed.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % max(count, 1)
