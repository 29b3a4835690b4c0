"""PEFT adapters: drawn ones of every flavour, and those that PEFT itself trained and saved."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from benchmarks.zoo import models, names
from benchmarks.zoo.containers import Files, MemoryFile, reader_files
from benchmarks.zoo.language import Run
from benchmarks.zoo.models import Model, Weights

RANK = 4


def drawn_adapter(weights: Weights, seed: int, flavour: str) -> Files:
    """`plain`, `rslora` or `dora` factors for every linear module."""
    generator = torch.Generator().manual_seed(seed)
    tensors: Weights = {}
    scale = 2 * RANK / (RANK**0.5 if flavour == "rslora" else RANK)
    for name, value in weights.items():
        if not names.is_linear(name, value):
            continue
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        first = 0.05 * torch.randn(RANK, value.shape[1], generator=generator)
        second = 0.05 * torch.randn(value.shape[0], RANK, generator=generator)
        tensors[f"{stem}.lora_A.weight"], tensors[f"{stem}.lora_B.weight"] = first, second
        if flavour == "dora":
            noise = torch.randn(value.shape[0], generator=generator)
            norms = (value + scale * second @ first).norm(dim=1)
            tensors[f"{stem}.lora_magnitude_vector"] = norms * (1 + 0.01 * noise)
    config = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "use_rslora": flavour == "rslora",
        "use_dora": flavour == "dora",
    }
    files = reader_files(tensors)
    return {
        "adapter_model.safetensors": files["model.safetensors"],
        "adapter_config.json": MemoryFile(json.dumps(config).encode()),
    }


def trained_adapter(model: Model, scratch: Path) -> Files:
    """What PEFT saved after real training."""
    run = Run(seed=11, dialect=1, rate=1e-3, lora=4)
    models.tuned(model, scratch, run)
    folder = scratch / f"{model.spec.name}-{model.seed}-{run.key}" / "adapter"
    return {
        name: MemoryFile((folder / name).read_bytes())
        for name in ("adapter_model.safetensors", "adapter_config.json")
    }
