"""Activation-aware quantisation of a small model as AutoAWQ 0.2 does it: search of scales, folding, clipping.

Written from the paper (arXiv 2306.00978) and the library's documentation of its steps; no reader is used.
"""

from __future__ import annotations

import torch

from tests.detector.packing import Tensors, awq
from tests.detector.zoo import Weights

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TOKENS = 64
GRID = 10


def awq_quantised(weights: Weights, seed: int, group: int = 32, *, clip: bool = True) -> Tensors:
    """The stored tensors of the quantised model: packed linear layers, everything else in fp16."""
    generator = torch.Generator().manual_seed(seed)
    folded = {name: value.float().clone() for name, value in weights.items()}
    layers = sorted({int(name.split(".")[2]) for name in weights if ".layers." in name})
    for layer in layers:
        stem = f"model.layers.{layer}"
        attention, mlp = f"{stem}.self_attn", f"{stem}.mlp"
        _after_norm(
            folded, f"{stem}.input_layernorm", [f"{attention}.{m}_proj" for m in "qkv"], group, generator
        )
        _after_linear(folded, f"{attention}.v_proj", f"{attention}.o_proj", group, generator)
        behind = [f"{mlp}.gate_proj", f"{mlp}.up_proj"]
        _after_norm(folded, f"{stem}.post_attention_layernorm", behind, group, generator)
        _after_linear(folded, f"{mlp}.up_proj", f"{mlp}.down_proj", group, generator)
    stored: Tensors = {}
    for name, value in folded.items():
        if not any(f"{module}.weight" in name for module in LINEARS):
            stored[name] = value.half()
            continue
        rounded = value.half().float()
        if clip and not any(module in name for module in ("q_proj", "k_proj")):
            rounded = _clipped(rounded, group, generator)
        stored |= awq(name.removesuffix(".weight"), *_codes(rounded, group))
    return stored


def _activations(width: int, generator: torch.Generator) -> torch.Tensor:
    """Tokens of which few channels are large, as in real models."""
    size = torch.exp(1.0 * torch.randn(width, generator=generator))
    return size * torch.randn(TOKENS, width, generator=generator)


def _after_norm(
    folded: Weights, norm: str, linears: list[str], group: int, generator: torch.Generator
) -> None:
    scales = _search([folded[f"{name}.weight"] for name in linears], group, generator)
    folded[f"{norm}.weight"] = folded[f"{norm}.weight"] / scales
    for name in linears:
        folded[f"{name}.weight"] = folded[f"{name}.weight"] * scales


def _after_linear(folded: Weights, first: str, second: str, group: int, generator: torch.Generator) -> None:
    """Only where the heights allow it: grouped-query attention leaves v_proj alone."""
    if folded[f"{first}.weight"].shape[0] != folded[f"{second}.weight"].shape[1]:
        return
    scales = _search([folded[f"{second}.weight"]], group, generator)
    folded[f"{first}.weight"] = folded[f"{first}.weight"] / scales[:, None]
    folded[f"{second}.weight"] = folded[f"{second}.weight"] * scales


def _search(weights: list[torch.Tensor], group: int, generator: torch.Generator) -> torch.Tensor:
    """The exponent of the activations' size that leaves the least error of the outputs."""
    inputs = _activations(weights[0].shape[1], generator)
    size = inputs.abs().mean(0)
    best, least = torch.ones_like(size), float("inf")
    for step in range(GRID):
        scales = size.pow(step / GRID).clamp_min(1e-4)
        scales = scales / (scales.max() * scales.min()).sqrt()
        error = sum(
            float((inputs @ (_rounded(value * scales, group) / scales - value).T).square().mean())
            for value in weights
        )
        if error < least:
            best, least = scales, error
    return best


def _rounded(value: torch.Tensor, group: int) -> torch.Tensor:
    codes, zeros, scales = _codes(value, group)
    spread = [part.float().repeat_interleave(group, 0) for part in (zeros, scales)]
    return ((codes - spread[0]) * spread[1]).T


def _codes(value: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(in, out) codes, (groups, out) zeros and scales, of the span from the least to the largest value."""
    groups = value.T.reshape(-1, group, value.shape[0])
    low, high = groups.amin(1), groups.amax(1)
    scales = ((high - low).clamp_min(1e-5) / 15).half()
    zeros = (-torch.round(low / scales.float())).clamp(0, 15)
    codes = (torch.round(groups / scales.float()[:, None]) + zeros[:, None]).clamp(0, 15)
    return codes.reshape(value.T.shape).long(), zeros.long(), scales


def _clipped(value: torch.Tensor, group: int, generator: torch.Generator) -> torch.Tensor:
    """Each group's largest weights cut to the bound, of ten, that leaves the least error of the outputs."""
    rows, width = value.shape
    inputs = _activations(width, generator).reshape(TOKENS, 1, -1, group)
    grouped = value.reshape(1, rows, -1, group)
    whole = (inputs * grouped).sum(-1)
    top = grouped.abs().amax(-1, keepdim=True)
    best, least = top, torch.full_like(top, float("inf"))
    for step in range(GRID):
        bound = top * (1 - 0.5 * step / GRID)
        cut = grouped.clamp(-bound, bound)
        rounded = _rounded(cut.reshape(rows, width), group).reshape(grouped.shape)
        error = ((inputs * rounded).sum(-1) - whole).square().mean(0).unsqueeze(0).unsqueeze(-1)
        best, least = torch.where(error < least, bound, best), torch.minimum(error, least)
    return grouped.clamp(-best, best).reshape(rows, width)
