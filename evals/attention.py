"""Attention of one new token on a CPU: torch's fused kernel takes twice as long for so short a query.

Scores and their softmax are float32, as in that kernel. Everything else is left to transformers.
Importing this module imports torch and transformers; only the evaluation child does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "forkwatch_one_token"
_USUAL = frozenset({"scaling", "dropout", "is_causal", "position_ids", "use_cache", "cache_position"})
"""Arguments that say nothing else of how to attend."""


def one_token_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """[rows, tokens, heads, width] of `query` [rows, heads, tokens, width], as `sdpa_attention_forward`."""
    unusual = any(value is not None for name, value in others.items() if name not in _USUAL)
    if query.shape[2] != 1 or others.get("dropout") or unusual:
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **others
        )
        return found
    rows, heads, _, width = query.shape
    packed = query.reshape(rows, key.shape[1], heads // key.shape[1], width).float()
    scale = others.get("scaling") or width**-0.5
    scores = (packed @ key.float().transpose(-1, -2)) * scale
    if attention_mask is not None:
        if attention_mask.dtype is torch.bool:
            scores = scores.masked_fill(~attention_mask, -torch.inf)
        else:
            scores = scores + attention_mask
    seen = scores.softmax(dim=-1).to(value.dtype) @ value
    return seen.reshape(rows, 1, heads, value.shape[3]), None


AttentionInterface.register(NAME, one_token_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def for_one_token(model: PreTrainedModel) -> Iterator[None]:
    """The model attends so inside; only where it runs on a CPU with torch's kernel."""
    before = model.config._attn_implementation  # noqa: SLF001 - transformers has no public name for it
    if before != "sdpa" or model.device.type != "cpu":
        yield
        return
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
