"""The zoo's originals: tiny models of real `transformers` classes, drawn at random or trained here.

Drawn weights have what trained ones have and white noise lacks: power-law spectra, outlier dimensions, rows
of unequal length. Trained ones have seen a few hundred AdamW steps of the toy language in `language`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.zoo import language

Weights = dict[str, torch.Tensor]
VOCAB = 512
STEPS = 250
"""AdamW steps of a trained model."""
DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


@dataclass(frozen=True, slots=True)
class Spec:
    """Which model: everything but the seed."""

    architecture: str
    hidden: int
    layers: int
    trained: bool = False
    dtype: str = "BF16"
    """Of the stored original."""

    @property
    def name(self) -> str:
        """`llama-128-drawn`, and the dtype where it is not bf16."""
        how = "trained" if self.trained else "drawn"
        return f"{self.architecture}-{self.hidden}-{how}" + (
            "" if self.dtype == "BF16" else f"-{self.dtype.lower()}"
        )


SPECS = (
    Spec("llama", 128, 4),
    Spec("llama", 256, 3),
    Spec("llama", 64, 4, trained=True),
    Spec("qwen2", 256, 3),
    Spec("qwen2", 64, 4, trained=True),
    Spec("qwen3", 128, 4, dtype="F16"),
    Spec("gemma2", 128, 3),
    Spec("gemma2", 64, 4, trained=True),
    Spec("gemma3", 64, 8),
    Spec("mixtral", 64, 3),
    Spec("mixtral", 64, 3, trained=True),
    Spec("neox", 128, 4),
    Spec("neox", 64, 4, trained=True),
    Spec("llama", 512, 2),
    Spec("neox", 64, 3, dtype="F32"),
)


@dataclass(frozen=True)
class Model:
    """One original."""

    spec: Spec
    seed: int
    folder: Path
    """As transformers saved it; fine-tuning starts from here."""
    config: dict[str, Any]
    weights: Weights
    """Under the names and in the dtype they have on disk."""

    @property
    def tied(self) -> bool:
        """The head is the embedding, and is not stored."""
        return not any(name.startswith(("lm_head.", "embed_out.")) for name in self.weights)

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.spec.hidden

    @property
    def layers(self) -> int:
        """Number of layers."""
        return self.spec.layers


def load(spec: Spec, seed: int, scratch: Path) -> Model:
    """The model of this seed, from the scratch folder if it is there."""

    def make(folder: Path) -> None:
        if spec.trained:
            language.train(_fresh(spec, seed), folder, language.Run(seed=seed, steps=STEPS, rate=3e-3))
        else:
            _draw(spec, seed, folder)

    folder = _cached(scratch / f"{spec.name}-{seed}", make)
    return Model(
        spec, seed, folder, json.loads((folder / "config.json").read_text()), read(folder, spec.dtype)
    )


def tuned(model: Model, scratch: Path, run: language.Run) -> Weights:
    """The model after more training, merged where it was a LoRA; cached like the model itself."""

    def make(folder: Path) -> None:
        from transformers import AutoModelForCausalLM

        network = AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32)
        language.train(network, folder, run)

    folder = _cached(scratch / f"{model.spec.name}-{model.seed}-{run.key}", make)
    return {name: value.float() for name, value in read(folder, "F32").items()}


def sibling(spec: Spec, seed: int, scratch: Path) -> Model:
    """Same configuration and same data, from another initialisation."""
    return load(spec, seed + 50_000, scratch)


def read(folder: Path, dtype: str) -> Weights:
    """What `save_pretrained` wrote, cast."""
    from safetensors.torch import load_file

    found: Weights = {}
    for path in sorted(folder.glob("model*.safetensors")):
        found |= load_file(path)
    return {name: value.to(DTYPES[dtype]) for name, value in sorted(found.items())}


def _fresh(spec: Spec, seed: int) -> Any:
    """The untrained network, float32."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(configuration(spec), dtype=torch.float32)


def configuration(spec: Spec) -> Any:  # noqa: PLR0911  # one for each architecture
    """The configuration object of transformers."""
    import transformers as t

    heads = 4 if spec.hidden <= 128 else 8
    common: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": spec.hidden,
        "intermediate_size": 2 * spec.hidden + (0 if spec.hidden >= 256 else 32),
        "num_hidden_layers": spec.layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 128,
    }
    grouped = common | {"num_key_value_heads": heads // 2}
    own = grouped | {"head_dim": spec.hidden // heads}
    match spec.architecture:
        case "llama":
            return t.LlamaConfig(**grouped)
        case "qwen2":
            return t.Qwen2Config(**grouped, tie_word_embeddings=True)
        case "qwen3":
            return t.Qwen3Config(**own, tie_word_embeddings=True)
        case "gemma2":
            return t.Gemma2Config(**own)
        case "gemma3":
            return t.Gemma3TextConfig(**own)
        case "mixtral":
            return t.MixtralConfig(**grouped, num_local_experts=4, num_experts_per_tok=2)
        case _:
            return t.GPTNeoXConfig(**common)


# --- drawing ----------------------------------------------------------------------------------------------


def _draw(spec: Spec, seed: int, folder: Path) -> None:
    """Save the untrained network for its names and shapes, then put drawn weights in its place."""
    from safetensors.torch import save_file

    _fresh(spec, seed).save_pretrained(folder)
    generator = torch.Generator().manual_seed(seed)
    outliers = torch.randperm(spec.hidden, generator=generator)[: max(2, spec.hidden // 64)]
    drawn = {
        name: _tensor(name, value, spec, outliers, generator)
        for name, value in sorted(read(folder, "F32").items())
    }
    for path in folder.glob("model*"):
        path.unlink()
    save_file(drawn, folder / "model.safetensors", metadata={"format": "pt"})


def _tensor(
    name: str, like: torch.Tensor, spec: Spec, outliers: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    if like.dim() == 1:
        noise = torch.randn(like.shape, generator=generator)
        if name.endswith("bias"):
            return 0.05 * noise * (1 + noise.abs())
        return 0.2 * noise + (0.0 if spec.architecture.startswith("gemma") else 1.0)
    rows, columns = like.shape
    rank = min(rows, columns)
    power = torch.arange(1, rank + 1).pow(-0.8)
    left = torch.randn(rows, rank, generator=generator) * power
    low = left @ torch.randn(rank, columns, generator=generator)
    dense = torch.randn(rows, columns, generator=generator)
    value = 0.9 * dense + 0.5 * low / low.std()
    value = value * torch.exp(0.25 * torch.randn(rows, 1, generator=generator))
    if columns == spec.hidden:
        value[:, outliers] *= 3
    if rows == spec.hidden:
        value[outliers] *= 2
    return torch.mul(value, 0.6 / spec.hidden**0.5).contiguous()


def _cached(folder: Path, make: Callable[[Path], None]) -> Path:
    """Make the folder under another name and move it: whoever works beside us sees all of it or nothing."""
    if not folder.exists():
        _quiet()
        new = folder.with_name(f"{folder.name}.{os.getpid()}")
        make(new)
        try:
            new.rename(folder)
        except OSError:  # somebody else was faster, and made the same
            shutil.rmtree(new)
    return folder


def _quiet() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
