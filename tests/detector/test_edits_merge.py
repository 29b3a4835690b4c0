"""Merges with known models are named, proved where the parents are at hand, and never invented."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from detector.diff import diff_weights
from detector.formats import open_weights
from detector.interface import Certainty, Diff, Edit, EditKind
from detector.lineage import Bands, sample_bands
from tests.detector import zoo
from tests.detector.forks import relayered
from tests.detector.zoo import Weights, one_file

SHAPE = zoo.Shape(hidden=96, inter=160, layers=3, heads=4, kv_heads=2, vocab=128)
Mix = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@cache
def base() -> Weights:
    return zoo.base(1, SHAPE)


@cache
def parent(number: int) -> Weights:
    """Independent fine-tunes of the original."""
    return zoo.dense(base(), 10 + number, 0.02)


def mixed(mix: Mix) -> Weights:
    """Original and two parents, matrix by matrix, float32 inside, bf16 outside."""
    return {
        name: mix(value.float(), parent(1)[name].float(), parent(2)[name].float()).to(torch.bfloat16)
        for name, value in base().items()
    }


def slerp(left: torch.Tensor, right: torch.Tensor, share: float) -> torch.Tensor:
    cosine = (left * right).sum() / (left.norm() * right.norm())
    angle = math.acos(min(1.0, cosine.item()))
    weights = math.sin((1 - share) * angle), math.sin(share * angle)
    return (weights[0] * left + weights[1] * right) / math.sin(angle)


def kept(delta: torch.Tensor, drop: float, seed: int) -> torch.Tensor:
    """DARE: drop values at random and scale up the rest."""
    draw = torch.rand(delta.shape, generator=torch.Generator().manual_seed(seed))
    return delta * (draw > drop) / (1 - drop)


def trimmed(delta: torch.Tensor, density: float) -> torch.Tensor:
    """TIES: keep the largest values; of a Gaussian, the largest 30 % hold 78 % of the energy."""
    if delta.dim() < 2:
        return delta
    least = delta.abs().flatten().kthvalue(max(1, round(delta.numel() * (1 - density)))).values
    return delta * (delta.abs() >= least)


MIXES: dict[str, tuple[Mix, tuple[float, ...]]] = {
    "linear": (lambda o, a, _: 0.6 * o + 0.4 * a, (0.4,)),
    "two-parents": (lambda _, a, b: 0.3 * a + 0.7 * b, (0.7, 0.3)),
    "task-arithmetic": (lambda o, a, b: o + 0.9 * (a - o) + 0.5 * (b - o), (0.9, 0.5)),
    "slerp": (lambda o, a, _: slerp(o, a, 0.35), (0.35,)),
    "dare": (lambda o, a, _: o + kept(a - o, 0.7, 3), (1.0,)),
    "ties": (lambda o, a, _: o + trimmed(a - o, 0.3), (0.78,)),
}


def diff(fork: Weights, **options: object) -> Diff:
    return diff_weights(open_weights(one_file(base())), open_weights(one_file(fork)), **options)  # type: ignore[arg-type]  # known or parents


def bands(*models: Weights) -> dict[str, Bands]:
    original = open_weights(one_file(base()))
    return {
        f"model-{number}": sample_bands(original, open_weights(one_file(model)))[1]
        for number, model in enumerate(models, start=1)
    }


def merge_in(found: Diff) -> Edit:
    (edit,) = [edit for edit in found.edits if edit.kind is EditKind.MERGE]
    return edit


@pytest.mark.parametrize("name", MIXES)
def test_a_merge_is_proved_from_its_parents(name: str) -> None:
    """With the parents' weights, every merge method is reproduced to rounding, shares and all."""
    mix, shares = MIXES[name]
    parents = {f"model-{n}": open_weights(one_file(parent(n))) for n in (1, 2, 3)}
    found = diff(mixed(mix), parents=parents)
    assert [edit.kind for edit in found.edits] == [EditKind.MERGE]
    edit = merge_in(found)
    assert edit.certainty is Certainty.PROVED
    said = sorted((sum(p.weights) / len(p.weights) for p in edit.detail.parents), reverse=True)
    assert said == pytest.approx(sorted(shares, reverse=True), abs=0.03)
    assert {p.name for p in edit.detail.parents} == {"model-1", "model-2"} if len(shares) > 1 else {"model-1"}


