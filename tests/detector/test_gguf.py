"""GGUF files of gguf-py come back under transformers names and in transformers order; hostile ones do not."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.errors import MalformedWeightsError, UnreadableTensorError
from detector.formats import open_weights
from detector.formats.gguf_header import BLOCKS, read_gguf_header
from detector.grid import LEGACY, quantise
from tests.detector import zoo
from tests.detector.zoo import MemoryFile

NAMES = sorted(name for name, _, _ in BLOCKS.values())


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _start(tensors: int = 0, keys: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def _tensor(name: str, dims: tuple[int, ...], kind: int, offset: int = 0) -> bytes:
    return _string(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims) + struct.pack("<IQ", kind, offset)


def _file(*tensors: bytes, keys: bytes = b"", key_count: int = 0, data: bytes = b"") -> bytes:
    header = _start(len(tensors), key_count) + keys + b"".join(tensors)
    return header + b"\0" * (-len(header) % 32) + data


def one_tensor(kind: int, dims: tuple[int, ...], data: bytes) -> bytes:
    return _file(_tensor("token_embd.weight", dims, kind), data=data)


HOSTILE = {
    "empty": b"",
    "wrong magic": b"GGML" + b"\0" * 32,
    "version 1": _start(version=1),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "2**60 tensors": _start(tensors=1 << 60),
    "2**60 keys": _start(keys=1 << 60),
    "array of 2**62": _start(keys=1) + _string("a") + struct.pack("<IIQ", 9, 4, 1 << 62),
    "array of 1e8 strings": _start(keys=1) + _string("a") + struct.pack("<IIQ", 9, 8, 100_000_000),
    "array beyond the file": _start(keys=1) + _string("a") + struct.pack("<IIQ", 9, 4, 1 << 20),
    "string of 2**62": _start(keys=1) + struct.pack("<Q", 1 << 62),
    "arrays in arrays": _start(keys=1) + _string("a") + struct.pack("<IIQ", 9, 9, 1) * 40,
    "unknown value type": _start(keys=1) + _string("a") + struct.pack("<I", 99),
    "duplicate key": _start(keys=2) + (_string("a") + struct.pack("<II", 4, 1)) * 2,
    "alignment of 3": _start(keys=1) + _string("general.alignment") + struct.pack("<II", 4, 3),
    "alignment of 0": _start(keys=1) + _string("general.alignment") + struct.pack("<II", 4, 0),
    "five dimensions": _file(_tensor("a", (1, 1, 1, 1, 1), 0), data=b"\0" * 4),
    "no dimension": _file(_tensor("a", (), 0)),
    "zero dimension": _file(_tensor("a", (0,), 0)),
    "overflowing shape": _file(_tensor("a", (1 << 39, 1 << 39, 1 << 39, 1 << 39), 0)),
    "unknown tensor type": _file(_tensor("a", (32,), 1077)),
    "half a block": _file(_tensor("a", (16,), 8), data=b"\0" * 34),
    "beyond the end": _file(_tensor("a", (8,), 0), data=b"\0" * 31),
    "overlap": _file(_tensor("a", (16,), 0), _tensor("b", (16,), 0, 32), data=b"\0" * 128),
    "misaligned": _file(_tensor("a", (4,), 0, 4), data=b"\0" * 64),
    "same name twice": _file(_tensor("a", (8,), 0), _tensor("a", (8,), 0, 32), data=b"\0" * 64),
    "control character": _file(_tensor("a\x07", (8,), 0), data=b"\0" * 32),
}


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in HOSTILE.items()])
def test_hostile_headers_are_refused_at_once(data: bytes) -> None:
    """Each broken header is malformed, and costs no time: the announced sizes are not believed."""
    start = time.process_time()
    with pytest.raises(MalformedWeightsError):
        read_gguf_header(MemoryFile(data), "hostile.gguf")
    assert time.process_time() - start < 1


@pytest.mark.parametrize("scheme", ["F16", "BF16", "F32", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"])
def test_values_come_back_in_transformers_order(scheme: str, tmp_path: Path) -> None:
    """Names and q and k row order are transformers', values are the quantised original's."""
    weights = zoo.base(3)
    reader = open_weights(zoo.gguf_file(weights, scheme, tmp_path))
    assert set(reader.tensors()) == set(weights)
    for name, value in weights.items():
        expected = value.float()
        if scheme in LEGACY and value.dim() == 2:
            expected = quantise(expected, scheme)
        elif scheme == "F16" and value.dim() == 2:
            expected = expected.half().float()
        assert reader.tensors()[name].shape == tuple(value.shape)
        assert torch.equal(reader.values(name).float(), expected)
        assert torch.equal(reader.band(name, 5, 70).float(), expected[5:75])


def test_rotary_order_is_what_transformers_undoes(tmp_path: Path) -> None:
    """The q rows equal what transformers' own GGUF loader makes of the same file."""
    from transformers import AutoModelForCausalLM

    shape = zoo.SMALL
    weights = zoo.base(4)
    path = tmp_path / "F32.gguf"
    files = zoo.gguf_file(weights, "F32", tmp_path)
    _add_config(path, weights)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="F32.gguf").state_dict()
    reader = open_weights(files)
    for layer in range(shape.layers):
        for module in ("q_proj", "k_proj"):
            name = f"model.layers.{layer}.self_attn.{module}.weight"
            assert torch.equal(reader.values(name), loaded[name])


