"""The population as a whole: how many of what, in which order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta

from forkwatch.demo.hub import LoopbackHub, Sketch
from forkwatch.demo.population import decoys, ways
from forkwatch.demo.population.truth import Fact, Truth
from forkwatch.demo.population.world import BASE, DAYS, RELEASE, RELEASED, SHAPE, Made, World, model

_LAB: Mapping[str, Sketch] = {
    BASE: Sketch(
        card={"license": "apache-2.0"},
        body="# Aurora 7B\n",
        config=SHAPE.config,
        weights=SHAPE.weights,
        salt=BASE,
    ),
    decoys.SIBLING: Sketch(
        card={"license": "apache-2.0"},
        body="# Aurora 13B Instruct\n",
        config=model("llama", 13_015_864_320, 5120).config,
        weights={"BF16": 13_015_864_320},
        salt=decoys.SIBLING,
    ),
}
_LAB_FACT = Fact("lab", frozenset(), is_fork=False)
_RELEASE = Sketch(
    card={"license": "apache-2.0", "base_model": BASE, "pipeline_tag": "text-generation"},
    body="# Aurora 7B Instruct\n\nThe official release.\n",
    config=SHAPE.config,
    weights=SHAPE.weights,
    salt=RELEASE,
)


def populate(hub: LoopbackHub, *, repos: int = 100_000, forks: int = 5_000, seed: int = 0) -> Truth:
    """Fill a hub with a release, its forks and decoys; the same arguments make the same hub.

    Args:
        hub: without repositories of these names.
        repos: all of them, the release and its base included.
        forks: of the release; at least two for each way.
        seed: of every choice.

    Raises:
        ValueError: too few repositories for the forks, or too few forks for the ways.
    """
    if forks < 2 * len(ways.WAYS) or repos < forks + len(_LAB) + 1:
        raise ValueError(f"{repos} repositories with {forks} forks are too few")
    until = RELEASED + timedelta(days=DAYS)
    world = World(hub, seed, RELEASED, until)
    hub.create_repo(RELEASE, created_at=RELEASED, downloads=250_000, likes=900, sketch=_RELEASE)
    for name, sketch in _LAB.items():
        hub.create_repo(name, created_at=RELEASED - timedelta(days=20), downloads=50_000, sketch=sketch)
    for made in fork_stream(world, forks):
        world.add(made)
    for made in decoy_stream(world, repos - forks - len(_LAB) - 1):
        world.add(made)
    for name in _LAB:
        world.note(name, _LAB_FACT)
    return Truth(RELEASE, BASE, until, world.facts)


def fork_stream(world: World, count: int) -> Iterator[Made]:
    """So many forks, by the shares of their ways, parents before children."""
    quotas = _quotas({way.id: way.share for way in ways.WAYS}, count)
    for way in ways.WAYS:
        left = quotas[way.id]
        while left > 0:
            for made in ways.draw(way, world):
                if left > 0:
                    yield made
                left -= 1


def decoy_stream(world: World, count: int) -> Iterator[Made]:
    """So many decoys by their shares."""
    rest = 1 - sum(decoy.share for decoy in decoys.DECOYS)
    quotas = _quotas({"unrelated": rest} | {decoy.id: decoy.share for decoy in decoys.DECOYS}, count)
    for decoy in (decoys.UNRELATED, *decoys.DECOYS):
        for _ in range(quotas[decoy.id]):
            yield decoys.draw(decoy, world)


def _quotas(shares: Mapping[str, float], count: int) -> dict[str, int]:
    """Whole numbers that add up to `count`; nothing is rounded below two, the largest pay for it."""
    quotas = {name: max(round(share * count), 2) for name, share in shares.items()}
    while (excess := sum(quotas.values()) - count) != 0:
        largest = max(quotas, key=lambda name: quotas[name])
        quotas[largest] -= 1 if excess > 0 else -1
    return quotas
