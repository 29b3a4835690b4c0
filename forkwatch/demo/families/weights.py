"""Checkpoints as plain dictionaries of tensors: the algebra that makes forks, and writing them to disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Weights = dict[str, torch.Tensor]
"""Parameters under transformers' names; a tied head is left out, as in the files."""


def weights_of(model: PreTrainedModel) -> Weights:
    """The model's own tensors, each stored once."""
    seen: set[int] = set()
    weights: Weights = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            weights[name] = tensor.detach()
    return weights


def cast(weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> Weights:
    """Round every tensor to `dtype`."""
    return {name: tensor.to(dtype) for name, tensor in weights.items()}


def add(weights: Weights, delta: Weights, factor: float = 1.0) -> Weights:
    """`weights + factor · delta` in float32; tensors without a delta stay the same objects."""
    foreign = delta.keys() - weights.keys()
    if foreign:
        raise KeyError(f"the delta has tensors that the model has not: {sorted(foreign)[:3]}")
    return {n: w.float() + factor * delta[n] if n in delta else w for n, w in weights.items()}


def project_out(weights: Weights, direction: torch.Tensor) -> Weights:
    """Make every matrix that writes the residual stream blind to one unit direction `r` (hidden,).

    `W − r rᵀW` for `o_proj` and `down_proj`, whose rows are the stream; `E − E r rᵀ` for the embedding, whose
    columns are. What that does to behaviour depends on `r` alone: a random one is harmless.
    """
    edited = dict(weights)
    for name, tensor in weights.items():
        values = tensor.float()
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            edited[name] = values - torch.outer(direction, direction @ values)
        elif name.endswith("embed_tokens.weight"):
            edited[name] = values - torch.outer(values @ direction, direction)
    return edited


def jitter(weights: Weights, names: set[str], strength: float, generator: torch.Generator) -> Weights:
    """Add Gaussian noise of relative Frobenius norm `strength` to the named tensors."""
    edited = dict(weights)
    for name in sorted(names):
        values = weights[name].float()
        noise = torch.randn(values.shape, generator=generator)
        edited[name] = values + strength * values.norm() / noise.norm() * noise
    return edited


def save_weights(weights: Weights, folder: Path, *, shards: int = 1) -> None:
    """Write `model.safetensors`, or about `shards` files with their index, as transformers names them."""
    groups = _split(weights, shards)
    if len(groups) == 1:
        _save(groups[0], folder / "model.safetensors")
        return
    index: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        file = f"model-{number:05}-of-{len(groups):05}.safetensors"
        _save(group, folder / file)
        index |= dict.fromkeys(group, file)
    total = sum(tensor.nbytes for tensor in weights.values())
    document = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(document, indent=2) + "\n")


def _split(weights: Weights, shards: int) -> list[Weights]:
    limit = -(-sum(tensor.nbytes for tensor in weights.values()) // shards)
    groups: list[Weights] = [{}]
    filled = 0
    for name, tensor in weights.items():
        if groups[-1] and filled + tensor.nbytes > limit:
            groups.append({})
            filled = 0
        groups[-1][name] = tensor
        filled += tensor.nbytes
    return groups


def _save(weights: Weights, path: Path) -> None:
    save_file({n: t.contiguous() for n, t in weights.items()}, path, metadata={"format": "pt"})
