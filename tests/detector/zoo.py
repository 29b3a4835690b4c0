"""A family of small Llama-shaped checkpoints with known edits, for the tests of the weight forensics.

Weights are drawn, not trained: Gaussian plus a power-law low-rank part and random gains, stored in bf16.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

Weights = dict[str, torch.Tensor]
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
WRITERS = ("o_proj", "down_proj", "embed_tokens")


@dataclass(frozen=True)
class MemoryFile:
    """A file in memory, as a `ByteSource`."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= len(self.data), "read beyond the end"
        return self.data[offset : offset + length]


@dataclass(frozen=True)
class Shape:
    """Sizes of a model."""

    hidden: int = 128
    inter: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    vocab: int = 512

    def linears(self) -> dict[str, tuple[int, int]]:
        kv = self.hidden // self.heads * self.kv_heads
        return {
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.k_proj": (kv, self.hidden),
            "self_attn.v_proj": (kv, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_proj": (self.inter, self.hidden),
            "mlp.up_proj": (self.inter, self.hidden),
            "mlp.down_proj": (self.hidden, self.inter),
        }


SMALL = Shape()


def base(seed: int, shape: Shape = SMALL) -> Weights:
    """A model with tied embeddings."""
    generator = torch.Generator().manual_seed(seed)
    weights: Weights = {"model.embed_tokens.weight": _matrix(shape.vocab, shape.hidden, 0.04, generator)}
    for layer in range(shape.layers):
        for name, (rows, columns) in shape.linears().items():
            weights[f"model.layers.{layer}.{name}.weight"] = _matrix(rows, columns, 0.04, generator)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{norm}.weight"] = _gain(shape.hidden, generator)
    weights["model.norm.weight"] = _gain(shape.hidden, generator)
    return weights


def _matrix(rows: int, columns: int, std: float, generator: torch.Generator) -> torch.Tensor:
    rank = min(rows, columns) // 4
    power = torch.arange(1, rank + 1).pow(-0.7)
    low = (
        torch.randn(rows, rank, generator=generator) * power @ torch.randn(rank, columns, generator=generator)
    )
    dense = torch.randn(rows, columns, generator=generator)
    gain = torch.exp(0.2 * torch.randn(rows, 1, generator=generator))
    return (std * gain * (0.8 * dense + 0.3 * low)).to(torch.bfloat16)


def _gain(size: int, generator: torch.Generator) -> torch.Tensor:
    return (1 + 0.2 * torch.randn(size, generator=generator)).to(torch.bfloat16)


# --- edits: each takes bf16 weights and gives bf16 weights ------------------------------------------------


def is_linear(name: str) -> bool:
    return any(f".{module}." in name for module in LINEARS)


def is_writer(name: str) -> bool:
    return any(f"{module}." in name for module in WRITERS)


def lora(
    weights: Weights,
    seed: int,
    rank: int = 8,
    size: float = 0.01,
    where: Callable[[str], bool] = is_linear,
    sign: int = 1,
) -> Weights:
    """A merged LoRA whose change is `size` of each matrix in Frobenius norm, singular values unequal."""
    generator = torch.Generator().manual_seed(seed)
    edited = dict(weights)
    for name, value in weights.items():
        if where(name):
            w = value.float()
            decay = torch.linspace(1, 0.4, rank)
            left = torch.randn(w.shape[0], rank, generator=generator) * decay
            delta = left @ torch.randn(rank, w.shape[1], generator=generator)
            edited[name] = (w + sign * delta * size * w.norm() / delta.norm()).to(torch.bfloat16)
    return edited


def dense(
    weights: Weights, seed: int, size: float = 0.01, where: Callable[[str], bool] = lambda _: True
) -> Weights:
    """A dense change of relative norm `size`."""
    generator = torch.Generator().manual_seed(seed)
    edited = dict(weights)
    for name, value in weights.items():
        if where(name):
            noise = torch.randn(value.shape, generator=generator)
            w = value.float()
            edited[name] = (w + noise * size * w.norm() / noise.norm()).to(torch.bfloat16)
    return edited


def adamw_light(
    weights: Weights,
    seed: int,
    rate: float = 1e-5,
    steps: int = 20,
    where: Callable[[str], bool] = lambda _: True,
) -> Weights:
    """What a few AdamW steps do: signed steps of the learning rate, from a gradient of low rank."""
    generator = torch.Generator().manual_seed(seed)
    edited = dict(weights)
    for name, value in weights.items():
        if not where(name):
            continue
        w, total = value.float(), torch.zeros(value.shape)
        rows, columns = value.shape[0], value[0].numel()
        for _ in range(steps):
            gradient = torch.randn(rows, 4, generator=generator) @ torch.randn(
                4, columns, generator=generator
            )
            gradient = gradient + 0.3 * torch.randn(rows, columns, generator=generator)
            total = total + torch.tanh(gradient).reshape(value.shape)
        edited[name] = (w - rate * total - rate * 0.01 * steps * w).to(torch.bfloat16)
    return edited


def project(
    weights: Weights,
    seed: int,
    *,
    strength: Callable[[int], float] = lambda _: 1.0,
    where: Callable[[str], bool] = is_writer,
    per_layer: bool = False,
    directions: int = 1,
    keep_norms: bool = False,
) -> Weights:
    """Project random directions out of the matrices that write the residual stream."""
    edited = dict(weights)
    hidden = weights["model.norm.weight"].shape[0]
    for name, value in weights.items():
        layer = int(name.split(".")[2]) if ".layers." in name else 0
        generator = torch.Generator().manual_seed(seed + (1000 * layer if per_layer else 0))
        basis = torch.linalg.qr(torch.randn(hidden, directions, generator=generator))[0]
        alpha = strength(layer)
        if not where(name) or alpha == 0:
            continue
        w = value.float()
        if "embed_tokens" in name:
            edited[name] = (w - alpha * (w @ basis) @ basis.T).to(torch.bfloat16)
            continue
        new = w - alpha * basis @ (basis.T @ w)
        if keep_norms:
            new = new * (w.norm(dim=1) / new.norm(dim=1))[:, None]
        edited[name] = new.to(torch.bfloat16)
    return edited


# --- containers -------------------------------------------------------------------------------------------

_NAMES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}


