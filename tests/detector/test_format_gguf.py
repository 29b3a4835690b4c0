"""Architectures for which llama.cpp's names or values differ from transformers' in a way of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from detector.compare import compare_pair
from detector.errors import MalformedWeightsError
from detector.formats import open_weights
from detector.formats.names import canonical_gguf_name
from detector.interface import TensorStatus
from detector.pairing import pair_tensors
from tests.detector.zoo import MemoryFile, Weights, one_file

GENERATOR = torch.Generator().manual_seed(4)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR)


def gguf(folder: Path, architecture: str, tensors: dict[str, torch.Tensor]) -> dict[str, MemoryFile]:
    from gguf import GGUFWriter

    path = folder / "model.gguf"
    writer = GGUFWriter(path, architecture)
    for name, value in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(value.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {path.name: MemoryFile(path.read_bytes())}


def statuses(original: Weights, files: dict[str, MemoryFile]) -> dict[str, TensorStatus]:
    left, right = open_weights(one_file(original)), open_weights(files)
    pairing = pair_tensors(left.tensors(), right.tensors())
    assert (pairing.added, pairing.missing, pairing.reshaped) == ((), (), ())
    return {pair.name: compare_pair(pair, left, right).status for pair in pairing.pairs}


def test_gains_of_gemma_are_stored_plus_one(tmp_path: Path) -> None:
    """The converter's addition is undone, and the norms around both blocks keep their places."""
    names = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    }
    original = {
        f"model.layers.0.{name}.weight": (random(16) / 4).to(torch.bfloat16).float() for name in names
    }
    stored = {f"blk.0.{names[name.split('.')[3]]}.weight": value + 1 for name, value in original.items()}
    reader = open_weights(gguf(tmp_path, "gemma2", stored))
    assert set(reader.tensors()) == set(original)
    for name, value in original.items():
        torch.testing.assert_close(reader.values(name), value, rtol=0, atol=2e-7)


def test_experts_of_a_gguf_are_compared_one_by_one(tmp_path: Path) -> None:
    """llama.cpp stacks the experts of each projection; the original has them apart."""
    stem = "model.layers.0.block_sparse_moe"
    original = {f"{stem}.gate.weight": random(4, 8)}
    stored = {"blk.0.ffn_gate_inp.weight": original[f"{stem}.gate.weight"]}
    for part, name, shape in (("w1", "gate", (6, 8)), ("w2", "down", (8, 6)), ("w3", "up", (6, 8))):
        values = [random(*shape) for _ in range(4)]
        original |= {f"{stem}.experts.{e}.{part}.weight": value for e, value in enumerate(values)}
        stored[f"blk.0.ffn_{name}_exps.weight"] = torch.stack(values)
    assert set(statuses(original, gguf(tmp_path, "llama", stored)).values()) == {TensorStatus.IDENTICAL}


def test_latent_attention_is_cut_by_head(tmp_path: Path) -> None:
    """DeepSeek: keys and values of `kv_b_proj` lie in stacks of their own, the keys turned."""
    original = {
        "model.layers.0.self_attn.kv_b_proj.weight": random(3 * (6 + 4), 8),
        "model.layers.0.self_attn.q_a_proj.weight": random(8, 16),
        "model.layers.0.mlp.shared_experts.up_proj.weight": random(8, 16),
        "model.layers.0.mlp.gate.e_score_correction_bias": random(4),
    }
    keys, values = original["model.layers.0.self_attn.kv_b_proj.weight"].reshape(3, 10, 8).split((6, 4), 1)
    stored = {
        "blk.0.attn_k_b.weight": keys.transpose(1, 2),
        "blk.0.attn_v_b.weight": values,
        "blk.0.attn_q_a.weight": original["model.layers.0.self_attn.q_a_proj.weight"],
        "blk.0.ffn_up_shexp.weight": original["model.layers.0.mlp.shared_experts.up_proj.weight"],
        "blk.0.exp_probs_b.bias": original["model.layers.0.mlp.gate.e_score_correction_bias"],
    }
    found = statuses(original, gguf(tmp_path, "deepseek2", stored))
    assert len(found) == 2 * 3 + 3
    assert set(found.values()) == {TensorStatus.IDENTICAL}


def test_fused_projections_of_phi3(tmp_path: Path) -> None:
    """`attn_qkv` and `ffn_up` are the fused projections that Phi-3 has itself."""
    original = {
        "model.layers.0.self_attn.qkv_proj.weight": random(24, 8),
        "model.layers.0.mlp.gate_up_proj.weight": random(32, 8),
    }
    stored = dict(zip(("blk.0.attn_qkv.weight", "blk.0.ffn_up.weight"), original.values(), strict=True))
    assert set(statuses(original, gguf(tmp_path, "phi3", stored)).values()) == {TensorStatus.IDENTICAL}


def test_matrices_of_gpt2_are_turned(tmp_path: Path) -> None:
    """The converter turns GPT-2's matrices; pairing turns them back."""
    original = {
        "transformer.h.0.attn.c_attn.weight": random(8, 24),
        "transformer.h.0.attn.c_proj.weight": random(8, 8),
        "transformer.h.0.mlp.c_fc.weight": random(8, 32),
        "transformer.wte.weight": random(16, 8),
    }
    names = ("blk.0.attn_qkv.weight", "blk.0.attn_output.weight", "blk.0.ffn_up.weight", "token_embd.weight")
    stored = {
        name: value if name == "token_embd.weight" else value.T.contiguous()
        for name, value in zip(names, original.values(), strict=True)
    }
    assert set(statuses(original, gguf(tmp_path, "gpt2", stored)).values()) == {TensorStatus.IDENTICAL}


def test_two_names_of_one_tensor_are_malformed(tmp_path: Path) -> None:
    """A tensor under llama.cpp's name and another under transformers' leave it open which one counts."""
    files = gguf(tmp_path, "llama", {"output.weight": random(4, 8), "lm_head.weight": random(4, 8)})
    with pytest.raises(MalformedWeightsError, match="two tensors are lm_head"):
        open_weights(files)


@pytest.mark.parametrize("architecture", ["", "llama", "gpt2", "gemma2", "\x1b[2J"])
def test_unknown_names_stay(architecture: str) -> None:
    """What is not in the tables keeps its own name."""
    assert canonical_gguf_name("blk.0.ssm_conv1d.weight", architecture) == "blk.0.ssm_conv1d.weight"
    assert canonical_gguf_name("v.blk.0.attn_q.weight", architecture) == "v.blk.0.attn_q.weight"
