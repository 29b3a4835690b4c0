"""Forks of the zoo's models with the edits that were made to them: the ground truth of the diff."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from detector.interface import EditKind as K
from detector.interface import LineageStatus
from tests.detector import zoo
from tests.detector.zoo import MemoryFile, Weights, one_file

Files = dict[str, MemoryFile]

SHAPES = (
    zoo.SMALL,
    zoo.Shape(hidden=192, inter=320, heads=6, kv_heads=2, vocab=384),
    zoo.Shape(hidden=64, inter=160, heads=4, kv_heads=2, vocab=256),
)


def shape_of(seed: int) -> zoo.Shape:
    """The tests' own shape for small seeds; seeds from 100 go through all of them."""
    return SHAPES[seed % len(SHAPES)] if seed >= 100 else zoo.SMALL


def base(seed: int) -> Weights:
    return zoo.base(seed, shape_of(seed))


@dataclass(frozen=True)
class Fork:
    """A fork and what the diff should say about it."""

    name: str
    build: Callable[[int, Path], tuple[Weights, Files]]
    """Seed and scratch folder → weights of the original, files of the fork."""
    kinds: frozenset[K]
    rank: int | None = None
    strength: float | None = None
    scheme: str | None = None
    layers: tuple[int, int] | None = None
    lineage: LineageStatus = LineageStatus.PROVED
    proved: frozenset[K] = frozenset()
    """Kinds that must come with certainty `PROVED`."""


def _fork(name: str, edit: Callable[[Weights, int], Weights], *kinds: K, **expected: object) -> Fork:
    """A fork in one safetensors file."""

    def build(seed: int, _: Path) -> tuple[Weights, Files]:
        original = base(seed)
        return original, one_file(edit(original, seed))

    return Fork(name, build, frozenset(kinds), **expected)  # type: ignore[arg-type]  # fields of Fork, by name


def _gguf(
    name: str, edit: Callable[[Weights, int], Weights], scheme: str, *kinds: K, **expected: object
) -> Fork:
    """A fork in a GGUF file."""

    def build(seed: int, folder: Path) -> tuple[Weights, Files]:
        original = base(seed)
        return original, zoo.gguf_file(edit(original, seed), scheme, folder, shape_of(seed))

    return Fork(name, build, frozenset(kinds), scheme=scheme, **expected)  # type: ignore[arg-type]  # as above


def same(weights: Weights, _: int) -> Weights:
    return weights


def lora(size: float, rank: int = 8) -> Callable[[Weights, int], Weights]:
    return lambda weights, seed: zoo.lora(weights, seed + 1, rank, size)


def full(size: float) -> Callable[[Weights, int], Weights]:
    return lambda weights, seed: zoo.dense(weights, seed + 1, size)


def projected(**options: object) -> Callable[[Weights, int], Weights]:
    return lambda weights, seed: zoo.project(weights, seed + 1, **options)  # type: ignore[arg-type]  # as above


def fp16(edit: Callable[[Weights, int], Weights]) -> Callable[[Weights, int], Weights]:
    return lambda weights, seed: zoo.cast(edit(weights, seed), torch.float16)


def middle_mlp(name: str) -> bool:
    return ".mlp." in name and any(f".layers.{layer}." in name for layer in (1, 2))


def no_embedding(name: str) -> bool:
    return zoo.is_writer(name) and "embed" not in name


def attention_inputs(name: str) -> bool:
    return "q_proj" in name or "v_proj" in name


def by_layer(layer: int) -> float:
    return (0.1, 0.5, 1.0, 0.6)[layer]


def relayered(order: list[int]) -> Callable[[Weights, int], Weights]:
    def edit(weights: Weights, _: int) -> Weights:
        edited = {name: value for name, value in weights.items() if ".layers." not in name}
        for new, old in enumerate(order):
            for name, value in weights.items():
                if f".layers.{old}." in name:
                    edited[name.replace(f".layers.{old}.", f".layers.{new}.")] = value
        return edited

    return edit


def patched(weights: Weights, _: int) -> Weights:
    name = "model.layers.1.mlp.down_proj.weight"
    value = weights[name].clone()
    value[3:5] += 0.05
    return {**weights, name: value}


def more_tokens(weights: Weights, _: int) -> Weights:
    rows = weights["model.embed_tokens.weight"]
    return {**weights, "model.embed_tokens.weight": torch.cat([rows, rows[:16] * 0.5])}


