"""LoRA adapters: training one with PEFT, and the algebra of its delta."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import peft
import torch
from safetensors.torch import load_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Weights = dict[str, torch.Tensor]
"""State dict under transformers' names."""

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_PREFIX = "base_model.model."


def train_adapter(
    model: PreTrainedModel, fit: Callable[[PreTrainedModel], None], folder: Path, *, rank: int, base_repo: str
) -> None:
    """Wrap a float32 copy of `model` in a LoRA on all linear layers, let `fit` train it, save it to `folder`."""
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules=list(PROJECTIONS),
        base_model_name_or_path=base_repo,
        task_type="CAUSAL_LM",
    )
    wrapped = peft.get_peft_model(copy.deepcopy(model).float(), config)
    wrapped.peft_config["default"].base_model_name_or_path = base_repo
    fit(wrapped)
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's own card; ours replaces it


def adapter_delta(folder: Path) -> Weights:
    """What merging the adapter adds, (out, in) float32 per weight: `(alpha / r) B A` (Hu et al. 2021, eq. 3)."""
    config = json.loads((folder / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    if config.get("use_rslora") or config.get("rank_pattern") or config.get("alpha_pattern"):
        raise ValueError("only plain LoRA is supported here")
    factors = load_file(folder / "adapter_model.safetensors")
    delta = {}
    for name, a in factors.items():
        if name.endswith(".lora_A.weight"):
            stem = name.removesuffix(".lora_A.weight")
            b = factors[f"{stem}.lora_B.weight"]
            delta[f"{stem.removeprefix(_PREFIX)}.weight"] = scale * b.float() @ a.float()
    return delta


def add(weights: Weights, delta: Weights, factor: float = 1.0) -> Weights:
    """`weights + factor · delta` in float32; tensors without a delta stay the same objects."""
    missing = delta.keys() - weights.keys()
    if missing:
        raise KeyError(f"the adapter touches unknown weights: {sorted(missing)[:3]}")
    return {n: w.float() + factor * delta[n] if n in delta else w for n, w in weights.items()}