@pytest.mark.parametrize("name", ["linear", "two-parents", "dare"])
def test_a_merge_is_suggested_from_bands(name: str) -> None:
    """A few rows of each known model name the partners, and prove nothing."""
    edit = merge_in(diff(mixed(MIXES[name][0]), known=bands(parent(1), parent(2), parent(3))))
    assert edit.certainty is Certainty.CONSISTENT
    assert {p.name for p in edit.detail.parents} == (
        {"model-1", "model-2"} if len(MIXES[name][1]) > 1 else {"model-1"}
    )
    assert all(len(p.weights) == SHAPE.layers for p in edit.detail.parents)


NOT_MERGES: dict[str, Callable[[], Weights]] = {
    "independent fine-tune": lambda: zoo.dense(base(), 77, 0.02),
    "fine-tune of a known model": lambda: zoo.dense(parent(1), 78, 0.005),
    "the known model itself": lambda: parent(1),
    "ancestor of the known model": lambda: zoo.dense(base(), 80, 0.02),
    "merge with a model that is not known": lambda: mixed(lambda o, a, _: 0.5 * a + 0.5 * _fourth(o)),
}


def _fourth(value: torch.Tensor) -> torch.Tensor:
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel()))
    return value + 0.02 * value.std() * noise


@pytest.mark.parametrize(
    ("name", "full"),
    [*((name, False) for name in NOT_MERGES), ("fine-tune of a known model", True)],
)
def test_no_parent_is_invented(name: str, *, full: bool) -> None:
    """What correlates with a known model without following from it stays a fine-tune."""
    fork = NOT_MERGES[name]()
    models = [parent(1), parent(2)]
    if name.startswith("ancestor"):
        models[0] = zoo.dense(fork, 81, 0.01)
    options: dict[str, object] = (
        {"parents": {f"model-{n}": open_weights(one_file(m)) for n, m in enumerate(models, start=1)}}
        if full
        else {"known": bands(*models)}
    )
    found = diff(fork, **options)
    assert [edit.kind for edit in found.edits] == [EditKind.FULL_FINETUNE]
    hints = {
        e.name for e in found.edits[0].evidence if e.name in {"shares-change-with", "follows-known-model"}
    }
    assert len(hints) == (name != "independent fine-tune")


def test_without_known_models_a_merge_is_a_finetune() -> None:
    """Nothing known: a merge looks dense, and is called that."""
    assert [edit.kind for edit in diff(mixed(MIXES["linear"][0])).edits] == [EditKind.FULL_FINETUNE]


def test_a_merge_shows_through_quantisation(tmp_path: Path) -> None:
    """A merge that was quantised follows from the parents put through the same quantiser."""
    fork = open_weights(zoo.gguf_file(mixed(MIXES["linear"][0]), "Q4_0", tmp_path, SHAPE))
    parents = {"model-1": open_weights(one_file(parent(1)))}
    found = diff_weights(open_weights(one_file(base())), fork, parents=parents)
    assert {edit.kind for edit in found.edits} == {EditKind.QUANTIZED, EditKind.MERGE}


def test_merging_half_an_ablation_is_both() -> None:
    """Half of the original and half of its ablated fork: a merge, and a direction removed by half."""
    ablated = zoo.project(base(), 5)
    fork = {n: (0.5 * v.float() + 0.5 * ablated[n].float()).to(torch.bfloat16) for n, v in base().items()}
    found = diff(fork, parents={"ablated": open_weights(one_file(ablated))})
    assert {e.kind: e.certainty for e in found.edits} == {
        EditKind.DIRECTIONAL_EDIT: Certainty.PROVED,
        EditKind.MERGE: Certainty.PROVED,
    }


def test_a_merge_of_reordered_layers_is_both() -> None:
    """A stack of layers of a merge says where each layer came from, and what it was merged with."""
    found = diff(relayered([0, 1, 1, 2])(mixed(MIXES["linear"][0]), 0), known=bands(parent(1)))
    edits = {edit.kind: edit.detail for edit in found.edits}
    assert set(edits) == {EditKind.LAYER_SURGERY, EditKind.MERGE}
    assert edits[EditKind.LAYER_SURGERY].sources == (0, 1, 1, 2)
    assert len(edits[EditKind.MERGE].parents[0].weights) == 4


def test_a_share_of_a_low_rank_parent_is_a_merge_alone() -> None:
    """Half of a parent that is a merged LoRA is of low rank, too; one edit was made, and one is named."""
    adapted = zoo.lora(base(), 5, 4, 0.03)
    half = {
        name: ((value.float() + adapted[name].float()) / 2).to(torch.bfloat16)
        for name, value in base().items()
    }

    edits = diff(half, parents={"adapted": open_weights(one_file(adapted))}).edits

    assert [(edit.kind, edit.certainty) for edit in edits] == [(EditKind.MERGE, Certainty.PROVED)]
