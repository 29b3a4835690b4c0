"""Attention inputs that architectures fuse in orders of their own find their parts by content."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detector.compare import compare_pair
from detector.content import match_by_content
from detector.diff import diff_weights
from detector.formats import open_weights
from detector.interface import EditKind, LineageStatus, TensorStatus
from detector.pairing import Pairing, pair_tensors
from tests.detector import zoo
from tests.detector.test_format_gguf import gguf
from tests.detector.zoo import MemoryFile, Weights, one_file

GENERATOR = torch.Generator().manual_seed(6)
HIDDEN, SIZE = 128, 16


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR)


def parts(kv_heads: int) -> dict[str, torch.Tensor]:
    """Queries, keys and values of 8 query heads and so many key heads, with biases."""
    heights = {"q": HIDDEN, "k": kv_heads * SIZE, "v": kv_heads * SIZE}
    weights = {f"{part}.weight": random(height, HIDDEN) for part, height in heights.items()}
    return weights | {f"{part}.bias": random(height) for part, height in heights.items()}


def grouped(own: dict[str, torch.Tensor], kv_heads: int, leaf: str) -> torch.Tensor:
    """Each key head after its queries and before its values: InternLM2, Falcon, GPT-NeoX, Bloom."""
    each = [
        own[f"{part}.{leaf}"].reshape(kv_heads, -1, SIZE, *own[f"{part}.{leaf}"].shape[1:]) for part in "qkv"
    ]
    return torch.cat(each, 1).flatten(0, 2).contiguous()


def stacked(own: dict[str, torch.Tensor], leaf: str) -> torch.Tensor:
    return torch.cat([own[f"{part}.{leaf}"] for part in "qkv"])


def matched(original: Weights, files: dict[str, MemoryFile]) -> tuple[Pairing, set[TensorStatus]]:
    left, right = open_weights(one_file(original)), open_weights(files)
    pairing = match_by_content(pair_tensors(left.tensors(), right.tensors()), left, right)
    return pairing, {compare_pair(pair, left, right).status for pair in pairing.pairs}


@pytest.mark.parametrize("kv_heads", [8, 4, 2])
@pytest.mark.parametrize("order", ["grouped", "stacked"])
@pytest.mark.parametrize("original_is_fused", [True, False])
def test_a_fused_side_and_a_split_one(kv_heads: int, order: str, original_is_fused: bool) -> None:
    """InternLM2's `wqkv`, Falcon's and ChatGLM's `query_key_value`; biases are laid out alike."""
    own = parts(kv_heads)
    stem = "transformer.h.0.self_attention"
    split = {f"{stem}.{name[0]}_proj.{name[2:]}": value for name, value in own.items()}
    fused = {
        f"{stem}.query_key_value.{leaf}": grouped(own, kv_heads, leaf)
        if order == "grouped"
        else stacked(own, leaf)
        for leaf in ("weight", "bias")
    }
    original, fork = (fused, split) if original_is_fused else (split, fused)
    pairing, statuses = matched(original, one_file(fork))
    assert (pairing.added, pairing.missing) == ((), ())
    assert len(pairing.pairs) == 6
    assert statuses == {TensorStatus.IDENTICAL}


@pytest.mark.parametrize("kv_heads", [8, 2])
@pytest.mark.parametrize("order", ["grouped", "stacked"])
def test_gguf_sorts_what_the_original_has_by_head(kv_heads: int, order: str, tmp_path: Path) -> None:
    """GPT-NeoX, Bloom and Falcon: the converter puts all queries first; one that did not is seen as well."""
    own = parts(kv_heads)
    stem = "gpt_neox.layers.0.attention"
    original = {f"{stem}.query_key_value.{leaf}": grouped(own, kv_heads, leaf) for leaf in ("weight", "bias")}
    stored = {
        f"blk.0.attn_qkv.{leaf}": stacked(own, leaf)
        if order == "stacked"
        else original[f"{stem}.query_key_value.{leaf}"]
        for leaf in ("weight", "bias")
    }
    pairing, statuses = matched(original, gguf(tmp_path, "gptneox", stored))
    assert (pairing.added, pairing.missing) == ((), ())
    assert statuses == {TensorStatus.IDENTICAL}


def test_other_weights_of_the_same_shape_are_not_paired() -> None:
    """Where nothing is alike, nothing is said: no order is better than another."""
    original = {"h.0.self_attention.query_key_value.weight": random(384, HIDDEN)}
    fork = {"h.0.self_attention.qkv_proj.weight": random(384, HIDDEN)}
    pairing, _ = matched(original, one_file(fork))
    assert not pairing.pairs
    assert len(pairing.added) == len(pairing.missing) == 1


def test_internlm2_and_its_llama_form() -> None:
    """Other names for everything, and the attention inputs in groups: nothing but repackaged."""
    shape = zoo.Shape(hidden=128, inter=160, layers=2, heads=8, kv_heads=2, vocab=96)
    llama = zoo.base(23, shape) | {"lm_head.weight": random(96, 128).bfloat16()}
    names = {
        "self_attn.o_proj": "attention.wo",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.up_proj": "feed_forward.w3",
        "mlp.down_proj": "feed_forward.w2",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
        "embed_tokens": "tok_embeddings",
        "lm_head": "output",
    }
    original: Weights = {}
    for name, value in llama.items():
        if not any(part in name for part in ("q_proj", "k_proj", "v_proj")):
            renamed = name
            for theirs, ours in names.items():
                renamed = renamed.replace(theirs, ours)
            original[renamed] = value
    for layer in range(shape.layers):
        stem = f"model.layers.{layer}"
        own = {f"{part}.weight": llama[f"{stem}.self_attn.{part}_proj.weight"] for part in "qkv"}
        original[f"{stem}.attention.wqkv.weight"] = grouped(own, shape.kv_heads, "weight")
    diff = diff_weights(open_weights(one_file(original)), open_weights(one_file(llama)))
    assert [edit.kind for edit in diff.edits] == [EditKind.REPACKAGED]
    assert diff.lineage.status is LineageStatus.PROVED
    assert {tensor.status for tensor in diff.tensors} == {TensorStatus.IDENTICAL}


def test_chatglm_and_its_split_form() -> None:
    """Gate and up one above the other in `dense_h_to_4h`, all queries first."""
    own, gate, up, down = parts(2), random(48, HIDDEN), random(48, HIDDEN), random(HIDDEN, 48)
    stem = "transformer.encoder.layers.0"
    original = {
        f"{stem}.self_attention.query_key_value.weight": stacked(own, "weight"),
        f"{stem}.self_attention.query_key_value.bias": stacked(own, "bias"),
        f"{stem}.mlp.dense_h_to_4h.weight": torch.cat([gate, up]),
        f"{stem}.mlp.dense_4h_to_h.weight": down,
        "transformer.embedding.word_embeddings.weight": random(32, HIDDEN),
        "transformer.output_layer.weight": random(32, HIDDEN),
    }
    fork = {f"model.layers.0.self_attn.{name[0]}_proj.{name[2:]}": value for name, value in own.items()}
    fork |= {
        f"model.layers.0.mlp.{n}_proj.weight": v for n, v in (("gate", gate), ("up", up), ("down", down))
    }
    fork["model.embed_tokens.weight"] = original["transformer.embedding.word_embeddings.weight"]
    fork["lm_head.weight"] = original["transformer.output_layer.weight"]
    pairing, statuses = matched(original, one_file(fork))
    assert (pairing.added, pairing.missing) == ((), ())
    assert len(pairing.pairs) == len(fork)
    assert statuses == {TensorStatus.IDENTICAL}
