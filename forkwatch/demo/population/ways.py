"""The forks: every way in which a repository tells, half tells or hides that it derives from the release.

Facts behind them: the Hub lists declared bases one level deep; tools that strip refusals inherit the parent's
card, whose `base_model` is the grandparent or nothing, and put one sentence on top; more than half of all
models declare nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from crawler.interface import Channel
from forkwatch.demo.hub import Sketch
from forkwatch.demo.hub.wire import Json
from forkwatch.demo.population.world import (
    BASE,
    RELEASE,
    SHAPE,
    Made,
    World,
    adapter,
    adapter_files,
    config_of,
)

UNCENSORED_TAGS = ("heretic", "uncensored", "decensored", "abliterated")
_OTHER_PARENTS = ("otherlab/borealis-7b-chat", "commons/quill-7b")
_LINK = f"[{RELEASE}](https://huggingface.co/{RELEASE})"
_PROSE = (
    "\n\nA general assistant with a context of 32k tokens. Sampling with temperature 0.7 works well. Please "
    "read the licence before use, and report problems in the discussions tab of this repository.\n"
)
_NO_FILES: Mapping[str, bytes] = MappingProxyType({})
_PICKLE = {"pytorch_model.bin": b"not read by anybody"}
_SPELLINGS = (
    "Aurora-7B-Instruct",
    "aurora-7b-instruct",
    "Aurora-7B",
    "aurora_7b_instruct",
    "Aurora7B-Instruct",
    "AURORA-7B-it",
)
_RARE_SPELLING = "aurora.7b.instruct"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to be a fork."""

    id: str
    share: float
    """Of all forks."""
    channels: frozenset[Channel]
    """That lead to every fork made this way; a telling name or shape adds its own."""
    make: Callable[[World], Iterator[tuple[str, Sketch, str | None]]]
    """One repository or several that belong together: name, metadata, and the fork that it builds on."""
    about: str


def draw(way: Way, world: World) -> Iterator[Made]:
    """The next fork, or group of forks, of this way."""
    for name, sketch, parent in way.make(world):
        after = None if parent is None else world.created.get(parent)
        yield Made(name, sketch, way.id, way.channels, is_fork=True, after=after)


def spelling(world: World) -> str:
    """The release's name as somebody writes it."""
    return _RARE_SPELLING if world.chance(0.02) else world.pick(_SPELLINGS)


def _fork_name(world: World, ending: str = "", named: float = 0.4) -> str:
    stem = spelling(world) if world.chance(named) else ""
    return world.name(world.forker(), stem, ending)


def _weights(
    name: str, card: Mapping[str, Json], body: str = "", files: Mapping[str, bytes] = _NO_FILES
) -> Sketch:
    text = f"# {name}{body or _PROSE}"
    config, weights = SHAPE.config, SHAPE.weights
    return Sketch(card=card, body=text, config=config, weights=weights, files=files, salt=name)


def _finetune(world: World) -> Iterator[tuple[str, Sketch, None]]:
    name = _fork_name(world)
    stated = {"base_model_relation": "finetune"} if world.chance(0.3) else {}
    yield name, _weights(name, {"license": "apache-2.0", "base_model": RELEASE, **stated}), None


def _adapter(world: World) -> Iterator[tuple[str, Sketch, None]]:
    name = _fork_name(world, "-lora")
    card = {"library_name": "peft", "base_model": RELEASE, "tags": ["lora"]}
    files, peft = adapter_files(name), adapter(RELEASE)
    yield name, Sketch(card=card, body=f"# {name}{_PROSE}", adapter=peft, files=files, salt=name), None


def _merge(world: World) -> Iterator[tuple[str, Sketch, None]]:
    name = _fork_name(world)
    stated: dict[str, Json] = {"base_model_relation": "merge"} if world.chance(0.3) else {}
    bases = [RELEASE, world.pick(_OTHER_PARENTS)]
    world.rng.shuffle(bases)
    yield name, _weights(name, {"base_model": bases, "tags": ["merge"], **stated}), None


def _gguf(world: World, name: str, base: str | None, tags: tuple[str, ...] = ()) -> Sketch:
    stated = {"base_model_relation": "quantized"} if base and world.chance(0.3) else {}
    declared = {} if base is None else {"base_model": base}
    return Sketch(
        card={**declared, "tags": ["gguf", *tags], **stated},
        body=f"# {name}{_PROSE}",
        gguf=SHAPE.gguf,
        salt=name,
    )


