"""A text model inside a multi-modal one is the text model; towers and extra heads are no layers of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detector.diff import diff_weights
from detector.formats import open_weights
from detector.formats.names import canonical_names, layer_of
from detector.interface import EditKind, LineageStatus, TensorStatus
from detector.pairing import pair_tensors
from tests.detector import zoo
from tests.detector.test_format_gguf import gguf
from tests.detector.zoo import Weights, one_file

SHAPE = zoo.Shape(hidden=64, inter=96, layers=2, heads=4, kv_heads=2, vocab=128)
BASE = zoo.base(25, SHAPE) | {"lm_head.weight": torch.randn(128, 64).bfloat16()}
GENERATOR = torch.Generator().manual_seed(3)

WRAPPERS = {
    "llava": (
        {"model.": "language_model.model.", "lm_head": "language_model.lm_head"},
        "vision_tower.encoder.layers",
    ),
    "qwen2.5-vl": ({"model.": "model.language_model."}, "model.visual.blocks"),
    "qwen-omni": ({"model.": "thinker.model.", "lm_head": "thinker.lm_head"}, "talker.model.layers"),
    "minicpm-v": ({"model.": "llm.model.", "lm_head": "llm.lm_head"}, "vpm.encoder.layers"),
    "smolvlm": ({"model.": "model.text_model."}, "model.vision_model.encoder.layers"),
    "deepseek-vl2": ({"model.": "language.model.", "lm_head": "language.lm_head"}, "vision.blocks"),
    "phi-4": ({}, "model.embed_tokens_extend.image_embed.img_processor.encoder.layers"),
    "glm-4v": ({}, "transformer.vision.transformer.layers"),
    "qwen3-next": ({}, "mtp.layers"),
}


def wrapped(kind: str) -> tuple[Weights, set[str]]:
    """The model in such a wrapper, and the names of its tower of five layers."""
    names, tower = WRAPPERS[kind]
    weights = {}
    for name, value in BASE.items():
        prefix = next((prefix for prefix in names if name.startswith(prefix)), "")
        weights[names.get(prefix, "") + name.removeprefix(prefix) if prefix else name] = value
    extra = {
        f"{tower}.{layer}.mlp.up_proj.weight": torch.randn(96, 64, generator=GENERATOR) for layer in range(5)
    }
    return weights | extra, set(canonical_names(extra).values())


@pytest.mark.parametrize("kind", sorted(WRAPPERS))
@pytest.mark.parametrize("original_is_wrapped", [True, False])
def test_a_wrapper_changes_nothing_of_the_text_model(kind: str, original_is_wrapped: bool) -> None:
    """Both ways round: every text tensor has its counterpart, the tower comes or goes, no layer does."""
    weights, tower = wrapped(kind)
    original, fork = (weights, BASE) if original_is_wrapped else (BASE, weights)
    left, right = open_weights(one_file(original)), open_weights(one_file(fork))
    pairing = pair_tensors(left.tensors(), right.tensors())
    assert len(pairing.pairs) == len(BASE)
    alone = {info.name for info in (pairing.missing if original_is_wrapped else pairing.added)}
    assert alone == tower
    assert {layer_of(name) for name in tower} == {None}
    if kind not in {"llava", "qwen3-next"}:
        return
    diff = diff_weights(left, right)
    assert diff.lineage.status is LineageStatus.PROVED
    assert EditKind.LAYER_SURGERY not in {edit.kind for edit in diff.edits}


@pytest.mark.parametrize("kind", ["llava", "qwen-omni"])
def test_two_wrapped_models_are_compared_whole(kind: str) -> None:
    """The same wrapper on both sides: towers are compared too."""
    weights, tower = wrapped(kind)
    name = next(iter(tower))
    diff = diff_weights(open_weights(one_file(weights)), open_weights(one_file(weights)))
    assert [edit.kind for edit in diff.edits] == [EditKind.IDENTICAL]
    assert name in {tensor.name for tensor in diff.tensors}


def with_later_layer() -> Weights:
    """DeepSeek and GLM number the layer that predicts the token after next as one more."""
    last = {
        name.replace("layers.1.", "layers.2."): torch.randn(value.shape, generator=GENERATOR).bfloat16()
        for name, value in BASE.items()
        if "layers.1." in name
    }
    return BASE | last | {f"model.layers.2.{part}.weight": torch.ones(64) for part in ("enorm", "hnorm")}


def test_a_layer_that_predicts_later_tokens_is_no_layer_of_the_stack() -> None:
    """Exports drop it; that is not layer surgery."""
    diff = diff_weights(open_weights(one_file(with_later_layer())), open_weights(one_file(BASE)))
    assert EditKind.LAYER_SURGERY not in {edit.kind for edit in diff.edits}
    missing = {tensor.name for tensor in diff.tensors if tensor.status is TensorStatus.MISSING}
    assert "mtp.2.enorm.weight" in missing
    assert all(name.startswith("mtp.2.") for name in missing)


def test_a_later_layer_of_a_gguf_is_none_either(tmp_path: Path) -> None:
    """llama.cpp marks it by `nextn`."""
    stored = {"blk.0.attn_norm.weight": torch.ones(4), "blk.1.attn_norm.weight": torch.ones(4)}
    stored |= {"blk.1.nextn.enorm.weight": torch.ones(4), "output_norm.weight": torch.ones(4)}
    names = set(open_weights(gguf(tmp_path, "glm4moe", stored)).tensors())
    assert {layer_of(name) for name in names} == {0, None}
    assert "mtp.1.input_layernorm.weight" in names


def test_a_real_dropped_layer_is_still_seen() -> None:
    """Without such marks a missing layer is layer surgery."""
    fork = {name: value for name, value in BASE.items() if "layers.1." not in name}
    diff = diff_weights(open_weights(one_file(BASE)), open_weights(one_file(fork)))
    assert EditKind.LAYER_SURGERY in {edit.kind for edit in diff.edits}
