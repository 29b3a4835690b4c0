"""LoRA adapters: training one with PEFT, and the delta it stands for."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import peft
from safetensors.torch import load_file

from forkwatch.demo.families.weights import Weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_PREFIX = "base_model.model."


def train_adapter(
    model: PreTrainedModel,
    fit: Callable[[PreTrainedModel], object],
    folder: Path,
    *,
    rank: int,
    base_repo: str,
) -> None:
    """Put a LoRA on all linear layers of a float32 copy of `model`, let `fit` train it, save it."""
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules=list(PROJECTIONS),
        task_type="CAUSAL_LM",
    )
    clone = copy.deepcopy(model).float()
    clone.name_or_path = base_repo  # PEFT writes it into adapter_config.json
    with warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5 by an old name
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        wrapped = peft.get_peft_model(clone, config)
    fit(wrapped)
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's own card; ours replaces it


def adapter_delta(folder: Path) -> Weights:
    """What merging the adapter adds, float32 by weight: `(alpha / r) B A` (Hu et al. 2021, section 4.1)."""
    config = json.loads((folder / "adapter_config.json").read_text())
    if config.get("use_rslora") or config.get("rank_pattern") or config.get("alpha_pattern"):
        raise ValueError("only plain LoRA is supported here")
    scale = config["lora_alpha"] / config["r"]
    factors = load_file(folder / "adapter_model.safetensors")
    delta: Weights = {}
    for name, a in factors.items():
        if name.endswith(".lora_A.weight"):
            stem = name.removesuffix(".lora_A.weight")
            b = factors[f"{stem}.lora_B.weight"]
            delta[f"{stem.removeprefix(_PREFIX)}.weight"] = scale * b.float() @ a.float()
    return delta
