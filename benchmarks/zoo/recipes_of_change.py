"""Recipes that change values: low rank, directions, dense."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from benchmarks.zoo import changes, models, names
from benchmarks.zoo.expect import Sight
from benchmarks.zoo.language import Run, topic_direction
from benchmarks.zoo.models import Weights
from benchmarks.zoo.recipe import CONTAINERS, LOSSLESS, STRENGTHS, Recipe, Scene, kinds
from detector.interface import EditKind as K

# --- low rank -----------------------------------------------------------------------------------------------


def low_rank() -> Iterator[Recipe]:
    """Merged LoRAs, drawn and trained."""

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
        "lora-qv-r8-0.01",
        truth,
        lora(8, 1e-2, lambda name, _: names.is_query_or_value(name)),
        Sight.LOW_RANK,
        K.PARTIAL_FINETUNE,
    )
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


def directional() -> Iterator[Recipe]:
    """Directions removed from what writes the residual stream."""

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
            f"direction-{name}",
            truth,
            edit(**options),
            Sight.DIRECTIONS,
            K.PARTIAL_FINETUNE,
            containers=every if name in {"global", "triangle", "norms-kept"} else LOSSLESS,
        )
    for name, options in (
        ("topic", {}),
        ("topic-norms-kept", {"keep_norms": True, "strength": changes.triangle}),
    ):

        def topic(scene: Scene, options: dict[str, object] = options) -> Weights:
            vector = topic_direction(scene.model.folder, max(1, scene.model.layers // 2))
            return changes.directional(scene.weights, scene.seed, basis=vector[:, None], **options)  # type: ignore[arg-type]

        yield Recipe(
            f"direction-{name}",
            truth,
            topic,
            Sight.DIRECTIONS,
            K.PARTIAL_FINETUNE,
            suits=lambda spec: spec.trained,
        )
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


def dense() -> Iterator[Recipe]:
    """Fine-tunes of everything, of places, and what resembles them."""

    def noise(size: float, where: changes.Where = changes.everywhere) -> Callable[[Scene], Weights]:
        return lambda scene: changes.dense(scene.weights, scene.seed, size, where)

    full, partly = kinds(K.FULL_FINETUNE), kinds(K.PARTIAL_FINETUNE)
    for size in STRENGTHS:
        containers = (*LOSSLESS, *CONTAINERS) if size in {1e-2, 3e-2} else LOSSLESS
        yield Recipe(f"tune-{size:g}", full, noise(size), Sight.DENSE, benign=True, containers=containers)
    # one factor for everything is no training, and there is no name for it: `unknown` is as good
    also = frozenset({kinds(K.UNKNOWN)})
    yield Recipe(
        "scaled", full, lambda s: changes.scaled(s.weights, 0, 0.97), Sight.DENSE, also=also, benign=True
    )
    yield Recipe(
        "decayed",
        full,
        lambda s: changes.decayed(s.weights, 0, 3e-3),
        Sight.DENSE,
        benign=True,
        also=also | {partly},  # gains and biases are as they were: all layers, not all modules
    )
    for size in (3e-3, 3e-2):
        yield Recipe(
            f"tune-middle-{size:g}",
            partly,
            noise(size, _middle),
            Sight.DENSE,
            K.PARTIAL_FINETUNE,
            benign=True,
            suits=lambda spec: spec.layers > 2,
            containers=(*LOSSLESS, *CONTAINERS) if size == 3e-2 else LOSSLESS,
        )
    places: dict[str, changes.Where] = {
        "attention": lambda name, value: names.is_attention(name) and value.dim() == 2,
        "norms": _is_norm,
        "biases": _is_bias,
    }
    for place, where in places.items():
        yield Recipe(
            f"tune-{place}",
            partly,
            noise(1e-2, where),
            Sight.DENSE,
            K.PARTIAL_FINETUNE,
            benign=True,
            suits=lambda spec, place=place: place != "biases" or spec.architecture in {"qwen2", "neox"},  # type: ignore[misc]
        )
    runs = {
        "tune-trained": Run(seed=21, dialect=1),
        "tune-trained-light": Run(seed=22, dialect=1, rate=1e-5, steps=40),
        "tune-trained-decay": Run(seed=23, rate=3e-4, decay=0.1),
        "tune-trained-attention": Run(seed=24, dialect=1, only="att"),
    }
    for name, run in runs.items():
        yield Recipe(
            name,
            partly if run.only else full,
            lambda scene, run=run: models.tuned(scene.model, scene.scratch, run),  # type: ignore[misc]
            Sight.DENSE,
            K.PARTIAL_FINETUNE if run.only else K.FULL_FINETUNE,
            benign=True,
            suits=lambda spec: spec.trained,
        )
