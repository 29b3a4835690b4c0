"""Stores weights in files, and says which values the files hold: nothing here reads with the detector.

A container takes unrounded float32 weights, as merging tools have them before they save.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from benchmarks.zoo import names
from benchmarks.zoo.models import DTYPES, Model, Weights
from benchmarks.zoo.quants import BLOCK_K, int8_rows, nf4, q4_k, q4_k_values

GGUF_ARCHITECTURES = {
    "llama": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
}
"""Whose names gguf-py can map without rewriting tensors; GPT-NeoX's fused projections need rewriting."""


@dataclass(frozen=True)
class MemoryFile:
    """A file in memory, as a `ByteSource`."""

    data: bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        """A range."""
        return self.data[offset : offset + length]


Files = dict[str, MemoryFile]


@dataclass(frozen=True)
class Stored:
    """Files, and the float32 values that they hold, under the names of the model's own safetensors."""

    files: Files
    values: Weights


def store(model: Model, weights: Weights, container: str) -> Stored:
    """Store in `own`, `sharded`, `bf16`, `fp16`, `fp32`, `int8`, `nf4`, or in a GGUF type such as `q4_k`."""
    match container:
        case "own" | "sharded":
            return _safetensors(model, weights, model.spec.dtype, 3 if container == "sharded" else 1)
        case "bf16" | "fp16" | "fp32":
            return _safetensors(model, weights, {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}[container], 1)
        case "int8":
            return _int8(model, weights)
        case "nf4":
            return _nf4(model, weights)
        case _:
            return _gguf(model, weights, container.upper())


def fits(model: Model, container: str) -> bool:
    """Whether the container can hold the model."""
    if container in {"q8_0", "q5_1", "q4_0"}:
        return model.spec.architecture in GGUF_ARCHITECTURES
    if container == "q4_k":
        matrices = [value for value in model.weights.values() if value.dim() == 2]
        whole = all(value.shape[1] % BLOCK_K == 0 for value in matrices)
        return model.spec.architecture in GGUF_ARCHITECTURES and whole
    return True


def reader_files(weights: Mapping[str, torch.Tensor], shards: int = 1) -> Files:
    """Safetensors files as `save_pretrained` names them; copies, for a repeated layer shares its memory."""
    if shards == 1:
        return {
            "model.safetensors": MemoryFile(
                save({n: v.clone(memory_format=torch.contiguous_format) for n, v in weights.items()})
            )
        }
    ordered, files = sorted(weights), Files()
    index: dict[str, str] = {}
    for shard in range(shards):
        path = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {
            name: weights[name].clone(memory_format=torch.contiguous_format)
            for name in ordered[shard::shards]
        }
        index |= dict.fromkeys(part, path)
        files[path] = MemoryFile(save(part))
    files["model.safetensors.index.json"] = MemoryFile(json.dumps({"weight_map": index}).encode())
    return files


def _with_config(model: Model, files: Files, **more: Any) -> Files:
    return {**files, "config.json": MemoryFile(json.dumps(model.config | more).encode())}


def _safetensors(model: Model, weights: Weights, dtype: str, shards: int) -> Stored:
    cast = {name: value.to(DTYPES[dtype]) for name, value in weights.items()}
    return Stored(
        _with_config(model, reader_files(cast, shards)), {name: value.float() for name, value in cast.items()}
    )


def _int8(model: Model, weights: Weights) -> Stored:
    """LLM.int8 of bitsandbytes: codes and the largest magnitude of each row; the rest in fp16."""
    parts: Weights = {}
    values: Weights = {}
    for name, value in weights.items():
        if not names.is_linear(name, value):
            parts[name] = value.half()
            values[name] = parts[name].float()
            continue
        codes, largest = int8_rows(value)
        parts[name] = codes
        parts[f"{name.removesuffix('.weight')}.SCB"] = largest
        values[name] = codes.float() * (largest / 127)[:, None]
    config = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
    return Stored(_with_config(model, reader_files(parts), **config), values)


