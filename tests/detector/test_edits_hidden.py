"""Edits under quantisation: named where they show, excluded down to a size where they do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detector.diff import diff_weights
from detector.edits.coded import Coded, spikes
from detector.formats import open_weights
from detector.interface import Certainty, Diff, EditKind, TensorInfo
from detector.pairing import Pair
from tests.detector import zoo
from tests.detector.zoo import Weights, one_file

WIDE = zoo.Shape(hidden=256, inter=512, layers=2, vocab=256)
"""K-quants need rows of 256."""
Change = Callable[[Weights], Weights]


def diff_of(change: Change, scheme: str, folder: Path) -> Diff:
    original = zoo.base(1, WIDE)
    fork = zoo.gguf_file(change(original), scheme, folder, WIDE)
    return diff_weights(open_weights(one_file(original)), open_weights(fork))


CASES: dict[str, tuple[str, Change, set[EditKind]]] = {
    "q4-dense": ("Q4_0", lambda w: zoo.dense(w, 3, 0.04), {EditKind.FULL_FINETUNE}),
    "q4-weak-direction": (
        "Q4_0",
        lambda w: zoo.project(w, 3, strength=lambda _: 0.2),
        {EditKind.DIRECTIONAL_EDIT},
    ),
    "q6k-lora": ("Q6_K", lambda w: zoo.lora(w, 3, 8, 0.04), {EditKind.LOW_RANK_MERGE}),
    "q6k-weak-direction": (
        "Q6_K",
        lambda w: zoo.project(w, 3, strength=lambda _: 0.3),
        {EditKind.DIRECTIONAL_EDIT},
    ),
    "q6k-hidden": ("Q6_K", lambda w: zoo.dense(w, 3, 0.002), set()),
    "q4-undecidable": ("Q4_0", lambda w: zoo.dense(w, 3, 0.004), {EditKind.UNKNOWN}),
}


@pytest.mark.parametrize("name", CASES)
def test_an_edit_under_quantisation(name: str, tmp_path: Path) -> None:
    """The kind is named where it shows; where it cannot be told, that is what is said."""
    scheme, change, kinds = CASES[name]
    found = diff_of(change, scheme, tmp_path)
    assert {edit.kind for edit in found.edits} == kinds | {EditKind.QUANTIZED}
    if EditKind.LOW_RANK_MERGE in kinds:
        assert [e.detail.rank for e in found.edits if e.detail.rank] == [8]


def test_a_pure_k_quant_says_what_it_could_hide(tmp_path: Path) -> None:
    """Nothing shows in the spectrum, and the size of what would is stated."""
    (edit,) = diff_of(lambda weights: weights, "Q6_K", tmp_path).edits
    facts = {fact.name: fact.value for fact in edit.evidence}
    assert edit.kind is EditKind.QUANTIZED
    assert edit.certainty is Certainty.CONSISTENT
    assert 0 < float(facts["invisible-below"]) < 0.01
    assert float(facts["spike-log10-p-value"]) > -2


def _coded(delta: torch.Tensor) -> Coded:
    info = TensorInfo("model.layers.0.mlp.up_proj.weight", "Q4_K", tuple(delta.shape), 0)
    weights = torch.ones_like(delta)
    return Coded(Pair(info.name, info, info), weights, weights + delta, delta, exact=False)


def test_unequal_noise_has_no_spikes() -> None:
    """Errors of very unequal size, all independent, stay under the edge that random signs give."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.exp(torch.randn(128, 1, generator=generator)) * torch.exp(
        torch.randn(1, 256, generator=generator)
    )
    found = [
        spikes(_coded(sizes * torch.randn(128, 256, generator=generator)), seed).count for seed in range(10)
    ]
    assert sum(found) <= 1


def test_spikes_are_counted_and_measured() -> None:
    """Five directions in noise are five spikes, and their energy is estimated without the noise's part."""
    generator = torch.Generator().manual_seed(1)
    low = torch.randn(128, 5, generator=generator) @ torch.randn(5, 256, generator=generator)
    found = spikes(_coded(low + torch.randn(128, 256, generator=generator)))
    assert found.count == 5
    assert found.share * 128 * 256 == pytest.approx(low.square().sum().item(), rel=0.05)
