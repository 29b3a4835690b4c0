"""Every recipe of the zoo; those that change values are in `recipes_of_change`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from benchmarks.zoo import changes, models, names
from benchmarks.zoo.adapters import drawn_adapter, trained_adapter
from benchmarks.zoo.expect import Sight
from benchmarks.zoo.language import Run
from benchmarks.zoo.models import Weights
from benchmarks.zoo.recipe import CONTAINERS, LOSSLESS, Made, Recipe, Scene, kinds
from benchmarks.zoo.recipes_of_change import dense, directional, low_rank
from detector.interface import EditKind as K


def recipes() -> tuple[Recipe, ...]:
    """All of them, names unique."""
    return (*_same(), *low_rank(), *directional(), *dense(), *_merges(), *_structure(), *_others())


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
        "prefixed",
        renamed,
        lambda s: {f"base_model.model.{name}": value for name, value in s.weights.items()},
    )
    yield Recipe(
        "untied", renamed, _untie, suits=lambda spec: spec.architecture in {"qwen2", "qwen3", "gemma2"}
    )
    yield Recipe(
        "fused", renamed, _fuse, suits=lambda spec: spec.architecture in {"llama", "qwen2", "gemma2"}
    )
    yield Recipe(
        "once-q8_0",  # dequantised and uploaded again
        kinds(K.QUANTIZED),
        _requantised,
        benign=True,
        suits=lambda spec: spec.dtype == "BF16",
    )


def _requantised(scene: Scene) -> Weights:
    from gguf import GGMLQuantizationType as Type
    from gguf.quants import dequantize, quantize

    return {
        name: torch.from_numpy(np.array(dequantize(quantize(value.numpy(), Type.Q8_0), Type.Q8_0))).reshape(
            value.shape
        )
        if value.dim() == 2
        else value
        for name, value in scene.weights.items()
    }


# --- merges -------------------------------------------------------------------------------------------------


def _sibling(scene: Scene, number: int) -> Weights:
    """Another fine-tune of the same base, as it is published: rounded."""
    if scene.model.spec.trained:
        found = models.tuned(scene.model, scene.scratch, Run(seed=30 + number, dialect=1 + number, rate=3e-4))
    else:
        found = changes.dense(scene.weights, scene.seed + 40 + number, 2e-2)
    dtype = models.DTYPES[scene.model.spec.dtype]
    return {name: value.to(dtype).float() for name, value in found.items()}


def _tuned_beside(scene: Scene) -> Made:
    return Made(changes.dense(scene.weights, scene.seed, 2e-2), parents={"zoo/sibling-0": _sibling(scene, 0)})


def _merges() -> Iterator[Recipe]:
    merge = kinds(K.MERGE)

    def of(
        how: Callable[[Weights, list[Weights]], Weights], count: int, given: str = "parents"
    ) -> Callable[[Scene], Made]:
        def make(scene: Scene) -> Made:
            others = [_sibling(scene, number) for number in range(count)]
            named = {f"zoo/sibling-{number}": other for number, other in enumerate(others)}
            return Made(how(scene.weights, others), **({given: named} if given else {}))

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
            f"merge-{name}",
            merge,
            of(how, count),
            Sight.MERGE,
            containers=(*LOSSLESS, *CONTAINERS) if name == "linear" else LOSSLESS,
        )
    how, count = ways["linear"]
    yield Recipe("merge-linear-indexed", merge, of(how, count, "known"), Sight.MERGE)
    # another fine-tune of the same base lies by, and has nothing to do with it
    yield Recipe("tune-beside-sibling", kinds(K.FULL_FINETUNE), _tuned_beside, Sight.DENSE, benign=True)
    # nothing in the values of a merge with an unseen fine-tune differs from a fine-tune
    for name in ("linear", "ties"):
        how, count = ways[name]
        yield Recipe(
            f"merge-{name}-unseen",
            kinds(K.FULL_FINETUNE),
            of(how, count, ""),
            Sight.DENSE,
            benign=True,
            also=frozenset({kinds(K.UNKNOWN)}),
        )


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
            f"layers-{name}",
            surgery,
            lambda s, order=order: changes.relayered(s.weights, 0, order),  # type: ignore[misc]
            containers=("own", "fp16", "q8_0"),
        )
    yield Recipe(
        "layers-repeated-then-lora",
        kinds(K.LAYER_SURGERY, K.LOW_RANK_MERGE),
        lambda s: changes.low_rank(changes.relayered(s.weights, 0, orders["repeated"]), s.seed, 4, 3e-2),
    )
    for how in ("added", "padded", "permuted"):
        yield Recipe(
            f"tokens-{how}",
            vocabulary,
            lambda s, how=how: changes.tokens(s.weights, s.seed, how),  # type: ignore[misc]
            benign=True,
        )
    yield Recipe(
        "tokens-added-then-tune",
        kinds(K.VOCABULARY_CHANGE, K.FULL_FINETUNE),
        lambda s: changes.dense(changes.tokens(s.weights, s.seed, "added"), s.seed, 1e-2),
    )
    yield Recipe("patch", kinds(K.SPARSE_PATCH), lambda s: changes.patched(s.weights, s.seed), benign=True)


# --- adapters, other models, disguises ----------------------------------------------------------------------


def _others() -> Iterator[Recipe]:
    for name in ("plain", "rslora", "dora"):
        yield Recipe(
            f"adapter-{name}",
            kinds(K.ADAPTER),
            lambda s, name=name: Made({}, files=drawn_adapter(s.weights, s.seed, name)),  # type: ignore[misc]
            suits=lambda spec: spec.architecture != "mixtral",
            benign=True,
        )
    yield Recipe(
        "adapter-trained",
        kinds(K.ADAPTER),
        lambda s: Made({}, files=trained_adapter(s.model, s.scratch)),
        suits=lambda spec: spec.trained and spec.architecture != "mixtral",
        benign=True,
    )

    def stranger(scene: Scene) -> Weights:
        other = models.sibling(scene.model.spec, scene.model.seed, scene.scratch)
        return {name: value.float() for name, value in other.weights.items()}

    unrelated = kinds(K.UNRELATED)
    yield Recipe(
        "stranger", unrelated, stranger, related=False, benign=True, containers=(*LOSSLESS, *CONTAINERS)
    )
    yield Recipe(
        "stranger-permuted",
        unrelated,
        lambda s: changes.neurons_permuted(stranger(s), s.seed),
        related=False,
        benign=True,
    )
    # same function in other coordinates: `unknown` is the least, and nothing that names a cause is right
    disguise = kinds(K.UNKNOWN)
    also = frozenset({kinds(K.REPACKAGED)})
    yield Recipe(
        "permuted",
        disguise,
        lambda s: changes.neurons_permuted(s.weights, s.seed),
        also=also,
        related=None,
        benign=True,
    )
    yield Recipe(
        "rotated",
        disguise,
        lambda s: changes.rotated(s.weights, s.seed),
        also=also,
        related=None,
        benign=True,
        suits=lambda spec: spec.architecture in {"llama", "mixtral"},
    )
