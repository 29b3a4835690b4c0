"""Attention of one new token equals that of transformers, and is put away again."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from evals.attention import for_one_token, one_token_attention


class Layer(torch.nn.Module):
    """What attention is told of its layer."""

    num_key_value_groups = 3
    is_causal = True


@pytest.mark.parametrize("mask", ["none", "booleans", "numbers"])
@pytest.mark.parametrize("tokens", [1, 4])
def test_it_is_what_transformers_computes(mask: str, tokens: int) -> None:
    """Grouped heads, left padding; several tokens at once are left to transformers."""
    torch.manual_seed(0)
    query = torch.randn(2, 6, tokens, 8)
    key, value = torch.randn(2, 2, 2, 9, 8)[:, :, :, :7]
    seen = torch.ones(2, 1, tokens, 7, dtype=torch.bool)
    seen[1, :, :, :3] = False
    given = {"none": None, "booleans": seen, "numbers": torch.zeros(seen.shape).masked_fill(~seen, -1e30)}[
        mask
    ]
    ours, _ = one_token_attention(Layer(), query, key, value, given, scaling=0.3, dropout=0.0)
    theirs, _ = sdpa_attention_forward(Layer(), query, key, value, given, scaling=0.3, dropout=0.0)

    assert ours.shape == theirs.shape == (2, tokens, 6, 8)
    torch.testing.assert_close(ours, theirs)


def test_it_is_put_away_again() -> None:
    """A model that attends in another way keeps its own."""
    config = LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    config._attn_implementation = "sdpa"
    model = LlamaForCausalLM(config)
    with for_one_token(model):
        assert model.config._attn_implementation == "forkwatch_one_token"
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    with for_one_token(model):
        assert model.config._attn_implementation == "eager"
