"""Weights in the CPU's order, on real layers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import evals.engine
import evals.packed
from evals.engine import TransformersGenerator
from evals.packed import packed
from tests.evals.models import make_model, make_tokenizer

CAN = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
PROMPTS = ["red", "what colour is red please", "green green", "blue please " * 3, "red please " * 9]


def _ordered(model: torch.nn.Module) -> int:
    return sum("forward" in vars(layer) for layer in model.modules())


@pytest.mark.parametrize("rows", [1, 7, 64, 300])
@pytest.mark.parametrize("shape", [(576, 192), (64, 96), (33, 17)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_products_are_the_same_bits(rows: int, shape: tuple[int, int], bias: bool) -> None:
    """A layer gives inside what it gives outside, and is as it was afterwards."""
    torch.manual_seed(rows)
    layer = torch.nn.Linear(*shape, bias=bias, dtype=torch.bfloat16)
    given = torch.randn(2, rows, shape[0], dtype=torch.bfloat16)
    with torch.inference_mode():
        outside = layer(given)
        with packed(layer):
            assert _ordered(layer) == CAN
            assert torch.equal(layer(given), outside)
        assert _ordered(layer) == 0
        assert torch.equal(layer(given), outside)


@pytest.mark.parametrize("tied", [True, False])
def test_answers_are_the_same_and_follow_the_weights(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tokens as without; after a change of the weights in place, those of the new weights."""
    model = make_model(tied=tied)
    generator = TransformersGenerator(model, make_tokenizer(), batch=2)

    def answers() -> Iterator[list[str]]:
        for steps in (1, 10**6):  # packed, and not
            monkeypatch.setattr(evals.engine, "PACKED_FROM", steps)
            yield generator.answer(PROMPTS, max_new_tokens=12, temperature=0.0, seed=0)

    before, without = answers()
    assert before == without
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.neg_()
    after, without = answers()
    assert after == without
    assert after != before


def test_only_plain_layers_are_ordered_and_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """float32, subclasses and what exceeds the limit stay as they are; an error leaves nothing behind."""

    class Doubled(torch.nn.Linear):
        """A layer of another kind."""

    model = torch.nn.Sequential(
        torch.nn.Linear(8, 8, dtype=torch.float32),
        Doubled(8, 8, dtype=torch.bfloat16),
        torch.nn.Linear(8, 8, dtype=torch.bfloat16),
        torch.nn.Linear(8, 8, dtype=torch.bfloat16),
    )
    with packed(model):
        assert [_ordered(layer) for layer in model] == [0, 0, CAN, CAN]
    monkeypatch.setattr(evals.packed, "COPIES", 8 * 8 * 2)

    def fail() -> None:
        with packed(model):
            assert _ordered(model) == CAN
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert _ordered(model) == 0
