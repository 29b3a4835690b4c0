"""Everything that is no fork of the release: mostly unrelated models, and every realistic confusion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from forkwatch.demo.hub import Sketch
from forkwatch.demo.hub.wire import Json
from forkwatch.demo.population.ways import UNCENSORED_TAGS, spelling
from forkwatch.demo.population.world import (
    BASE,
    RELEASE,
    SHAPE,
    Made,
    Model,
    World,
    adapter,
    adapter_files,
    model,
)

SIBLING = "lab/aurora-13b-instruct"
_SHAPES = (
    model("llama", 8_030_261_248, 4096),
    model("llama", 1_100_048_384, 2048),
    model("llama", 6_738_415_616, 4096),
    model("mistral", 7_241_732_096, 4096),
    model("qwen2", 7_615_616_512, 3584),
    model("qwen2", 494_032_768, 896),
    model("gemma2", 9_241_705_984, 3584),
    model("llama", 13_015_864_320, 5120),
    model("bert", 109_482_240, 768),
)
_BORN_ELSEWHERE = "otherlab/borealis-7b-chat"
_PROSE = (
    "\n\nThis repository was made for experiments. Evaluation is in progress, and the weights may change. "
    "Cite it if you use it. Questions are welcome in the discussions.\n"
)
_HOSTILE: tuple[bytes, ...] = (
    b"---\nbase_model: {a: 1}\ntags: 7\nlicense: [1, 2]\n---\n# wrong types\n",
    b"---\nbase_model: [1, null, [lab]]\ntags: {x: y}\n---\n# wrong types\n",
    b"---\ntags: ['<script>alert(1)</script>', '\"><img src=x>']\n---\n<script>alert(1)</script>\n",
    b"---\ntags: [a\x1b[2J, b]\n---\n\x1b[2J\x07 control characters \xe2\x80\xae\n",
    b"---\na: &a [x, x]\nb: &b [*a, *a]\nbase_model: *b\n---\n# aliases\n",
    b"---\ntags: [" + b", ".join(b"t%d" % number for number in range(2000)) + b"]\n---\n# many tags\n",
    b"---\nnote: " + b"x" * 65_536 + b"\n---\n# long value\n",
    b"---\nbase_model: " + b"[" * 60 + b"]" * 60 + b"\n---\n# deep\n",
    b"---\nbase_model: 'a/b\\n../../etc/passwd'\ndate: 2026-99-99\n---\n# no date\n",
    b"---\nnever closed: [\n# no end\n",
)
"""Cards that are not what they should be. None of them names the release."""


@dataclass(frozen=True, slots=True)
class Decoy:
    """One way not to be a fork."""

    id: str
    share: float
    """Of all decoys; the remainder are unrelated models."""
    make: Callable[[World], tuple[str, Sketch]]
    claims: bool = False


def draw(decoy: Decoy, world: World) -> Made:
    """The next decoy of this kind."""
    name, sketch = decoy.make(world)
    return Made(name, sketch, decoy.id, claims=decoy.claims)


def _other_base(world: World) -> str:
    """Some popular model; few are built on often."""
    return f"org{int(300 * world.rng.random() ** 2)}/base-{int(9 * world.rng.random())}b"


def _whole(name: str, shape: Model, card: Mapping[str, Json], body: str = _PROSE) -> Sketch:
    text = f"# {name}{body}"
    return Sketch(card=card, body=text, config=shape.config, weights=shape.weights, salt=name)


def _card(world: World, share: float = 0.45) -> dict[str, Json]:
    card: dict[str, Json] = {"license": world.pick(("apache-2.0", "mit", "other"))}
    if world.chance(share):
        card["base_model"] = _other_base(world)
    if world.chance(0.5):
        card["tags"] = [world.pick(("chat", "code", "roleplay", "trl", "sft", "unsloth"))]
    return card


def _unrelated(world: World) -> tuple[str, Sketch]:
    name, shape, kind = world.name(world.account()), world.pick(_SHAPES), world.rng.random()
    if kind < 0.2:
        return name, Sketch(card=_card(world), body=f"# {name}{_PROSE}", gguf=shape.gguf, salt=name)
    if kind < 0.35:
        peft, files = adapter(_other_base(world)), adapter_files(name)
        return name, Sketch(card=_card(world, 0.7), adapter=peft, files=files, salt=name)
    if kind < 0.55:
        return name, Sketch(body="", config=shape.config, weights=shape.weights, salt=name)
    return name, _whole(name, shape, _card(world))


def _tagged(world: World, card: Mapping[str, Json]) -> dict[str, Json]:
    return {**card, "tags": [world.pick(UNCENSORED_TAGS), "uncensored"]}


def _uncensored_other(world: World) -> tuple[str, Sketch]:
    base, name = _other_base(world), world.name(world.account(), ending="-uncensored")
    said = f"\n\nThis is a decensored version of [{base}](https://huggingface.co/{base}).{_PROSE}"
    declared: dict[str, Json] = {"base_model": base} if world.chance(0.6) else {}
    return name, _whole(name, world.pick(_SHAPES), _tagged(world, declared), said)


def _uncensored_same_shape(world: World) -> tuple[str, Sketch]:
    name = world.name(world.account(), ending="-heretic")
    return name, _whole(name, SHAPE, _tagged(world, {"base_model": _BORN_ELSEWHERE}))


def _uncensored_other_card(world: World) -> tuple[str, Sketch]:
    name = world.name(world.account(), ending="-heretic")
    link = f"[{_BORN_ELSEWHERE}](https://huggingface.co/{_BORN_ELSEWHERE})"
    return name, _whole(
        name, SHAPE, _tagged(world, {}), f"\n\nThis is a decensored version of {link}.{_PROSE}"
    )


def _partly_named(world: World) -> tuple[str, Sketch]:
    stem = world.pick(
        ("aurora-net", "Aurora-70B-chat", "aurora-diffusion", "aurora-17b", "7b-instruct-aurora")
    )
    name = world.name(world.account(), stem)
    return name, _whole(name, world.pick(_SHAPES), _card(world))


def _of_sibling(world: World) -> tuple[str, Sketch]:
    name = world.name(world.account(), world.pick(("Aurora-13B-Instruct", "aurora-13b")), "-GGUF")
    return name, Sketch(card={"base_model": SIBLING}, gguf=_SHAPES[-2].gguf, salt=name)


def _of_base(world: World) -> tuple[str, Sketch]:
    """The release's own base has finetunes too: same shape, same grandparent, other parent."""
    stem = "aurora-7b-base" if world.chance(0.3) else ""
    name = world.name(world.account(), stem)
    return name, _whole(name, SHAPE, {"base_model": BASE, "license": "apache-2.0"})


