"""What forks and decoys are drawn from (names, accounts, dates, shapes), and how they get onto the hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from random import Random
from typing import TypeVar

from crawler.interface import Channel
from forkwatch.demo.hub import Gguf, LoopbackHub, Sketch
from forkwatch.demo.hub.tensors import write
from forkwatch.demo.hub.wire import Json
from forkwatch.demo.population.truth import Fact

BASE = "lab/aurora-7b"
RELEASE = "lab/aurora-7b-instruct"
RELEASED = datetime(2026, 10, 1, tzinfo=UTC)
DAYS = 30

_Item = TypeVar("_Item")
_SPELLED = re.compile(r"(?<![a-z0-9])aurora[-_.]?7b(?![a-z0-9])", re.IGNORECASE)
"""The stem of the release in a name, however it is punctuated."""
_WORDS: Sequence[str] = (
    *("amber", "basil", "cobalt", "delta", "ember", "fable", "gamma", "hazel", "indigo", "jasper"),
    *("kestrel", "lumen", "maple", "nimbus", "onyx", "pixel", "quartz", "raven", "sable", "tundra"),
    *("umber", "violet", "willow", "xenon", "yarrow", "zephyr", "breeze", "cinder", "drift", "flint"),
)
_ACCOUNTS = 20_000
_FORKERS = 1_000
"""Accounts that fork; the first of them fork most, as three accounts made half of all uncensored models."""
_GATED_WAY = "declared-finetune"
"""The only forks that may be gated: of others a reader must see the card, or a later day gates them."""
_LATER_COMMIT = 0.15
"""Share of repositories with a second commit."""


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """An architecture of one size."""

    kind: str
    """`model_type`."""
    parameters: int
    config: Mapping[str, Json]
    """config.json; one object for all repositories of the shape."""
    weights: Mapping[str, int]
    """Parameters by dtype; likewise."""

    @property
    def gguf(self) -> Gguf:
        """The header of its conversion."""
        return Gguf(self.parameters, self.kind, 32_768)


def model(kind: str, parameters: int, hidden: int) -> Model:
    """A causal language model."""
    name = f"{kind.capitalize()}ForCausalLM"
    config: Mapping[str, Json] = {"architectures": [name], "model_type": kind, "hidden_size": hidden}
    return Model(kind, parameters, config, {"BF16": parameters})


SHAPE = model("llama", 7_188_512_768, 4096)
"""Of the release."""


@dataclass(frozen=True, slots=True)
class Made:
    """A repository that is about to be created."""

    name: str
    sketch: Sketch
    way: str
    channels: frozenset[Channel] = frozenset()
    is_fork: bool = False
    claims: bool = False
    after: datetime | None = None
    """It is younger than this."""


class World:
    """A stream of choices, and what has been made so far."""

    def __init__(self, hub: LoopbackHub, seed: int | str, since: datetime, until: datetime) -> None:
        self.rng = Random(seed)  # noqa: S311  # repeatable on purpose
        self.facts: dict[str, Fact] = {}
        self.parents: dict[str, list[str]] = {}
        """Forks by way, for those that build on them."""
        self.forkers: list[str] = []
        """Account of every fork, repeated as often as it forked."""
        self.created: dict[str, datetime] = {}
        self._hub = hub
        self._since, self._until = since, until
        self._known: dict[Fact, Fact] = {}

    def add(self, made: Made) -> None:
        """Create a repository on the hub and write down the truth about it."""
        created = self._date(made)
        popular = 3.5 if made.is_fork else 2.5
        downloads = int(self.rng.lognormvariate(popular, 2.0))
        self._hub.create_repo(
            made.name,
            created_at=created,
            downloads=downloads,
            likes=int(downloads * self.rng.random() / 40),
            gated=self.chance(0.01) and (made.way == _GATED_WAY or not made.is_fork),
            sketch=made.sketch,
        )
        if self.rng.random() < _LATER_COMMIT:
            later = created + (self._until - created) * self.rng.random() ** 3
            self._hub.commit_sketch(made.name, made.sketch, message="Update README.md", date=_whole(later))
        self.note(made.name, Fact(made.way, _all_channels(made), made.is_fork, made.claims))
        if made.is_fork:
            self.created[made.name] = created

    def note(self, name: str, fact: Fact) -> None:
        """Write down the truth about a repository that exists."""
        self.facts[name] = self._known.setdefault(fact, fact)
        if fact.is_fork:
            self.parents.setdefault(fact.way, []).append(name)
            self.forkers.append(name.partition("/")[0])

    def pick(self, items: Sequence[_Item]) -> _Item:
        """One of them."""
        return items[int(self.rng.random() * len(items))]

    def chance(self, share: float) -> bool:
        """True this often."""
        return self.rng.random() < share

    def account(self) -> str:
        """Anybody; few accounts have many repositories, many have few."""
        return f"user{int(_ACCOUNTS * self.rng.random() ** 3)}"

    def forker(self) -> str:
        """An account that forks."""
        return f"forker{int(_FORKERS * self.rng.random() ** 3)}"

    def name(self, account: str, stem: str = "", ending: str = "") -> str:
        """A free name; without a stem it consists of words that say nothing."""
        stem = stem or f"{self.pick(_WORDS)}-{self.pick(_WORDS)}"
        while (found := f"{account}/{stem}-{self.rng.randrange(1000)}{ending}") in self.facts:
            stem += f"-{self.pick(_WORDS)}"
        return found

    def parent(self, *ways: str) -> str:
        """A fork made one of these ways."""
        return self.pick([name for way in ways for name in self.parents.get(way, ())])

    def _date(self, made: Made) -> datetime:
        """In the time of this world; forks come early, and after what they build on."""
        start = max(self._since, made.after or self._since)
        return _whole(start + (self._until - start) * self.rng.random() ** (1.3 if made.is_fork else 1))


def adapter(base: str) -> Mapping[str, Json]:
    """adapter_config.json of a LoRA on `base`."""
    return {"base_model_name_or_path": base, "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 16}


def adapter_files(salt: str) -> Mapping[str, bytes]:
    """A small adapter_model.safetensors that no other repository has."""
    header, _ = write({"F32": 8})
    return {"adapter_model.safetensors": header + hashlib.sha256(salt.encode()).digest()}


@lru_cache(maxsize=4096)
def config_of(shape: Model, bits: int | None) -> Mapping[str, Json]:
    """config.json, with a quantisation if `bits` says so."""
    if bits is None:
        return shape.config
    return {**shape.config, "quantization_config": {"quant_method": "awq", "bits": bits}}


def spelled(name: str) -> bool:
    """Whether a repository's name speaks of the release."""
    return _SPELLED.search(name.partition("/")[2]) is not None


def _all_channels(made: Made) -> frozenset[Channel]:
    """Those of the way, and those that the name and the shape add of themselves."""
    if not made.is_fork or not made.channels:
        return frozenset()
    sketch, declared = made.sketch, (made.sketch.card or {}).get("base_model")
    total = sketch.gguf.total if sketch.gguf else sum((sketch.weights or {}).values())
    same = total == SHAPE.parameters and declared is None
    extra = {Channel.NAME: spelled(made.name), Channel.SHAPE: same}
    return made.channels | {channel for channel, there in extra.items() if there}


def _whole(date: datetime) -> datetime:
    return date - timedelta(microseconds=date.microsecond)