def safetensors_bytes(weights: Mapping[str, torch.Tensor]) -> bytes:
    """A safetensors file, written by hand so that a test can break it."""
    header, data, position = {}, [], 0
    for name, value in weights.items():
        raw = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {
            "dtype": _NAMES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [position, position + len(raw)],
        }
        data.append(raw)
        position += len(raw)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(data)


def one_file(weights: Mapping[str, torch.Tensor]) -> dict[str, MemoryFile]:
    return {"model.safetensors": MemoryFile(safetensors_bytes(weights))}


def sharded(weights: Mapping[str, torch.Tensor], shards: int = 3) -> dict[str, MemoryFile]:
    names = sorted(weights)
    files: dict[str, MemoryFile] = {}
    weight_map = {}
    for index in range(shards):
        path = f"model-{index + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: weights[name] for name in names[index::shards]}
        weight_map.update(dict.fromkeys(part, path))
        files[path] = MemoryFile(safetensors_bytes(part))
    files["model.safetensors.index.json"] = MemoryFile(json.dumps({"weight_map": weight_map}).encode())
    return files


def cast(weights: Weights, dtype: torch.dtype) -> Weights:
    return {name: value.to(dtype) for name, value in weights.items()}


_GGUF_PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_GGUF_TOP = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}


def gguf_name(name: str) -> str:
    if name in _GGUF_TOP:
        return _GGUF_TOP[name]
    _, _, layer, part = name.split(".", 3)
    return f"blk.{layer}.{_GGUF_PARTS[part.removesuffix('.weight')]}.weight"


def rotate(values: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's `LlamaModel.permute`: half-split rotary rows to interleaved ones."""
    split = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(values.shape))


def gguf_file(weights: Weights, scheme: str, folder: Path, shape: Shape = SMALL) -> dict[str, MemoryFile]:
    """A GGUF file as llama.cpp's converter would write it, by gguf-py's writer."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    path = folder / f"{scheme}.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_block_count(shape.layers)
    writer.add_token_list([f"token{index}" for index in range(shape.vocab)])
    writer.add_chat_template("{{ messages }}")
    for name, value in weights.items():
        array = value.float().numpy()
        if "q_proj" in name or "k_proj" in name:
            array = rotate(array, shape.heads if "q_proj" in name else shape.kv_heads)
        kind = GGMLQuantizationType.F32 if array.ndim == 1 else GGMLQuantizationType[scheme]
        if kind is GGMLQuantizationType.F32:
            writer.add_tensor(gguf_name(name), array)
        elif kind is GGMLQuantizationType.F16:
            writer.add_tensor(gguf_name(name), array.astype(np.float16))
        else:
            codes = q6_k(array) if scheme == "Q6_K" else quantize(array, kind)
            writer.add_tensor(gguf_name(name), codes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {path.name: MemoryFile(path.read_bytes())}


def q6_k(values: np.ndarray) -> np.ndarray:
    """Round to nearest on Q6_K's grid and pack as ggml does; gguf-py only unpacks this type."""
    rows = values.shape[0]
    groups = values.reshape(-1, 16, 16)
    scale = np.abs(groups).max(2, keepdims=True) / 31
    shared = np.maximum(scale.max(1, keepdims=True) / 127, 1e-12).astype(np.float16).astype(np.float32)
    scales = np.maximum(np.round(scale / shared), 1)
    codes = (np.clip(np.round(groups / (scales * shared)), -32, 31) + 32).astype(np.uint8)
    codes = codes.reshape(-1, 2, 4, 32)
    low = codes & 15
    ql = np.concatenate([low[:, :, 0] | low[:, :, 2] << 4, low[:, :, 1] | low[:, :, 3] << 4], axis=2)
    qh = sum((codes[:, :, k] >> 4) << (2 * k) for k in range(4))
    parts = (
        ql.reshape(-1, 128),
        np.asarray(qh, np.uint8).reshape(-1, 64),
        scales.reshape(-1, 16).astype(np.int8).view(np.uint8),
        shared.reshape(-1, 1).astype(np.float16).view(np.uint8),
    )
    return np.concatenate(parts, axis=1).reshape(rows, -1)


def adapter_files(
    weights: Weights, seed: int, rank: int = 8, *, rslora: bool = False
) -> dict[str, MemoryFile]:
    """A PEFT LoRA adapter on every linear layer."""
    generator = torch.Generator().manual_seed(seed)
    tensors: Weights = {}
    for name, value in weights.items():
        if is_linear(name):
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{stem}.lora_A.weight"] = 0.05 * torch.randn(rank, value.shape[1], generator=generator)
            tensors[f"{stem}.lora_B.weight"] = 0.05 * torch.randn(value.shape[0], rank, generator=generator)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "use_rslora": rslora}
    return {
        "adapter_model.safetensors": MemoryFile(safetensors_bytes(tensors)),
        "adapter_config.json": MemoryFile(json.dumps(config).encode()),
    }