def _add_config(path: Path, weights: zoo.Weights) -> None:
    """Write the file again with the keys that transformers needs to build the model."""
    from gguf import GGUFWriter

    shape = zoo.SMALL
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.inter)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocab)
    for name, value in weights.items():
        array = value.float().numpy()
        if "q_proj" in name or "k_proj" in name:
            array = zoo.rotate(array, shape.heads if "q_proj" in name else shape.kv_heads)
        writer.add_tensor(zoo.gguf_name(name), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("kind", sorted(BLOCKS), ids=lambda kind: BLOCKS[kind][0])
def test_every_type_is_decoded_as_gguf_py_does_or_refused(kind: int) -> None:
    """Random blocks of every ggml type decode to gguf-py's values, or are unreadable; never anything else."""
    name, block, block_bytes = BLOCKS[kind]
    rows, columns = 3, 512
    data = np.random.default_rng(kind).integers(0, 60, rows * columns // block * block_bytes, dtype=np.uint8)
    reader = open_weights({"m.gguf": MemoryFile(one_tensor(kind, (columns, rows), data.tobytes()))})
    embedding = "model.embed_tokens.weight"
    try:
        values = reader.values(embedding)
    except UnreadableTensorError:
        assert name in {"Q8_1", "Q8_K", "Q1_0"}
        return
    if name.startswith(("I8", "I16", "I32", "I64", "F64")):
        assert values.shape == (rows, columns)
        return
    with np.errstate(all="ignore"):
        expected = dequantize(data.reshape(rows, -1), GGMLQuantizationType(kind))
    assert np.array_equal(values.float().numpy(), expected.astype(np.float32), equal_nan=True)
    assert torch.equal(reader.band(embedding, 1, 1).nan_to_num(), values[1:2].nan_to_num())


@pytest.mark.parametrize("heads", [0, 3, 8])
def test_impossible_head_count_is_malformed(heads: int) -> None:
    """A head count that does not divide the rows of q into pairs is refused when q is read."""
    keys = _string("general.architecture") + struct.pack("<I", 8) + _string("llama")
    keys += _string("llama.attention.head_count") + struct.pack("<II", 4, heads)
    data = _file(_tensor("blk.0.attn_q.weight", (4, 8), 0), keys=keys, key_count=2, data=b"\0" * 128)
    reader = open_weights({"m.gguf": MemoryFile(data)})
    with pytest.raises(MalformedWeightsError):
        reader.values("model.layers.0.self_attn.q_proj.weight")


def test_text_keys_are_kept(tmp_path: Path) -> None:
    """The chat template is read from the header; token lists are skipped, not kept."""
    files = zoo.gguf_file(zoo.base(3), "Q8_0", tmp_path)
    header = read_gguf_header(files["Q8_0.gguf"], "Q8_0.gguf")
    assert header.get("tokenizer.chat_template") == "{{ messages }}"
    assert header.get("tokenizer.ggml.tokens") is None


SAMPLE = _file(
    _tensor("token_embd.weight", (32, 2), 8),
    _tensor("output_norm.weight", (8,), 0, 96),
    keys=_string("a") + struct.pack("<II", 4, 7) + _string("b") + struct.pack("<IIQ", 9, 8, 1) + _string("t"),
    key_count=2,
    data=b"\0" * 128,
)


def test_sample_is_valid() -> None:
    """The file that the next test breaks is read when whole."""
    assert len(read_gguf_header(MemoryFile(SAMPLE), "sample").tensors) == 2


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255), st.integers(0, len(SAMPLE)))
def test_mutated_files_are_read_or_refused(position: int, byte: int, length: int) -> None:
    """One changed byte or a cut file is either read within its bounds or malformed."""
    data = bytearray(SAMPLE)
    data[position] = byte
    for candidate in (bytes(data), SAMPLE[:length]):
        try:
            header = read_gguf_header(MemoryFile(candidate), "fuzz")
        except MalformedWeightsError:
            continue
        assert all(tensor.offset + tensor.nbytes <= len(candidate) for tensor in header.tensors)