def _nf4(model: Model, weights: Weights) -> Stored:
    """NF4 of bitsandbytes, without nested scales."""
    parts: Weights = {}
    values: Weights = {}
    for name, value in weights.items():
        if not names.is_linear(name, value):
            parts[name] = value.to(torch.bfloat16)
            values[name] = parts[name].float()
            continue
        packed, absmax, values[name] = nf4(value)
        state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": list(value.shape)}
        parts[name] = packed
        parts[f"{name}.absmax"] = absmax
        parts[f"{name}.quant_state.bitsandbytes__nf4"] = torch.tensor(
            list(json.dumps(state).encode()), dtype=torch.uint8
        )
    config = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    return Stored(_with_config(model, reader_files(parts), **config), values)


# --- GGUF -------------------------------------------------------------------------------------------------


def _gguf(model: Model, weights: Weights, scheme: str) -> Stored:
    """What llama.cpp's converter and then `llama-quantize --pure` would write."""
    import gguf

    architecture = GGUF_ARCHITECTURES[model.spec.architecture]
    layers = 1 + max(names.layer(name) or 0 for name in weights)
    heads, groups = int(model.config["num_attention_heads"]), int(model.config["num_key_value_heads"])
    found = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    mapping = gguf.get_tensor_name_map(found, layers)
    values: Weights = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        writer.add_block_count(layers)
        writer.add_head_count(heads)
        writer.add_head_count_kv(groups)
        writer.add_token_list([f"token{index}" for index in range(_vocabulary(weights))])
        for name, members in _stacked(weights).items():
            array = np.stack([weights[member].numpy() for member in members])
            array = array[0] if len(members) == 1 else array
            turned = architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight"))
            if turned:
                array = _rotary(array, heads if "q_proj" in name else groups)
            kept = _write(
                writer, mapping.get_name(name, try_suffixes=(".weight", ".bias")), array, scheme, architecture
            )
            if turned:
                kept = _unrotary(kept, heads if "q_proj" in name else groups)
            for index, member in enumerate(members):
                values[member] = torch.from_numpy(np.array(kept if len(members) == 1 else kept[index]))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return Stored({"model.gguf": MemoryFile(path.read_bytes())}, values)


def _write(writer: Any, name: str, array: np.ndarray, scheme: str, architecture: str) -> np.ndarray:
    """Add one tensor; its values as stored."""
    from gguf import GGMLQuantizationType as Type
    from gguf.quants import dequantize, quantize

    if array.ndim == 1 or scheme == "F32" or "ffn_gate_inp" in name:
        shift = 1.0 if architecture.startswith("gemma") and name.endswith("norm.weight") else 0.0
        writer.add_tensor(name, (array + shift).astype(np.float32))
        return array
    if scheme == "Q4_K":
        codes = q4_k(array)
        writer.add_tensor(name, codes, raw_dtype=Type.Q4_K)
        return q4_k_values(codes, array.shape)
    kind = Type[scheme]
    codes = quantize(array, kind)
    writer.add_tensor(name, codes, raw_dtype=kind)
    return np.asarray(dequantize(codes, kind), np.float32).reshape(array.shape)


def _stacked(weights: Weights) -> dict[str, list[str]]:
    """Converter's name → the tensors it holds: experts are written as one."""
    import re

    groups: dict[str, list[str]] = {}
    for name in weights:
        merged = re.sub(r"\.experts\.\d+\.(w\d)\.", r".experts.\1.", name)
        groups.setdefault(merged, []).append(name)
    return groups


def _vocabulary(weights: Weights) -> int:
    return next(len(value) for name, value in weights.items() if names.is_embedding(name))


def _rotary(values: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's `permute`: half-split rotary rows to interleaved ones."""
    split = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(values.shape))


def _unrotary(values: np.ndarray, heads: int) -> np.ndarray:
    split = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(values.shape))
