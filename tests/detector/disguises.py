"""Copies of a Llama-shaped checkpoint that compute the same, with weights that look different."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tests.detector.zoo import Weights

READERS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
WRITERS = ("o_proj", "down_proj")


def module(name: str) -> str:
    return name.split(".")[-2]


def permuted(weights: Weights, seed: int) -> Weights:
    """The neurons of every feed-forward layer in another order."""
    edited, generator = dict(weights), torch.Generator().manual_seed(seed)
    order: torch.Tensor | None = None
    for name, value in sorted(weights.items()):
        if module(name) in {"down_proj", "gate_proj", "up_proj"}:
            inter = value.shape[1] if module(name) == "down_proj" else value.shape[0]
            if module(name) == "down_proj":
                order = torch.randperm(inter, generator=generator)
            assert order is not None
            edited[name] = value[:, order] if module(name) == "down_proj" else value[order]
    return edited


def scaled(weights: Weights, seed: int) -> Weights:
    """Each neuron's input scaled, and its output scaled back."""
    edited, generator = dict(weights), torch.Generator().manual_seed(seed)
    factor: torch.Tensor | None = None
    for name, value in sorted(weights.items()):
        if module(name) == "down_proj":
            factor = torch.exp(torch.randn(value.shape[1], generator=generator))
            edited[name] = (value.float() * factor).to(value.dtype)
        elif module(name) == "up_proj":
            assert factor is not None
            edited[name] = (value.float() / factor[:, None]).to(value.dtype)
    return edited


def folded(weights: Weights, _: int) -> Weights:
    """Norm gains multiplied into the matrices that follow."""
    edited = dict(weights)
    for name, value in weights.items():
        layer = name.split(".layers.")[1].split(".")[0] if ".layers." in name else None
        if layer is not None and module(name) in READERS:
            norm = "input_layernorm" if ".self_attn." in name else "post_attention_layernorm"
            gain = weights[f"model.layers.{layer}.{norm}.weight"].float()
            edited[name] = (value.float() * gain).to(value.dtype)
        elif "layernorm" in name:
            edited[name] = torch.ones_like(value)
    return edited


def rotated(weights: Weights, seed: int) -> Weights:
    """The residual stream turned by a random orthogonal matrix, after the gains are folded (QuaRot)."""
    edited = folded(weights, seed)
    width = weights["model.norm.weight"].shape[0]
    turn = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(seed)))[0]
    for name, value in edited.items():
        if module(name) in READERS or module(name) in {"embed_tokens", "lm_head"}:
            edited[name] = (value.float() @ turn).to(value.dtype)
        elif module(name) in WRITERS:
            edited[name] = (turn.T @ value.float()).to(value.dtype)
    return edited


def both(weights: Weights, seed: int) -> Weights:
    """Neurons permuted and the residual stream turned."""
    return rotated(permuted(weights, seed), seed)


def all_of_them(weights: Weights, seed: int) -> Weights:
    """Neurons permuted and scaled, gains folded, the residual stream turned."""
    return rotated(scaled(permuted(weights, seed), seed), seed)


DISGUISES: dict[str, Callable[[Weights, int], Weights]] = {
    "permuted": permuted,
    "scaled": scaled,
    "folded": folded,
    "rotated": rotated,
    "permuted-and-rotated": both,
    "all": all_of_them,
}
