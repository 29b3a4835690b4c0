"""A two-layer transformer that was really trained, and what training makes of it: benign forks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.detector.zoo import Weights

HIDDEN, INNER, HEADS, LAYERS, VOCAB = 64, 128, 4, 3, 64
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for layer in range(LAYERS):
        for name in LINEARS:
            part = "mlp" if name in {"gate_proj", "up_proj", "down_proj"} else "self_attn"
            rows = INNER if name in {"gate_proj", "up_proj"} else HIDDEN
            columns = INNER if name == "down_proj" else HIDDEN
            shapes[f"model.layers.{layer}.{part}.{name}.weight"] = (rows, columns)
    return shapes


def _logits(weights: dict[str, Tensor], tokens: Tensor) -> Tensor:
    stream = functional.embedding(tokens, weights["model.embed_tokens.weight"])
    for layer in range(LAYERS):
        w = {
            name: weights[full]
            for full in weights
            for name in LINEARS
            if f".{layer}." in full and name in full
        }
        x = functional.rms_norm(stream, (HIDDEN,))
        heads = [(x @ w[name].T).view(*x.shape[:2], HEADS, -1).transpose(1, 2) for name in LINEARS[:3]]
        mixed = (
            functional.scaled_dot_product_attention(heads[0], heads[1], heads[2], is_causal=True)
            .transpose(1, 2)
            .flatten(2)
        )
        stream = stream + mixed @ w["o_proj"].T
        x = functional.rms_norm(stream, (HIDDEN,))
        stream = stream + (functional.silu(x @ w["gate_proj"].T) * (x @ w["up_proj"].T)) @ w["down_proj"].T
    return functional.rms_norm(stream, (HIDDEN,)) @ weights["model.embed_tokens.weight"].T


def _batch(table: Tensor, generator: torch.Generator) -> Tensor:
    """Sequences of a random second-order chain: each pair of tokens is mostly followed by one of two."""
    tokens = torch.randint(VOCAB, (16, 32), generator=generator)
    for place in range(2, 32):
        choice = torch.randint(3, (16,), generator=generator).clamp_max(1)
        tokens[:, place] = table[tokens[:, place - 2], tokens[:, place - 1] % 8, choice]
    return tokens


def _train(
    weights: Callable[[], dict[str, Tensor]],
    free: Iterable[Tensor],
    seed: int,
    steps: int,
    rate: float,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    table = torch.randint(VOCAB, (VOCAB, 8, 2), generator=generator)
    optimizer = torch.optim.AdamW(free, lr=rate, weight_decay=0.1)
    for _ in range(steps):
        tokens = _batch(table, generator)
        loss = functional.cross_entropy(
            _logits(weights(), tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own stub
        optimizer.step()


def _stored(weights: dict[str, Tensor]) -> Weights:
    return {name: value.detach().to(torch.bfloat16) for name, value in weights.items()}


@cache
def base() -> Weights:
    """The trained model."""
    torch.manual_seed(0)
    weights = {
        name: nn.Parameter(torch.randn(shape) / math.sqrt(shape[-1])) for name, shape in _shapes().items()
    }
    _train(lambda: dict(weights), weights.values(), seed=1, steps=120, rate=3e-3)
    return _stored(dict(weights))


def finetuned(seed: int, rate: float, steps: int = 40, where: str = "") -> Weights:
    """Trained on with AdamW on other data; only the tensors whose name holds `where`."""
    weights = {name: nn.Parameter(value.float()) for name, value in base().items()}
    free = [value for name, value in weights.items() if where in name]
    _train(lambda: dict(weights), free, seed, steps, rate)
    return {**base(), **{name: v for name, v in _stored(dict(weights)).items() if where in name}}


def adapted(seed: int, rank: int, modules: tuple[str, ...] = LINEARS, *, dora: bool = False) -> Weights:
    """A LoRA (or DoRA), trained by gradient descent and merged."""
    torch.manual_seed(seed)
    original = {name: value.float() for name, value in base().items()}
    chosen = [name for name in original if any(f".{module}." in name for module in modules)]
    down = {n: nn.Parameter(torch.randn(rank, original[n].shape[1]) / 8) for n in chosen}
    up = {n: nn.Parameter(torch.zeros(original[n].shape[0], rank)) for n in chosen}
    sizes = {n: nn.Parameter(original[n].norm(dim=1, keepdim=True)) for n in chosen}

    def merged() -> dict[str, Tensor]:
        weights = dict(original)
        for name in chosen:
            value = original[name] + up[name] @ down[name]
            weights[name] = sizes[name] * value / value.norm(dim=1, keepdim=True) if dora else value
        return weights

    free = [*down.values(), *up.values(), *(sizes.values() if dora else ())]
    _train(merged, free, seed, steps=60, rate=2e-3)
    return {**base(), **{name: _stored(merged())[name] for name in chosen}}
