"""Every ggml type is decoded or refused with a reason, shards are one checkpoint, names are transformers'."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from detector.compare import compare_pair
from detector.diff import diff_weights
from detector.errors import MalformedWeightsError, NoWeightsError, UnreadableTensorError
from detector.formats import SplitGgufReader, checkpoints, open_weights
from detector.formats.gguf_header import BLOCKS
from detector.formats.names import canonical_gguf_name
from detector.interface import EditKind, TensorStatus
from detector.pairing import pair_tensors
from tests.detector import zoo
from tests.detector.zoo import MemoryFile, one_file

UNDECODED = {"Q8_1", "Q8_K", "Q1_0"}
"""What gguf-py 0.19 has no code for: intermediate types, and one that no release uses."""


def one_tensor(kind: int, shape: tuple[int, int], nbytes: int) -> bytes:
    """A GGUF file of one tensor of zeros, written by hand."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q", 1) + b"a"
    head += struct.pack("<IQQIQ", 2, shape[1], shape[0], kind, 0)
    return head.ljust(-(-len(head) // 32) * 32, b"\0") + bytes(nbytes)


@pytest.mark.parametrize("kind", list(GGMLQuantizationType), ids=lambda kind: kind.name)
def test_every_type_is_decoded_or_unreadable(kind: GGMLQuantizationType) -> None:
    """The library's own list, so that a type that a new version adds cannot be forgotten here."""
    block, nbytes = GGML_QUANT_SIZES[kind]
    assert BLOCKS[int(kind)] == (kind.name, block, nbytes)
    data = one_tensor(int(kind), (3, 2 * block), 6 * nbytes)
    reader = open_weights({"a.gguf": MemoryFile(data)})
    assert reader.tensors()["a"].shape == (3, 2 * block)
    if kind.name in UNDECODED:
        with pytest.raises(UnreadableTensorError, match=kind.name):
            reader.values("a")
        return
    assert tuple(reader.values("a").shape) == (3, 2 * block)
    assert torch.equal(reader.band("a", 1, 1), reader.values("a")[1:2])


@pytest.mark.parametrize("kind", [4, 5, 31, 33, 36, 42, 137, 255])
def test_dropped_and_newer_types_are_unreadable(kind: int) -> None:
    """Types that ggml once had, or has since, make a tensor unreadable; the file is not called damaged."""
    reader = open_weights({"a.gguf": MemoryFile(one_tensor(kind, (2, 256), 4096))})
    info = reader.tensors()["a"]
    assert (info.dtype, info.shape, info.nbytes) == (f"GGML-{kind}", (2, 256), 4096)
    for read in (reader.values, lambda name: reader.band(name, 0, 1)):
        with pytest.raises(UnreadableTensorError, match=f"GGML-{kind}"):
            read("a")


# --- shards -----------------------------------------------------------------------------------------------


BASE = zoo.base(17, zoo.Shape(hidden=32, inter=64, layers=2, heads=2, kv_heads=1, vocab=64))
SHAPE = zoo.Shape(hidden=32, inter=64, layers=2, heads=2, kv_heads=1, vocab=64)


def shards(folder: Path) -> dict[str, MemoryFile]:
    """The checkpoint in shards, by gguf-py's writer."""
    from gguf import GGUFWriter

    writer = GGUFWriter(folder / "m.gguf", "llama", split_max_tensors=8)
    writer.add_head_count(SHAPE.heads)
    writer.add_head_count_kv(SHAPE.kv_heads)
    for name, value in BASE.items():
        array = value.float().numpy()
        if "q_proj" in name or "k_proj" in name:
            array = zoo.rotate(array, SHAPE.heads if "q_proj" in name else SHAPE.kv_heads)
        writer.add_tensor(zoo.gguf_name(name), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {path.name: MemoryFile(path.read_bytes()) for path in folder.glob("*.gguf")}


def test_shards_are_read_as_one_checkpoint(tmp_path: Path) -> None:
    """Tensors of all shards, rotated by what the first one says, beside a smaller single file."""
    files = shards(tmp_path)
    assert len(files) > 2
    reader = open_weights({**files, "small.gguf": MemoryFile(one_tensor(0, (1, 8), 32))})
    assert isinstance(reader, SplitGgufReader)
    assert len(reader.headers) == len(files)
    diff = diff_weights(open_weights(one_file(BASE)), reader)
    assert [edit.kind for edit in diff.edits] == [EditKind.DTYPE_CAST]
    assert {tensor.status for tensor in diff.tensors} == {TensorStatus.CAST}
    name = "model.layers.1.mlp.up_proj.weight"
    before = reader.bytes_read
    assert torch.equal(reader.values(f"{name}@rows:2:6"), BASE[name][2:6].float())
    assert reader.bytes_read - before == 4 * 32 * 4 == reader.band_bytes(name, 4)
    assert reader.raw(name) == BASE[name].float().numpy().tobytes()


def test_a_set_without_one_of_its_shards_is_no_checkpoint(tmp_path: Path) -> None:
    """Half a model is not compared as if it were one."""
    files = shards(tmp_path)
    del files[max(files)]
    with pytest.raises(NoWeightsError):
        open_weights(files)


def test_shards_that_contradict_each_other_are_malformed(tmp_path: Path) -> None:
    """A shard at another's place, and two that hold the same tensor."""
    files = shards(tmp_path)
    first, second, *_ = sorted(files)
    with pytest.raises(MalformedWeightsError, match="by its header"):
        open_weights(files | {first: files[second], second: files[first]})
    same = MemoryFile(one_tensor(0, (1, 8), 32))
    with pytest.raises(MalformedWeightsError, match="two shards"):
        open_weights({"m-00001-of-00002.gguf": same, "m-00002-of-00002.gguf": same})


def test_checkpoints_are_sorted_out_of_a_folder() -> None:
    """Complete sets in order, single files alone, absurd numbers nowhere."""
    paths = ["q/m-00002-of-00002.gguf", "q/m-00001-of-00002.gguf", "b.gguf", "x-00001-of-00003.gguf"]
    paths += ["y-00001-of-99999.gguf", "z-00000-of-00000.gguf"]
    assert checkpoints(paths) == [("b.gguf",), ("q/m-00001-of-00002.gguf", "q/m-00002-of-00002.gguf")]


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "stored", "canonical"),
    [
        ("qwen2", "blk.0.attn_k.bias", "model.layers.0.self_attn.k_proj.bias"),
        ("qwen3", "blk.0.attn_q_norm.weight", "model.layers.0.self_attn.q_norm.weight"),
        ("qwen3moe", "blk.1.ffn_gate_inp.weight", "model.layers.1.mlp.gate.weight"),
        ("qwen2moe", "blk.1.ffn_up_shexp.weight", "model.layers.1.mlp.shared_expert.up_proj.weight"),
        ("gemma2", "blk.0.ffn_norm.weight", "model.layers.0.pre_feedforward_layernorm.weight"),
        ("gemma3", "blk.0.post_ffw_norm.weight", "model.layers.0.post_feedforward_layernorm.weight"),
        ("phi2", "blk.0.ffn_up.bias", "model.layers.0.mlp.fc1.bias"),
        ("phi3", "blk.0.ffn_up.weight", "model.layers.0.mlp.gate_up_proj.weight"),
        ("gptneox", "blk.0.attn_output.bias", "gpt_neox.layers.0.attention.dense.bias"),
        ("gptneox", "output.weight", "embed_out.weight"),
        ("falcon", "blk.0.ffn_down.weight", "transformer.h.0.mlp.dense_4h_to_h.weight"),
        ("chatglm", "token_embd.weight", "transformer.embedding.word_embeddings.weight"),
        ("deepseek2", "blk.3.attn_kv_a_mqa.weight", "model.layers.3.self_attn.kv_a_proj_with_mqa.weight"),
        ("deepseek2", "blk.3.attn_q_a_norm.weight", "model.layers.3.self_attn.q_a_layernorm.weight"),
        ("olmo2", "blk.3.post_attention_norm.weight", "model.layers.3.post_attention_layernorm.weight"),
        ("llama", "rope_freqs.weight", "rope_freqs.weight"),
    ],
)
def test_names_are_transformers_names(architecture: str, stored: str, canonical: str) -> None:
    """What is not in our table is looked up in gguf-py's."""
    assert canonical_gguf_name(stored, architecture) == canonical


def test_rope_frequencies_are_no_weights(tmp_path: Path) -> None:
    """`rope_freqs` follow from the configuration; a head that is not there is the embedding."""
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "m.gguf", "qwen2")
    rows = BASE["model.embed_tokens.weight"].float()
    writer.add_tensor("token_embd.weight", rows.numpy())
    writer.add_tensor("rope_freqs.weight", np.ones(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    original = open_weights(one_file({"model.embed_tokens.weight": rows, "lm_head.weight": rows}))
    fork = open_weights({"m.gguf": MemoryFile((tmp_path / "m.gguf").read_bytes())})
    pairing = pair_tensors(original.tensors(), fork.tensors())
    assert not pairing.added
    assert not pairing.missing
    assert {compare_pair(pair, original, fork).status for pair in pairing.pairs} == {TensorStatus.IDENTICAL}
