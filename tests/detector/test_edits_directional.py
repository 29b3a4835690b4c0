"""Directional edits as different tools make them, and in other architectures' matrices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from detector.diff import diff_weights
from detector.formats import open_weights
from detector.interface import Certainty, Edit, EditKind
from tests.detector import zoo
from tests.detector.zoo import Weights, one_file

HIDDEN = zoo.SMALL.hidden
Matrix = torch.Tensor


def _directions(count: int) -> Matrix:
    drawn = torch.randn(HIDDEN, count, generator=torch.Generator().manual_seed(5))
    basis: Matrix = torch.linalg.qr(drawn)[0]
    return basis


def _lengths(matrix: Matrix) -> Matrix:
    lengths: Matrix = matrix.norm(dim=1, keepdim=True)
    return lengths


def _unit_rows(matrix: Matrix) -> Matrix:
    """Removed from rows of unit length, which then get their lengths back."""
    unit, r = matrix / _lengths(matrix), _directions(1)
    return _lengths(matrix) * (unit - 0.9 * r @ (r.T @ unit))


def _unit_rows_kept(matrix: Matrix) -> Matrix:
    edited = _unit_rows(matrix)
    return edited * _lengths(matrix) / _lengths(edited)


def _ridge(matrix: Matrix) -> Matrix:
    """Several unequal directions, projected with a ridge."""
    a = _directions(3) * torch.tensor([1.0, 0.8, 0.6])
    kept: Matrix = a @ torch.linalg.solve(a.T @ a + 0.3 * torch.eye(3), a.T @ matrix)
    return matrix - 0.9 * kept


def _reflected(matrix: Matrix) -> Matrix:
    r = _directions(1)
    return matrix - 2 * r @ (r.T @ matrix)


VARIANTS: dict[str, tuple[Callable[[Matrix], Matrix], int]] = {
    "unit-rows": (_unit_rows, 1),
    "unit-rows-kept": (_unit_rows_kept, 1),
    "ridge": (_ridge, 3),
    "reflected": (_reflected, 1),
}


def edited(change: Callable[[Matrix], Matrix]) -> Weights:
    """Attention and feed-forward outputs changed, the embedding not."""
    return {
        name: change(value.float()).to(torch.bfloat16)
        if zoo.is_writer(name) and "embed" not in name
        else value
        for name, value in zoo.base(1).items()
    }


def edits(original: Weights, fork: Weights) -> tuple[Edit, ...]:
    return diff_weights(open_weights(one_file(original)), open_weights(one_file(fork))).edits


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_proved(name: str) -> None:
    """Every formula is reproduced value by value, with its number of directions."""
    change, rank = VARIANTS[name]
    (edit,) = edits(zoo.base(1), edited(change))
    assert (edit.kind, edit.certainty) == (EditKind.DIRECTIONAL_EDIT, Certainty.PROVED)
    assert edit.detail.rank == rank


NEOX = {
    "model.layers": "gpt_neox.layers",
    "self_attn.o_proj": "attention.dense",
    "mlp.down_proj": "mlp.dense_4h_to_h",
    "mlp.up_proj": "mlp.dense_h_to_4h",
    "model.embed_tokens": "gpt_neox.embed_in",
}
GPT2 = {
    "model.layers": "transformer.h",
    "self_attn.o_proj": "attn.c_proj",
    "mlp.down_proj": "mlp.c_proj",
    "mlp.up_proj": "mlp.c_fc",
    "model.embed_tokens": "transformer.wte",
}


def renamed(weights: Weights, names: dict[str, str]) -> Weights:
    """Other architectures' names; GPT-2 stores the feed-forward and output matrices input first."""
    found: Weights = {}
    for name, value in weights.items():
        if "gate_proj" in name:
            continue
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)  # noqa: PLW2901  # one name, step by step
        found[name] = value.T.contiguous() if ".c_" in name else value
    return found


@pytest.mark.parametrize(
    ("names", "modules"),
    [
        pytest.param(NEOX, ("dense", "dense_4h_to_h", "embed_in"), id="neox"),
        pytest.param(GPT2, ("c_proj", "wte"), id="gpt2"),
    ],
)
def test_other_architectures(names: dict[str, str], modules: tuple[str, ...]) -> None:
    """What writes the residual stream has other names, and in GPT-2 lies on its side."""
    original = zoo.base(1)
    (edit,) = edits(renamed(original, names), renamed(zoo.project(original, 7), names))
    assert (edit.kind, edit.certainty) == (EditKind.DIRECTIONAL_EDIT, Certainty.PROVED)
    assert edit.detail.modules == modules


@pytest.mark.parametrize("turned", [False, True])
def test_stacked_experts(turned: bool) -> None:  # a parametrised orientation
    """Every expert of a stack has the direction removed, whichever way round the stack is stored."""
    generator, r = torch.Generator().manual_seed(3), _directions(1)[:, 0]
    original, fork = {}, {}
    for name, value in zoo.base(1).items():
        if ".mlp." not in name:
            original[name] = fork[name] = value
    for layer in range(3):
        stack = (0.04 * torch.randn(4, HIDDEN, 96, generator=generator)).bfloat16()
        removed = stack.float() - torch.einsum("o,p,epi->eoi", r, r, stack.float())
        name = f"model.layers.{layer}.mlp.experts.down_proj"
        sides = stack, removed.bfloat16()
        original[name], fork[name] = ((s.transpose(1, 2).contiguous() if turned else s) for s in sides)
    (edit,) = edits(original, fork)
    assert (edit.kind, edit.certainty) == (EditKind.DIRECTIONAL_EDIT, Certainty.PROVED)
    assert edit.detail.modules == ("down_proj",)


def test_scaled_rows_are_a_patch() -> None:
    """A few rows of one writer scaled down lie along Wᵀu as well, for u a unit vector; that is a patch."""
    original = zoo.base(1)
    name = "model.layers.1.mlp.down_proj.weight"
    value = original[name].clone()
    value[5:7] *= 0.5
    (edit,) = edits(original, {**original, name: value})
    assert edit.kind is EditKind.SPARSE_PATCH


def test_permuted_neurons_are_no_finetune() -> None:
    """Feed-forward neurons in another order: the matrices are said to be others, permuted."""
    original = zoo.base(1)
    fork = dict(original)
    order = torch.randperm(zoo.SMALL.inter, generator=torch.Generator().manual_seed(1))
    for layer in range(2):
        for module in ("gate_proj", "up_proj", "down_proj"):
            name = f"model.layers.{layer}.mlp.{module}.weight"
            fork[name] = original[name][:, order] if module == "down_proj" else original[name][order]
    (edit,) = edits(original, fork)
    facts = {fact.name: fact.value for fact in edit.evidence}
    assert edit.kind is EditKind.UNKNOWN
    assert facts["permuted-matrices"] == 6