def shuffled_tokens(weights: Weights, _: int) -> Weights:
    return {**weights, "model.embed_tokens.weight": weights["model.embed_tokens.weight"].flip(0)}


def requantised(weights: Weights, _: int) -> Weights:
    """Dequantised Q8_0, uploaded in bf16."""
    from detector.grid import quantise

    return {
        name: quantise(value.float(), "Q8_0").to(torch.bfloat16) if value.dim() == 2 else value
        for name, value in weights.items()
    }


def adapter_removed(seed: int, _: Path) -> tuple[Weights, Files]:
    clean = base(seed)
    return zoo.lora(clean, seed + 1), one_file(clean)


def adapter_exchanged(seed: int, _: Path) -> tuple[Weights, Files]:
    clean = base(seed)
    return zoo.lora(clean, seed + 1), one_file(zoo.lora(clean, seed + 2))


def resharded(seed: int, _: Path) -> tuple[Weights, Files]:
    original = base(seed)
    return original, zoo.sharded(original)


def adapter(seed: int, _: Path) -> tuple[Weights, Files]:
    original = base(seed)
    return original, zoo.adapter_files(original, seed + 1)


def _set(*kinds: K) -> frozenset[K]:
    return frozenset(kinds)


def directional_lora(weights: Weights, seed: int) -> Weights:
    return zoo.lora(zoo.project(weights, seed + 1), seed + 2)


def directional_full(weights: Weights, seed: int) -> Weights:
    return zoo.dense(zoo.project(weights, seed + 1), seed + 2)


def light(where: Callable[[str], bool] = lambda _: True) -> Callable[[Weights, int], Weights]:
    return lambda weights, seed: zoo.adamw_light(weights, seed + 1, where=where)


