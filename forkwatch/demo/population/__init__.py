"""A synthetic Hub: one release, its forks by every way to declare or hide an origin, and decoys.

    truth = populate(hub, repos=100_000, forks=5_000)
    score = truth.score(found)
    day = grow(hub, truth, new=3_000)

`ways` has the forks, `decoys` everything else, `world` what both draw from, `growth` the day after.
Everything is made up, holds no weights, and is a function of the arguments.
"""

from forkwatch.demo.population.build import populate
from forkwatch.demo.population.growth import Growth, grow
from forkwatch.demo.population.truth import Fact, Score, Share, Truth
from forkwatch.demo.population.world import BASE, RELEASE, SHAPE

__all__ = [
    "BASE",
    "RELEASE",
    "SHAPE",
    "Fact",
    "Growth",
    "Score",
    "Share",
    "Truth",
    "grow",
    "populate",
]
