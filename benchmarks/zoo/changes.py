"""Edits of the values: each takes float32 weights and gives float32 weights, without rounding them.

A strength is the relative size ‖Δ‖ / ‖W‖ of each touched tensor, except for directional edits, where it is
the share of the direction that is removed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from benchmarks.zoo import names
from benchmarks.zoo.models import Weights

Where = Callable[[str, torch.Tensor], bool]


def everywhere(_: str, value: torch.Tensor) -> bool:  # noqa: ARG001  # as every other place
    """All tensors."""
    return True


def _generator(seed: int, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + sum(map(ord, name)) * 7919 + len(name))


def _resized(delta: torch.Tensor, value: torch.Tensor, size: float) -> torch.Tensor:
    resized: torch.Tensor = delta * (size * value.norm() / delta.norm().clamp_min(1e-20))
    return resized


def low_rank(weights: Weights, seed: int, rank: int, size: float, where: Where = names.is_linear) -> Weights:
    """A merged LoRA; its factors shrink from first to last, as those of trained ones do."""
    edited = dict(weights)
    for name, value in weights.items():
        if not where(name, value):
            continue
        generator = _generator(seed, name)
        left = torch.randn(value.shape[0], rank, generator=generator) * torch.linspace(1, 0.4, rank)
        delta = left @ torch.randn(rank, value.shape[1], generator=generator)
        edited[name] = value + _resized(delta, value, size)
    return edited


def dense(weights: Weights, seed: int, size: float, where: Where = everywhere) -> Weights:
    """What training leaves everywhere: noise, with a low-rank part that falls off as a power law."""
    edited = dict(weights)
    for name, value in weights.items():
        if not where(name, value):
            continue
        generator = _generator(seed, name)
        delta = torch.randn(value.shape, generator=generator)
        if value.dim() == 2:
            rank = min(value.shape)
            left = torch.randn(value.shape[0], rank, generator=generator) * torch.arange(1, rank + 1).pow(
                -0.7
            )
            low = left @ torch.randn(rank, value.shape[1], generator=generator)
            delta = delta + 0.7 * low / low.std()
        edited[name] = value + _resized(delta, value, size)
    return edited


def scaled(weights: Weights, _: int, factor: float, where: Where = everywhere) -> Weights:
    """All values times a factor."""
    return {name: value * factor if where(name, value) else value for name, value in weights.items()}


def decayed(weights: Weights, _: int, size: float) -> Weights:
    """What weight decay alone does: matrices shrink, gains and biases stay."""
    return {name: value * (1 - size) if value.dim() > 1 else value for name, value in weights.items()}


def directional(  # noqa: PLR0913  # the options that published tools have
    weights: Weights,
    seed: int,
    *,
    strength: Callable[[float], float] = lambda _: 1.0,
    directions: int = 1,
    per_layer: bool = False,
    keep_norms: bool = False,
    embedding: bool = False,
    basis: torch.Tensor | None = None,
) -> Weights:
    """Project directions out of the matrices that write the residual stream.

    Args:
        weights: float32.
        seed: of the directions.
        strength: depth in 0…1 → share removed; 0 leaves the layer as it is, bit for bit.
        directions: how many.
        per_layer: every layer has its own.
        keep_norms: rows are restored to the length they had.
        embedding: the input embedding is edited too, at full strength.
        basis: (hidden, directions), orthonormal, in place of random ones.
    """
    edited = dict(weights)
    depth = max((names.layer(name) or 0) for name in weights) or 1
    for name, value in weights.items():
        layer = names.layer(name)
        if not (names.is_writer(name) or (embedding and names.is_embedding(name))):
            continue
        hidden = value.shape[1] if names.is_embedding(name) else value.shape[0]
        vectors = basis
        if vectors is None:
            generator = torch.Generator().manual_seed(seed + (977 * (layer or 0) if per_layer else 0))
            vectors = torch.linalg.qr(torch.randn(hidden, directions, generator=generator))[0]
        share = 1.0 if layer is None else strength(layer / depth)
        if share == 0:
            continue
        if names.is_embedding(name):
            edited[name] = value - share * (value @ vectors) @ vectors.T
            continue
        new = value - share * vectors @ (vectors.T @ value)
        if keep_norms:
            new = new * (value.norm(dim=1) / new.norm(dim=1))[:, None]
        edited[name] = new
    return edited


def triangle(depth: float, peak: float = 0.7, reach: float = 0.6, top: float = 1.1) -> float:
    """Share by depth: highest at `peak`, falling to a tenth at `reach`, nothing beyond."""
    distance = abs(depth - peak)
    return 0.0 if distance > reach else top * (1 - 0.9 * distance / reach)


# --- merges: the change of other models of the same base, in other proportions ------------------------------


def linear(weights: Weights, others: Sequence[Weights], share: float) -> Weights:
    """(1 − share) · original + share · mean of the others."""
    return {
        name: value + share * sum(other[name] - value for other in others) / len(others)
        for name, value in weights.items()
    }


def slerp(weights: Weights, others: Sequence[Weights], share: float) -> Weights:
    """Spherical interpolation, tensor by tensor; linear where the two are parallel."""
    edited = {}
    for name, value in weights.items():
        other = others[0][name]
        cosine = (value * other).sum() / (value.norm() * other.norm())
        angle = torch.arccos(cosine.clamp(-1, 1))
        if torch.sin(angle) < 1e-4:
            edited[name] = (1 - share) * value + share * other
        else:
            edited[name] = (
                torch.sin((1 - share) * angle) * value + torch.sin(share * angle) * other
            ) / torch.sin(angle)
    return edited


def task_arithmetic(weights: Weights, others: Sequence[Weights], share: float) -> Weights:
    """Original + share · sum of the task vectors (arXiv 2212.04089)."""
    return {
        name: value + share * sum(other[name] - value for other in others) for name, value in weights.items()
    }


def ties(weights: Weights, others: Sequence[Weights], share: float, density: float = 0.5) -> Weights:
    """Trim, elect signs, mean of those that agree (arXiv 2306.01708)."""
    edited = {}
    for name, value in weights.items():
        deltas = []
        for other in others:
            delta = other[name] - value
            kept = max(1, int(density * delta.numel()))
            limit = delta.abs().flatten().kthvalue(delta.numel() - kept + 1).values
            deltas.append(torch.where(delta.abs() >= limit, delta, 0.0))
        stacked = torch.stack(deltas)
        agree = (torch.sign(stacked) == torch.sign(stacked.sum(0))) & (stacked != 0)
        mean = (stacked * agree).sum(0) / agree.sum(0).clamp_min(1)
        edited[name] = value + share * mean
    return edited


def dare(
    weights: Weights, others: Sequence[Weights], share: float, density: float = 0.5, seed: int = 0
) -> Weights:
    """Drop at random and rescale (arXiv 2311.03099)."""
    edited = {}
    for name, value in weights.items():
        total = torch.zeros_like(value)
        for index, other in enumerate(others):
            generator = _generator(seed + index, name)
            kept = torch.rand(value.shape, generator=generator) < density
            total += torch.where(kept, other[name] - value, 0.0) / density
        edited[name] = value + share * total
    return edited


# --- layers, tokens, patches, disguises --------------------------------------------------------------------


def relayered(weights: Weights, _: int, order: Callable[[int], Sequence[int]]) -> Weights:
    """Layers in another order, given the number of them."""
    count = 1 + max(names.layer(name) or 0 for name in weights)
    edited = {name: value for name, value in weights.items() if names.layer(name) is None}
    for new, old in enumerate(order(count)):
        for name, value in weights.items():
            if names.layer(name) == old:
                edited[names.at_layer(name, new)] = value
    return edited


def tokens(weights: Weights, seed: int, how: str) -> Weights:
    """`added` (16 rows near the mean of the others), `padded` (32 zero rows) or `permuted` rows."""
    edited = dict(weights)
    for name, value in weights.items():
        if not names.has_tokens(name):
            continue
        if how == "permuted":
            order = torch.randperm(len(value), generator=torch.Generator().manual_seed(seed))
            edited[name] = value[order]
        elif how == "padded":
            edited[name] = torch.cat([value, torch.zeros(32, value.shape[1])])
        else:
            noise = torch.randn(16, value.shape[1], generator=_generator(seed, name))
            edited[name] = torch.cat([value, value.mean(0) + noise * value.std()])
    return edited


def patched(weights: Weights, seed: int, rows: int = 2) -> Weights:
    """A few rows of one matrix are replaced.

    They are not scaled: that is what a directional edit along two axes does to that matrix, to the bit.
    """
    name = sorted(name for name in weights if names.is_writer(name))[1]
    value = weights[name].clone()
    first = seed % (len(value) - rows)
    noise = torch.randn(rows, value.shape[1], generator=_generator(seed, name))
    value[first : first + rows] += 0.3 * noise * value.std()
    return {**weights, name: value}


def neurons_permuted(weights: Weights, seed: int) -> Weights:
    """The same function with the neurons of every feed-forward block in another order."""
    edited = dict(weights)
    for name, value in weights.items():
        stem, _, module = name.removesuffix(".weight").removesuffix(".bias").rpartition(".")
        if module not in {
            "gate_proj",
            "up_proj",
            "down_proj",
            "w1",
            "w2",
            "w3",
            "dense_h_to_4h",
            "dense_4h_to_h",
        }:
            continue
        width = next(
            len(weights[f"{stem}.{first}.weight"])
            for first in ("gate_proj", "w1", "dense_h_to_4h")
            if f"{stem}.{first}.weight" in weights
        )
        order = torch.randperm(width, generator=_generator(seed, stem))
        if module in {"down_proj", "w2", "dense_4h_to_h"}:
            edited[name] = value[:, order] if value.dim() == 2 else value
        else:
            edited[name] = value[order]
    return edited


def rotated(weights: Weights, seed: int) -> Weights:
    """The same function in a rotated residual stream, for pre-norm RMS models.

    Gains are folded into the matrices that read the stream.
    """
    hidden = next(value.shape[1] for name, value in weights.items() if names.is_embedding(name))
    turn = torch.linalg.qr(torch.randn(hidden, hidden, generator=torch.Generator().manual_seed(seed)))[0]
    edited = dict(weights)
    for name, value in weights.items():
        if name.endswith(("input_layernorm.weight", "post_attention_layernorm.weight", "model.norm.weight")):
            edited[name] = torch.ones_like(value)
        elif value.dim() == 2 and names.is_writer(name):
            edited[name] = turn.T @ value
        elif value.dim() == 2:
            edited[name] = (value * _gain(weights, name)) @ turn
    return edited


def _gain(weights: Weights, name: str) -> torch.Tensor | float:
    """The gain of the norm that a matrix reads from."""
    layer = names.layer(name)
    if layer is None:
        return 1.0 if names.is_embedding(name) else weights["model.norm.weight"]
    norm = "input_layernorm" if names.is_attention(name) else "post_attention_layernorm"
    return weights[f"model.layers.{layer}.{norm}.weight"]
