"""What a stored tensor is for, in the architectures of the zoo."""

from __future__ import annotations

import re

import torch

_LAYER = re.compile(r"\.layers\.(\d+)\.")
_WRITERS = (
    "o_proj.weight",
    "down_proj.weight",
    "w2.weight",
    "attention.dense.weight",
    "dense_4h_to_h.weight",
)
_EMBEDDINGS = ("embed_tokens.weight", "embed_in.weight")
_HEADS = ("lm_head.weight", "embed_out.weight")
_ATTENTION = (".self_attn.", ".attention.")
_QV = ("q_proj.weight", "v_proj.weight", "query_key_value.weight")


def layer(name: str) -> int | None:
    """Index of the layer it belongs to."""
    match = _LAYER.search(name)
    return int(match[1]) if match else None


def at_layer(name: str, index: int) -> str:
    """The same tensor of another layer."""
    return _LAYER.sub(f".layers.{index}.", name)


def is_linear(name: str, value: torch.Tensor) -> bool:
    """A matrix of a layer; not a router, which LoRA leaves alone."""
    return value.dim() == 2 and layer(name) is not None and not name.endswith(".gate.weight")


def is_writer(name: str) -> bool:
    """A matrix whose rows are dimensions of the residual stream."""
    return name.endswith(_WRITERS)


def is_embedding(name: str) -> bool:
    """The input embedding; its columns are dimensions of the residual stream."""
    return name.endswith(_EMBEDDINGS)


def has_tokens(name: str) -> bool:
    """One row a token."""
    return name.endswith((*_EMBEDDINGS, *_HEADS))


def is_attention(name: str) -> bool:
    """Part of an attention block."""
    return any(part in name for part in _ATTENTION)


def is_query_or_value(name: str) -> bool:
    """What LoRA recipes of old touched."""
    return name.endswith(_QV)
