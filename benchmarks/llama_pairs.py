"""Llama-shaped bf16 checkpoints with random weights, and forks of them, for benchmarks.

Weights are Gaussian with a power-law part of rank 64, norm gains are drawn around one: no trained model, but
the spectra of the *changes* are what the benchmark is about. Nothing of it depends on the tests' zoo.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
WRITERS = ("o_proj", "down_proj", "embed_tokens")

Edit = Callable[[str, torch.Tensor, torch.Generator], torch.Tensor]
"""Name, float32 values, randomness of this tensor → edited float32 values."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a model."""

    hidden: int
    inter: int
    layers: int
    vocab: int
    kv: int

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor."""
        yield "model.embed_tokens.weight", (self.vocab, self.hidden)
        for layer in range(self.layers):
            stem = f"model.layers.{layer}"
            for module, shape in {
                "q_proj": (self.hidden, self.hidden),
                "k_proj": (self.kv, self.hidden),
                "v_proj": (self.kv, self.hidden),
                "o_proj": (self.hidden, self.hidden),
            }.items():
                yield f"{stem}.self_attn.{module}.weight", shape
            yield f"{stem}.mlp.gate_proj.weight", (self.inter, self.hidden)
            yield f"{stem}.mlp.up_proj.weight", (self.inter, self.hidden)
            yield f"{stem}.mlp.down_proj.weight", (self.hidden, self.inter)
            yield f"{stem}.input_layernorm.weight", (self.hidden,)
            yield f"{stem}.post_attention_layernorm.weight", (self.hidden,)
        yield "model.norm.weight", (self.hidden,)
        yield "lm_head.weight", (self.vocab, self.hidden)


M250 = Shape(hidden=1024, inter=2816, layers=8, vocab=16000, kv=1024)
"""About 240 MB in bf16."""
G1 = Shape(hidden=4096, inter=11008, layers=2, vocab=16000, kv=4096)
"""About 1.07 GB in bf16."""
G3 = Shape(hidden=4096, inter=11008, layers=6, vocab=16000, kv=4096)
"""About 2.7 GB in bf16."""


def write_model(folder: Path, shape: Shape, seed: int, edit: Edit | None = None, shards: int = 3) -> Path:
    """Write a checkpoint whose tensors are drawn one by one from the seed; `edit` is applied in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for number, (name, size) in enumerate(shape.tensors()):
        values = _base(size, seed * 1000 + number).to(torch.bfloat16)
        if edit is not None:
            generator = torch.Generator().manual_seed(1_000_003 + number)
            edited = edit(name, values.float(), generator)
            values = edited.to(torch.bfloat16)
        tensors[name] = values.contiguous()
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        path = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = names[shard * len(names) // shards : (shard + 1) * len(names) // shards]
        save_file({name: tensors[name] for name in part}, folder / path, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, path)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(_config(shape)))
    return folder


def lora(rank: int = 16, size: float = 0.01) -> Edit:
    """A merged adapter of rank `rank` on every linear layer, ‖Δ‖ = size·‖W‖."""

    def edit(name: str, values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if not any(module in name for module in LINEAR):
            return values
        left = torch.randn(values.shape[0], rank, generator=generator)
        right = torch.randn(rank, values.shape[1], generator=generator)
        change = left @ right
        return torch.add(values, change * (size * values.norm() / change.norm()))

    return edit


def dense(size: float = 0.01) -> Edit:
    """A Gaussian change of every matrix, ‖Δ‖ = size·‖W‖."""

    def edit(_: str, values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if values.dim() < 2:
            return values
        change = torch.randn(values.shape, generator=generator)
        return torch.add(values, change * (size * values.norm() / change.norm()))

    return edit


def directional(hidden: int) -> Edit:
    """One random direction projected out of everything that writes the residual stream."""
    direction = torch.randn(hidden, generator=torch.Generator().manual_seed(77))
    direction /= direction.norm()

    def edit(name: str, values: torch.Tensor, _: torch.Generator) -> torch.Tensor:
        if not any(module in name for module in WRITERS):
            return values
        if "embed_tokens" in name:
            return values - torch.outer(values @ direction, direction)
        return values - torch.outer(direction, direction @ values)

    return edit


def _base(size: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if len(size) == 1:
        return 1 + 0.1 * torch.randn(size, generator=generator)
    rows, columns = size
    values = torch.randn(size, generator=generator).mul_(0.02)
    powers = torch.arange(1, 65, dtype=torch.float32).pow(-0.8)
    left = torch.randn(rows, 64, generator=generator) * powers
    right = torch.randn(64, columns, generator=generator)
    return values.addmm_(left, right, alpha=0.005)


def _config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inter,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.hidden // 128,
        "num_key_value_heads": shape.kv // 128,
        "vocab_size": shape.vocab,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