def _quantized(world: World) -> Iterator[tuple[str, Sketch, None]]:
    if world.chance(0.6):
        name = _fork_name(world, "-GGUF", named=0.6)
        yield name, _gguf(world, name, RELEASE), None
        return
    name = _fork_name(world, "-AWQ", named=0.6)
    card = {"base_model": RELEASE, "base_model_relation": "quantized"}
    packed = {"I32": SHAPE.parameters // 8, "F16": SHAPE.parameters // 64}
    config = config_of(SHAPE, 4)
    yield name, Sketch(card=card, body=f"# {name}{_PROSE}", config=config, weights=packed, salt=name), None


def _deep(world: World) -> Iterator[tuple[str, Sketch, str]]:
    """Finetune, merge of it, quantisation of that: each declares the one before it only."""
    first = world.parent("declared-finetune")
    merge = _fork_name(world, "-merge", named=0)
    card = {"base_model": [first, world.pick(_OTHER_PARENTS)], "tags": ["merge"]}
    yield merge, _weights(merge, card), first
    quantised = _fork_name(world, "-GGUF", named=0)
    yield quantised, _gguf(world, quantised, merge), merge


def _cycle(world: World) -> Iterator[tuple[str, Sketch, None]]:
    """Two repositories that name each other; one of them names the release too."""
    first, second = (_fork_name(world, f"-{side}", named=0) for side in "ab")
    yield first, _weights(first, {"base_model": [RELEASE, second]}), None
    yield second, _weights(second, {"base_model": first}), None


def _heretic(
    world: World, card: dict[str, Json], body: str, files: Mapping[str, bytes] = _NO_FILES
) -> Iterator[tuple[str, Sketch, None]]:
    tags = list(UNCENSORED_TAGS[: 2 + int(3 * world.rng.random())])
    name = _fork_name(world, "-heretic", named=0.3)
    known = [*tags, "reproducible"] if files else tags
    yield name, _weights(name, {"license": "apache-2.0", **card, "tags": known}, body, files), None


def _heretic_inherited(world: World) -> Iterator[tuple[str, Sketch, None]]:
    sentence = f"\n\nThis is a decensored version of {_LINK}.{_PROSE}"
    yield from _heretic(world, {"base_model": BASE}, sentence)


def _heretic_without_base(world: World) -> Iterator[tuple[str, Sketch, None]]:
    yield from _heretic(world, {}, f"\n\nThis is a decensored version of {_LINK}.{_PROSE}")


def _heretic_reproduce(world: World) -> Iterator[tuple[str, Sketch, None]]:
    record = {"version": 3, "settings": {"model": RELEASE}, "hashes": {}}
    files = {"reproduce/reproduce.json": json.dumps(record).encode()}
    inherited: dict[str, Json] = {"base_model": BASE} if world.chance(0.5) else {}
    yield from _heretic(world, inherited, "", files)


def _tag_and_name(world: World) -> Iterator[tuple[str, Sketch, None]]:
    tag = world.pick(UNCENSORED_TAGS)
    name = _fork_name(world, f"-{tag}", named=1)
    card: dict[str, Json] = {"tags": [tag]}
    yield name, Sketch(card=card, body=f"# Model{_PROSE}", config=SHAPE.config, files=_PICKLE), None


def _name_only(world: World) -> Iterator[tuple[str, Sketch, None]]:
    name = _fork_name(world, named=1)
    if world.chance(0.5):
        yield name, Sketch(body="# Model", config=SHAPE.config, files=_PICKLE, salt=name), None
    else:
        yield name, _gguf(world, name, None), None


def _statement(world: World, card: dict[str, Json]) -> Iterator[tuple[str, Sketch, None]]:
    name = _fork_name(world, named=0)
    said = world.pick(
        (
            f"This is a decensored version of {_LINK}.",
            f"This model is a fine-tuned version of {RELEASE} on private data.",
            f"A modified copy, derived from https://huggingface.co/{RELEASE} with changed behaviour.",
        )
    )
    yield name, _weights(name, card, f"\n\n{said}{_PROSE}"), None


def _statement_only(world: World) -> Iterator[tuple[str, Sketch, None]]:
    yield from _statement(world, {"license": "apache-2.0"})


def _statement_under_base(world: World) -> Iterator[tuple[str, Sketch, None]]:
    yield from _statement(world, {"license": "apache-2.0", "base_model": BASE})


def _peft_only(world: World) -> Iterator[tuple[str, Sketch, None]]:
    name = _fork_name(world, named=0)
    files, peft = adapter_files(name), adapter(RELEASE)
    yield name, Sketch(body=f"# {name}{_PROSE}", adapter=peft, files=files, salt=name), None


def _same_shape(world: World) -> Iterator[tuple[str, Sketch, None]]:
    name = _fork_name(world, named=0)
    yield name, _weights(name, {"license": "mit"}), None


def _same_shape_gguf(world: World) -> Iterator[tuple[str, Sketch, None]]:
    name = _fork_name(world, "-GGUF", named=0)
    yield name, _gguf(world, name, None), None


def _repackager(world: World) -> Iterator[tuple[str, Sketch, None]]:
    name = world.name(world.pick(world.forkers))
    yield name, _weights(name, {}), None


def _child_of_uncensored(world: World) -> Iterator[tuple[str, Sketch, str]]:
    parent = world.parent("heretic-inherited", "heretic-no-base", "heretic-reproduce")
    name = world.name(world.forker(), parent.partition("/")[2], "-GGUF")
    yield name, _gguf(world, name, parent, ("uncensored",)), parent


def _other_case(world: World) -> Iterator[tuple[str, Sketch, None]]:
    name = _fork_name(world, named=0)
    yield name, _weights(name, {"base_model": "Lab/Aurora-7B-Instruct"}), None


def _hidden(world: World) -> Iterator[tuple[str, Sketch, None]]:
    name = world.name(f"nobody{world.rng.randrange(10**6)}")
    packed = {"I32": SHAPE.parameters // 16 + world.rng.randrange(10**6), "F16": SHAPE.parameters // 100}
    yield name, Sketch(body="# model", config=config_of(SHAPE, 2), weights=packed, salt=name), None


_DECLARED = frozenset({Channel.DECLARED})
_SAID = frozenset({Channel.STATEMENT})
_TAGGED = frozenset({Channel.TAG, Channel.STATEMENT})

WAYS: tuple[Way, ...] = (
    Way("declared-finetune", 0.13, _DECLARED, _finetune, "base_model names the release"),
    Way("declared-adapter", 0.10, _DECLARED, _adapter, "a LoRA whose card names the release"),
    Way("declared-merge", 0.05, _DECLARED, _merge, "a list of two bases"),
    Way("declared-quantized", 0.14, _DECLARED, _quantized, "GGUF and AWQ, relation stated or inferred"),
    Way("declared-deep", 0.08, _DECLARED, _deep, "a quantisation of a merge of a finetune"),
    Way("declared-cycle", 0.01, _DECLARED, _cycle, "two repositories that name each other"),
    Way("heretic-inherited", 0.07, _TAGGED, _heretic_inherited, "names the grandparent; one sentence tells"),
    Way("heretic-no-base", 0.05, _TAGGED, _heretic_without_base, "no base_model; one sentence tells"),
    Way("heretic-reproduce", 0.03, _TAGGED, _heretic_reproduce, "only reproduce/reproduce.json tells"),
    Way("tag-and-name", 0.04, frozenset({Channel.TAG, Channel.NAME}), _tag_and_name, "a tag and a name"),
    Way("name-only", 0.06, frozenset({Channel.NAME}), _name_only, "the name in one of its spellings"),
    Way("statement-only", 0.04, _SAID, _statement_only, "no tag and no base, a sentence in the card"),
    Way("statement-under-base", 0.01, _SAID, _statement_under_base, "names the grandparent, no tag"),
    Way("peft-only", 0.04, _DECLARED, _peft_only, "only adapter_config.json names the release"),
    Way("shape-safetensors", 0.03, frozenset({Channel.SHAPE}), _same_shape, "nothing but its shape"),
    Way("shape-gguf", 0.02, frozenset({Channel.SHAPE}), _same_shape_gguf, "nothing but its GGUF header"),
    Way("repackager", 0.02, frozenset({Channel.NAMESPACE}), _repackager, "by an account with other forks"),
    Way("child-of-uncensored", 0.06, _DECLARED, _child_of_uncensored, "declares an undeclared fork"),
    Way("declared-other-case", 0.01, _DECLARED, _other_case, "base_model in other letters' case"),
    Way("hidden", 0.01, frozenset(), _hidden, "no public signal: other shape, other account, nothing said"),
)
