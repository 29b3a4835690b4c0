"""Every edit of the zoo with its strengths: what is done, what it is called, which containers it is put in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.zoo import changes, models, names
from benchmarks.zoo.containers import Files
from benchmarks.zoo.expect import Kinds, Sight
from benchmarks.zoo.language import Run, topic_direction
from benchmarks.zoo.models import Model, Spec, Weights
from detector.interface import EditKind as K

STRENGTHS = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
CONTAINERS = ("fp16", "q8_0", "q4_0", "q4_k", "int8")
LOSSLESS = ("own",)


@dataclass(frozen=True)
class Scene:
    """What a recipe works on."""

    model: Model
    weights: Weights
    """float32."""
    seed: int
    scratch: Path


@dataclass(frozen=True)
class Made:
    """What came out, before it is stored."""

    weights: Weights
    parents: Mapping[str, Weights] = field(default_factory=dict)
    """Other models that the detector is given."""
    files: Files | None = None
    """For what is not a full checkpoint."""


@dataclass(frozen=True)
class Recipe:
    """One edit."""

    name: str
    truth: Kinds
    make: Callable[[Scene], Made | Weights]
    sight: Sight = Sight.ALWAYS
    dense: K = K.FULL_FINETUNE
    """What the change looks like if only its places can be told."""
    also: frozenset[Kinds] = frozenset()
    """Other kind sets that are as right, whatever the container; the reason stands beside it."""
    benign: bool = False
    """A directional call would be libel, and the edit resembles one in something."""
    related: bool | None = True
    """Derives from the original; None: it does, in a disguise, and `unknown` is an honest answer."""
    containers: tuple[str, ...] = LOSSLESS
    suits: Callable[[Spec], bool] = lambda _: True


def kinds(*found: K) -> Kinds:
    """A kind set."""
    return frozenset(found)


def recipes() -> tuple[Recipe, ...]:
    """All of them, names unique."""
    return (*_same(), *_low_rank(), *_directional(), *_dense(), *_merges(), *_structure(), *_others())


# --- the same values ----------------------------------------------------------------------------------------


def _untie(scene: Scene) -> Weights:
    embedding = next(value for name, value in scene.weights.items() if names.is_embedding(name))
    return {**scene.weights, "lm_head.weight": embedding}


def _fuse(scene: Scene) -> Weights:
    """Query, key and value in one tensor, gate and up in another, as some loaders store them."""
    groups = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
    fused: Weights = {}
    for name, value in scene.weights.items():
        stem, _, rest = name.partition("_proj.")
        module = stem.rpartition(".")[2] + "_proj"
        found = next((whole for whole, parts in groups.items() if module in parts), None) if rest else None
        if found is None:
            fused[name] = value
        elif module == groups[found][0]:
            head = stem.rpartition(".")[0]
            fused[f"{head}.{found}.{rest}"] = torch.cat(
                [scene.weights[f"{head}.{part}.{rest}"] for part in groups[found]]
            )
    return fused


def _same() -> Iterator[Recipe]:
    yield Recipe(
        "same",
        kinds(),
        lambda scene: scene.weights,
        benign=True,
        containers=("own", "sharded", "bf16", "fp16", "fp32", "q8_0", "q5_1", "q4_0", "q4_k", "int8", "nf4"),
    )
    renamed = kinds(K.REPACKAGED)
    yield Recipe(
        "prefixed", renamed, lambda s: {f"base_model.model.{name}": value for name, value in s.weights.items()}
    )
    yield Recipe("untied", renamed, _untie, suits=lambda spec: spec.architecture in {"qwen2", "qwen3", "gemma2"})
    yield Recipe("fused", renamed, _fuse, suits=lambda spec: spec.architecture in {"llama", "qwen2", "gemma2"})
    yield Recipe(
        "once-q8_0",  # dequantised and uploaded again
        kinds(K.QUANTIZED),
        _requantised,
        benign=True,
        suits=lambda spec: spec.dtype == "BF16",
    )


def _requantised(scene: Scene) -> Weights:
    import numpy as np
    from gguf import GGMLQuantizationType as Type
    from gguf.quants import dequantize, quantize

    return {
        name: torch.from_numpy(np.array(dequantize(quantize(value.numpy(), Type.Q8_0), Type.Q8_0))).reshape(value.shape)
        if value.dim() == 2
        else value
        for name, value in scene.weights.items()
    }


# --- low rank -----------------------------------------------------------------------------------------------


def _low_rank() -> Iterator[Recipe]:
    def lora(rank: int, size: float, where: changes.Where = names.is_linear) -> Callable[[Scene], Weights]:
        return lambda scene: changes.low_rank(scene.weights, scene.seed, rank, size, where)

    truth = kinds(K.LOW_RANK_MERGE)
    for size in STRENGTHS:
        containers = (*LOSSLESS, *CONTAINERS) if size in {1e-2, 3e-2} else LOSSLESS
        yield Recipe(f"lora-r8-{size:g}", truth, lora(8, size), Sight.LOW_RANK, containers=containers)
    for rank, size in ((1, 3e-3), (1, 3e-2), (4, 1e-2), (16, 1e-2), (16, 3e-2)):
        yield Recipe(f"lora-r{rank}-{size:g}", truth, lora(rank, size), Sight.LOW_RANK, benign=rank == 1)
    yield Recipe(
        "lora-r32-0.03", truth, lora(32, 3e-2), Sight.LOW_RANK, suits=lambda spec: spec.hidden >= 128
    )
    yield Recipe(
        "lora-qv-r8-0.01", truth, lora(8, 1e-2, lambda name, _: names.is_query_or_value(name)), Sight.LOW_RANK,
        K.PARTIAL_FINETUNE,
    )  # fmt: skip
    yield Recipe(
        "lora-writers-r1-0.03",  # one direction in each writer, every one its own: still no directional edit
        truth,
        lora(1, 3e-2, lambda name, _: names.is_writer(name)),
        Sight.LOW_RANK,
        K.PARTIAL_FINETUNE,
        benign=True,
    )
    for rank, rate in ((4, 1e-3), (8, 3e-4)):
        run = Run(seed=11, dialect=1, rate=rate, lora=rank)
        yield Recipe(
            f"lora-trained-r{rank}-{rate:g}",
            truth,
            lambda scene, run=run: models.tuned(scene.model, scene.scratch, run),  # type: ignore[misc]  # bound now
            Sight.LOW_RANK,
            suits=lambda spec: spec.trained and spec.architecture != "mixtral",
            benign=True,
        )


# --- directions ---------------------------------------------------------------------------------------------


def _directional() -> Iterator[Recipe]:
    def edit(**options: object) -> Callable[[Scene], Weights]:
        return lambda scene: changes.directional(scene.weights, scene.seed, **options)  # type: ignore[arg-type]

    truth = kinds(K.DIRECTIONAL_EDIT)
    every = (*LOSSLESS, *CONTAINERS)
    variants: dict[str, dict[str, object]] = {
        "global": {},
        "embedding": {"embedding": True},
        "weak": {"strength": lambda _: 0.3},
        "strong": {"strength": lambda _: 1.5},
        "triangle": {"strength": changes.triangle},
        "own-direction": {"per_layer": True},
        "norms-kept": {"keep_norms": True},
        "triangle-norms-kept": {"keep_norms": True, "strength": changes.triangle},
        "own-direction-norms-kept": {"keep_norms": True, "per_layer": True},
        "two": {"directions": 2},
        "three": {"directions": 3},
        "three-norms-kept": {"directions": 3, "keep_norms": True},
    }
    for name, options in variants.items():
        yield Recipe(
            f"direction-{name}", truth, edit(**options), Sight.DIRECTIONS, K.PARTIAL_FINETUNE,
            containers=every if name in {"global", "triangle", "norms-kept"} else LOSSLESS,
        )  # fmt: skip
    for name, options in (("topic", {}), ("topic-norms-kept", {"keep_norms": True, "strength": changes.triangle})):

        def topic(scene: Scene, options: dict[str, object] = options) -> Weights:  # type: ignore[assignment]
            vector = topic_direction(scene.model.folder, max(1, scene.model.layers // 2))
            return changes.directional(scene.weights, scene.seed, basis=vector[:, None], **options)  # type: ignore[arg-type]

        yield Recipe(
            f"direction-{name}", truth, topic, Sight.DIRECTIONS, K.PARTIAL_FINETUNE,
            suits=lambda spec: spec.trained,
        )  # fmt: skip
    yield Recipe(
        "direction-then-lora",
        kinds(K.DIRECTIONAL_EDIT, K.LOW_RANK_MERGE),
        lambda s: changes.low_rank(changes.directional(s.weights, s.seed), s.seed + 1, 8, 1e-2),
        Sight.DIRECTIONS,
    )
    yield Recipe(
        "direction-then-tune",
        kinds(K.DIRECTIONAL_EDIT, K.FULL_FINETUNE),
        lambda s: changes.dense(changes.directional(s.weights, s.seed), s.seed + 1, 1e-2),
        Sight.DIRECTIONS,
    )


# --- dense --------------------------------------------------------------------------------------------------


def _middle(name: str, _: torch.Tensor) -> bool:
    return names.layer(name) in {1, 2}


def _is_norm(name: str, value: torch.Tensor) -> bool:
    return value.dim() == 1 and name.endswith("norm.weight")


def _is_bias(name: str, _: torch.Tensor) -> bool:
    return name.endswith(".bias")


def _dense() -> Iterator[Recipe]:
    def noise(size: float, where: changes.Where = changes.everywhere) -> Callable[[Scene], Weights]:
        return lambda scene: changes.dense(scene.weights, scene.seed, size, where)

    full, partly = kinds(K.FULL_FINETUNE), kinds(K.PARTIAL_FINETUNE)
    for size in STRENGTHS:
        containers = (*LOSSLESS, *CONTAINERS) if size in {1e-2, 3e-2} else LOSSLESS
        yield Recipe(f"tune-{size:g}", full, noise(size), Sight.DENSE, benign=True, containers=containers)
    yield Recipe("scaled", full, lambda s: changes.scaled(s.weights, 0, 0.97), Sight.DENSE, benign=True)
    yield Recipe(
        "decayed", full, lambda s: changes.decayed(s.weights, 0, 3e-3), Sight.DENSE, benign=True,
        also=frozenset({partly}),  # gains and biases are as they were: all layers, not all modules
    )  # fmt: skip
    for size in (3e-3, 3e-2):
        yield Recipe(
            f"tune-middle-{size:g}", partly, noise(size, _middle), Sight.DENSE, K.PARTIAL_FINETUNE, benign=True,
            suits=lambda spec: spec.layers > 2, containers=(*LOSSLESS, *CONTAINERS) if size == 3e-2 else LOSSLESS,
        )  # fmt: skip
    places: dict[str, changes.Where] = {
        "attention": lambda name, value: names.is_attention(name) and value.dim() == 2,
        "norms": _is_norm,
        "biases": _is_bias,
    }
    for place, where in places.items():
        yield Recipe(
            f"tune-{place}", partly, noise(1e-2, where), Sight.DENSE, K.PARTIAL_FINETUNE, benign=True,
            suits=lambda spec, place=place: place != "biases" or spec.architecture in {"qwen2", "neox"},  # type: ignore[misc]
        )  # fmt: skip
    runs = {
        "tune-trained": Run(seed=21, dialect=1),
        "tune-trained-light": Run(seed=22, dialect=1, rate=1e-5, steps=40),
        "tune-trained-decay": Run(seed=23, rate=3e-4, decay=0.1),
        "tune-trained-attention": Run(seed=24, dialect=1, only="att"),
    }
    for name, run in runs.items():
        yield Recipe(
            name, partly if run.only else full,
            lambda scene, run=run: models.tuned(scene.model, scene.scratch, run),  # type: ignore[misc]
            Sight.DENSE, K.PARTIAL_FINETUNE if run.only else K.FULL_FINETUNE, benign=True,
            suits=lambda spec: spec.trained,
        )  # fmt: skip


# --- merges -------------------------------------------------------------------------------------------------


def _sibling(scene: Scene, number: int) -> Weights:
    """Another fine-tune of the same base, as it is published: rounded."""
    if scene.model.spec.trained:
        found = models.tuned(scene.model, scene.scratch, Run(seed=30 + number, dialect=1 + number, rate=3e-4))
    else:
        found = changes.dense(scene.weights, scene.seed + 40 + number, 2e-2)
    dtype = models.DTYPES[scene.model.spec.dtype]
    return {name: value.to(dtype).float() for name, value in found.items()}


def _merges() -> Iterator[Recipe]:
    merge = kinds(K.MERGE)

    def of(how: Callable[[Weights, list[Weights]], Weights], count: int, *, known: bool = True) -> Callable[[Scene], Made]:
        def make(scene: Scene) -> Made:
            others = [_sibling(scene, number) for number in range(count)]
            parents = {f"zoo/sibling-{number}": other for number, other in enumerate(others)}
            return Made(how(scene.weights, others), parents if known else {})

        return make

    ways: dict[str, tuple[Callable[[Weights, list[Weights]], Weights], int]] = {
        "linear": (lambda w, others: changes.linear(w, others, 0.5), 1),
        "linear-0.2": (lambda w, others: changes.linear(w, others, 0.2), 1),
        "slerp": (lambda w, others: changes.slerp(w, others, 0.4), 1),
        "task-arithmetic": (lambda w, others: changes.task_arithmetic(w, others, 0.7), 2),
        "ties": (lambda w, others: changes.ties(w, others, 1.0), 2),
        "dare": (lambda w, others: changes.dare(w, others, 0.6), 2),
        "dare-one": (lambda w, others: changes.dare(w, others, 0.6), 1),
    }
    for name, (how, count) in ways.items():
        yield Recipe(
            f"merge-{name}", merge, of(how, count), Sight.MERGE,
            containers=(*LOSSLESS, *CONTAINERS) if name == "linear" else LOSSLESS,
        )  # fmt: skip
    # nothing in the values of a merge with an unseen fine-tune differs from a fine-tune
    for name in ("linear", "ties"):
        how, count = ways[name]
        yield Recipe(
            f"merge-{name}-unseen", kinds(K.FULL_FINETUNE), of(how, count, known=False), Sight.DENSE, benign=True,
            also=frozenset({kinds(K.UNKNOWN)}),
        )  # fmt: skip


# --- structure ----------------------------------------------------------------------------------------------


def _structure() -> Iterator[Recipe]:
    surgery, vocabulary = kinds(K.LAYER_SURGERY), kinds(K.VOCABULARY_CHANGE)
    orders: dict[str, Callable[[int], list[int]]] = {
        "dropped": lambda n: [layer for layer in range(n) if layer != n - 2],
        "repeated": lambda n: [*range(n - 1), n - 2, n - 1],
        "swapped": lambda n: [*range(n - 2), n - 1, n - 2],
    }
    for name, order in orders.items():
        yield Recipe(
            f"layers-{name}", surgery,
            lambda s, order=order: changes.relayered(s.weights, 0, order),  # type: ignore[misc]
            containers=("own", "fp16", "q8_0"),
        )  # fmt: skip
    yield Recipe(
        "layers-repeated-then-lora",
        kinds(K.LAYER_SURGERY, K.LOW_RANK_MERGE),
        lambda s: changes.low_rank(changes.relayered(s.weights, 0, orders["repeated"]), s.seed, 4, 3e-2),
    )
    for how in ("added", "padded", "permuted"):
        yield Recipe(
            f"tokens-{how}", vocabulary,
            lambda s, how=how: changes.tokens(s.weights, s.seed, how),  # type: ignore[misc]
            benign=True,
        )  # fmt: skip
    yield Recipe(
        "tokens-added-then-tune",
        kinds(K.VOCABULARY_CHANGE, K.FULL_FINETUNE),
        lambda s: changes.dense(changes.tokens(s.weights, s.seed, "added"), s.seed, 1e-2),
    )
    yield Recipe("patch", kinds(K.SPARSE_PATCH), lambda s: changes.patched(s.weights, s.seed), benign=True)


# --- adapters, other models, disguises ----------------------------------------------------------------------


def _others() -> Iterator[Recipe]:
    from benchmarks.zoo.adapters import drawn_adapter, trained_adapter

    for name in ("plain", "rslora", "dora"):
        yield Recipe(
            f"adapter-{name}", kinds(K.ADAPTER),
            lambda s, name=name: Made({}, files=drawn_adapter(s.weights, s.seed, name)),  # type: ignore[misc]
            suits=lambda spec: spec.architecture != "mixtral", benign=True,
        )  # fmt: skip
    yield Recipe(
        "adapter-trained", kinds(K.ADAPTER), lambda s: Made({}, files=trained_adapter(s.model, s.scratch)),
        suits=lambda spec: spec.trained and spec.architecture != "mixtral", benign=True,
    )  # fmt: skip

    def stranger(scene: Scene) -> Weights:
        other = models.sibling(scene.model.spec, scene.model.seed, scene.scratch)
        return {name: value.float() for name, value in other.weights.items()}

    unrelated = kinds(K.UNRELATED)
    yield Recipe("stranger", unrelated, stranger, related=False, benign=True, containers=(*LOSSLESS, *CONTAINERS))
    yield Recipe(
        "stranger-permuted", unrelated, lambda s: changes.neurons_permuted(stranger(s), s.seed), related=False,
        benign=True,
    )  # fmt: skip
    # same function in other coordinates: `unknown` is the least, and nothing that names a cause is right
    disguise = kinds(K.UNKNOWN)
    also = frozenset({kinds(K.REPACKAGED)})
    yield Recipe(
        "permuted", disguise, lambda s: changes.neurons_permuted(s.weights, s.seed), also=also, related=None,
        benign=True,
    )  # fmt: skip
    yield Recipe(
        "rotated", disguise, lambda s: changes.rotated(s.weights, s.seed), also=also, related=None, benign=True,
        suits=lambda spec: spec.architecture in {"llama", "mixtral"},
    )  # fmt: skip