FORKS: tuple[Fork, ...] = (
    _fork("identical", same, K.IDENTICAL, proved=_set(K.IDENTICAL)),
    Fork("resharded", resharded, _set(K.REPACKAGED), proved=_set(K.REPACKAGED)),
    _fork(
        "renamed",
        lambda weights, _: {f"base_model.model.{name}": value for name, value in weights.items()},
        K.REPACKAGED,
        proved=_set(K.REPACKAGED),
    ),
    _fork(
        "untied",
        lambda weights, _: {**weights, "lm_head.weight": weights["model.embed_tokens.weight"]},
        K.REPACKAGED,
        proved=_set(K.REPACKAGED),
    ),
    _fork("fp16", fp16(same), K.DTYPE_CAST, scheme="F16", proved=_set(K.DTYPE_CAST)),
    _fork(
        "fp32", lambda w, _: zoo.cast(w, torch.float32), K.DTYPE_CAST, scheme="F32", proved=_set(K.DTYPE_CAST)
    ),
    _gguf("gguf-f16", same, "F16", K.DTYPE_CAST, proved=_set(K.DTYPE_CAST)),
    _gguf("gguf-q8_0", same, "Q8_0", K.QUANTIZED, proved=_set(K.QUANTIZED)),
    _gguf("gguf-q5_1", same, "Q5_1", K.QUANTIZED, proved=_set(K.QUANTIZED)),
    _gguf("gguf-q4_0", same, "Q4_0", K.QUANTIZED, proved=_set(K.QUANTIZED)),
    _fork("dequantised-q8_0", requantised, K.QUANTIZED, scheme="Q8_0", proved=_set(K.QUANTIZED)),
    Fork("adapter", adapter, _set(K.ADAPTER), 8, lineage=LineageStatus.CONSISTENT, proved=_set(K.ADAPTER)),
    _fork("lora", lora(0.01), K.LOW_RANK_MERGE, rank=8, layers=(0, 3), proved=_set(K.LOW_RANK_MERGE)),
    _fork("lora-weak", lora(0.003), K.LOW_RANK_MERGE, rank=8, proved=_set(K.LOW_RANK_MERGE)),
    _fork("lora-rank-1", lora(0.03, 1), K.LOW_RANK_MERGE, rank=1, proved=_set(K.LOW_RANK_MERGE)),
    _fork(
        "lora-q-v",
        lambda weights, seed: zoo.lora(weights, seed + 1, where=attention_inputs),
        K.LOW_RANK_MERGE,
        rank=8,
        proved=_set(K.LOW_RANK_MERGE),
    ),
    Fork("lora-removed", adapter_removed, _set(K.LOW_RANK_MERGE), 8, proved=_set(K.LOW_RANK_MERGE)),
    Fork("lora-exchanged", adapter_exchanged, _set(K.LOW_RANK_MERGE), 16, proved=_set(K.LOW_RANK_MERGE)),
    _fork(
        "lora-fp16",
        fp16(lora(0.01)),
        K.LOW_RANK_MERGE,
        K.DTYPE_CAST,
        rank=8,
        proved=_set(K.LOW_RANK_MERGE, K.DTYPE_CAST),
    ),
    _gguf("lora-q8_0", lora(0.02), "Q8_0", K.LOW_RANK_MERGE, K.QUANTIZED, rank=8),
    _fork("full", full(0.01), K.FULL_FINETUNE),
    _fork("full-light", light(), K.FULL_FINETUNE),
    _fork("full-fp16", fp16(full(0.01)), K.FULL_FINETUNE, K.DTYPE_CAST),
    _gguf("full-q8_0", full(0.02), "Q8_0", K.FULL_FINETUNE, K.QUANTIZED),
    _fork(
        "partial",
        lambda weights, seed: zoo.dense(weights, seed + 1, where=middle_mlp),
        K.PARTIAL_FINETUNE,
        layers=(1, 2),
    ),
    _fork("partial-light", light(middle_mlp), K.PARTIAL_FINETUNE, layers=(1, 2)),
    _fork(
        "scaled",
        lambda weights, _: {
            name: (value.float() * 0.97).to(torch.bfloat16) for name, value in weights.items()
        },
        K.FULL_FINETUNE,
    ),
    _fork(
        "directional", projected(), K.DIRECTIONAL_EDIT, rank=1, strength=1.0, proved=_set(K.DIRECTIONAL_EDIT)
    ),
    _fork(
        "directional-by-layer",
        projected(strength=by_layer, where=no_embedding),
        K.DIRECTIONAL_EDIT,
        rank=1,
        layers=(0, 3),
        proved=_set(K.DIRECTIONAL_EDIT),
    ),
    _fork(
        "directional-own-direction-a-layer",
        projected(per_layer=True, where=no_embedding),
        K.DIRECTIONAL_EDIT,
        rank=1,
        proved=_set(K.DIRECTIONAL_EDIT),
    ),
    _fork(
        "directional-norms-kept",
        projected(keep_norms=True, where=no_embedding),
        K.DIRECTIONAL_EDIT,
        rank=1,
        proved=_set(K.DIRECTIONAL_EDIT),
    ),
    _fork("directional-three", projected(directions=3), K.DIRECTIONAL_EDIT, rank=3, strength=1.0),
    _fork("directional-added", projected(strength=lambda _: -0.7), K.DIRECTIONAL_EDIT, rank=1, strength=-0.7),
    _fork("directional-fp16", fp16(projected()), K.DIRECTIONAL_EDIT, K.DTYPE_CAST, rank=1, strength=1.0),
    _gguf("directional-q8_0", projected(), "Q8_0", K.DIRECTIONAL_EDIT, K.QUANTIZED, rank=1, strength=1.0),
    _gguf("directional-q4_0", projected(), "Q4_0", K.DIRECTIONAL_EDIT, K.QUANTIZED, rank=1),
    _fork("directional-lora", directional_lora, K.DIRECTIONAL_EDIT, K.LOW_RANK_MERGE),
    _fork("directional-full", directional_full, K.DIRECTIONAL_EDIT, K.FULL_FINETUNE),
    _fork("patch", patched, K.SPARSE_PATCH, layers=(1, 1)),
    _fork("more-tokens", more_tokens, K.VOCABULARY_CHANGE),
    _fork("shuffled-tokens", shuffled_tokens, K.VOCABULARY_CHANGE),
    _fork("layer-repeated", relayered([0, 1, 1, 2, 3]), K.LAYER_SURGERY),
    _fork("layer-dropped", relayered([0, 1, 3]), K.LAYER_SURGERY),
    _fork("layers-swapped", relayered([0, 2, 1, 3]), K.LAYER_SURGERY),
    _fork(
        "unrelated",
        lambda _, seed: zoo.base(seed + 5000, shape_of(seed)),
        K.UNRELATED,
        lineage=LineageStatus.UNRELATED,
    ),
    _gguf(
        "unrelated-q8_0",
        lambda _, seed: zoo.base(seed + 5000, shape_of(seed)),
        "Q8_0",
        K.UNRELATED,
        lineage=LineageStatus.UNRELATED,
    ),
)


def fork_named(name: str) -> Fork:
    return next(fork for fork in FORKS if fork.name == name)