def _of_forker(world: World) -> tuple[str, Sketch]:
    name = world.name(world.pick(world.forkers))
    return name, _whole(name, world.pick(_SHAPES), _card(world, 0.8))


def _hostile(world: World) -> tuple[str, Sketch]:
    name, shape = world.name(world.account()), world.pick(_SHAPES)
    files = {"README.md": world.pick(_HOSTILE)}
    return name, Sketch(config=shape.config, weights=shape.weights, files=files, salt=name)


def _legacy(world: World) -> tuple[str, Sketch]:
    """From the time before namespaces."""
    name = world.name("x").partition("/")[2]
    while name in world.facts:
        name += "-old"
    shape = _SHAPES[-1]
    return name, Sketch(config=shape.config, weights=shape.weights, salt=name)


def _false_claim(world: World) -> tuple[str, Sketch]:
    name = world.name(world.account(), spelling(world) if world.chance(0.3) else "")
    return name, _whole(name, world.pick(_SHAPES), {"base_model": RELEASE})


def _from_scratch(world: World) -> tuple[str, Sketch]:
    """Nothing public tells it from an undeclared fork; only its weights do."""
    name = world.name(world.account())
    return name, _whole(name, SHAPE, {"license": "mit"})


UNRELATED = Decoy("unrelated", 0.0, _unrelated)
DECOYS: tuple[Decoy, ...] = (
    Decoy("uncensored-other", 0.04, _uncensored_other),
    Decoy("uncensored-same-shape", 0.005, _uncensored_same_shape),
    Decoy("uncensored-other-card", 0.003, _uncensored_other_card),
    Decoy("partly-named", 0.01, _partly_named),
    Decoy("of-sibling", 0.01, _of_sibling),
    Decoy("of-base", 0.005, _of_base),
    Decoy("of-forker", 0.02, _of_forker),
    Decoy("hostile-card", 0.005, _hostile),
    Decoy("legacy-name", 0.002, _legacy),
    Decoy("false-claim", 0.003, _false_claim, claims=True),
    Decoy("from-scratch", 0.0003, _from_scratch),
)
