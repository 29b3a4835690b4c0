"""What was done on a base that had been rounded to a coarser type is told from the rounding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from detector.diff import diff_weights
from detector.edits.low_rank import _have_one_rank, _is_of_factors, _Module
from detector.formats import open_weights
from detector.grid import counted_from_one, under_scales_of, values_as_stored
from detector.interface import Certainty, EditKind
from detector.nested import NESTED, nested_scales, through_nested
from detector.rounded import RoundedReader, rounding_of
from detector.sketch import sketch_weights
from detector.spectrum import RankEstimate
from tests.detector import zoo
from tests.detector.zoo import Weights, one_file

BF16 = ("BF16", "BF16")
NAME = "model.layers.1.mlp.up_proj.weight"
SHAPE = zoo.Shape(layers=2)


def rounded(weights: Weights, scheme: str) -> Weights:
    """The linear layers after a round trip, in bf16 again."""
    return {
        name: values_as_stored(value.float(), scheme).to(torch.bfloat16) if zoo.is_linear(name) else value
        for name, value in weights.items()
    }


def named(original: Weights, fork: Weights) -> dict[EditKind, Certainty]:
    diff = diff_weights(open_weights(one_file(original)), open_weights(one_file(fork)))
    return {edit.kind: edit.certainty for edit in diff.edits}


@pytest.mark.parametrize("scheme", ["BNB-NF4", "BNB-INT8", "Q8_0", "Q4_0", "F8_E4M3"])
@pytest.mark.parametrize("size", [0.005, 0.1])
def test_the_type_of_a_rounded_base_is_told(scheme: str, size: float) -> None:
    """A change beside it does not hide the rounding, be it larger or smaller."""
    original = {NAME: zoo.base(3)[NAME]}
    fork = zoo.lora(rounded(original, scheme), 4, size=size)
    assert rounding_of(original[NAME].float(), fork[NAME].float(), BF16) == scheme


@pytest.mark.parametrize(
    "edit",
    [
        lambda weights: zoo.lora(weights, 5, size=0.1),
        lambda weights: zoo.dense(weights, 5, size=0.1),
        lambda weights: {name: (value.float() * 0.9).to(torch.bfloat16) for name, value in weights.items()},
        lambda weights: {
            name: torch.where(value.abs() < value.abs().median(), 0, value) for name, value in weights.items()
        },
    ],
    ids=["lora", "tune", "decay", "pruning"],
)
def test_no_rounding_is_seen_where_there_was_none(edit: Callable[[Weights], Weights]) -> None:
    """Changes as large as four-bit steps have nothing to do with them."""
    original = {NAME: zoo.base(3)[NAME]}
    assert rounding_of(original[NAME].float(), edit(original)[NAME].float(), BF16) == ""


def test_an_adapter_merged_into_a_dequantised_base_is_proved() -> None:
    """Against the rounded original the change has its rank again; against the original it is dense."""
    original = zoo.base(6, SHAPE)
    fork = zoo.lora(rounded(original, "BNB-NF4"), 7, size=0.02)
    assert named(original, fork) == {
        EditKind.QUANTIZED: Certainty.CONSISTENT,
        EditKind.LOW_RANK_MERGE: Certainty.PROVED,
    }
    sketch = sketch_weights(
        open_weights(one_file(original)), open_weights(one_file(fork)), budget_bytes=4 << 20
    )
    assert {edit.kind for edit in sketch.edits} == {EditKind.QUANTIZED, EditKind.LOW_RANK_MERGE}


def test_a_training_on_a_dequantised_base_is_dense_still() -> None:
    """Nothing of low rank is made up where the rounding is taken out."""
    original = zoo.base(6, SHAPE)
    fork = zoo.dense(rounded(original, "BNB-NF4"), 7, 0.05)
    assert named(original, fork).keys() == {EditKind.QUANTIZED, EditKind.FULL_FINETUNE}


@pytest.mark.parametrize("scheme", ["BNB-NF4", "BNB-INT8", "Q4_0"])
def test_a_patch_on_a_rounded_base_is_no_tie(scheme: str) -> None:
    """One value in two hundred of one matrix moved: no rounding of another library does that."""
    original = zoo.base(6, SHAPE)
    fork = rounded(original, scheme)
    moved = torch.rand(fork[NAME].shape, generator=torch.Generator().manual_seed(1)) < 0.005
    patched = {**fork, NAME: fork[NAME] + (0.02 * moved).to(torch.bfloat16)}
    assert named(original, fork).keys() == {EditKind.QUANTIZED}
    assert named(original, patched).keys() > {EditKind.QUANTIZED}


def test_double_quantisation_is_followed_to_the_scales() -> None:
    """Scales of scales come from the whole matrix; rows from the middle find theirs."""
    original = {NAME: zoo.base(8)[NAME]}
    reader = open_weights(one_file(original))
    scales = nested_scales(reader, NAME)
    exact = original[NAME].float().reshape(-1, 64).abs().amax(1)
    assert 0 < float(((scales - exact).abs() / exact).max()) < 0.05
    whole = through_nested(original[NAME].float(), scales).to(torch.bfloat16)
    assert torch.equal(RoundedReader(reader, {NAME: NESTED}).band(NAME, 100, 60), whole[100:160])


def test_rows_under_scales_stored_in_bf16_hold_the_original_codes() -> None:
    """Half of the values are off under exact scales, none under those of the fork."""
    original = zoo.base(9)[NAME].float()
    scale = (original.abs().amax(1, keepdim=True) / 448).to(torch.bfloat16).float()
    stored = (original / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale
    exact = values_as_stored(original, "F8_E4M3-ROW")
    found = under_scales_of(original, stored, "F8_E4M3-ROW")
    assert float((found - stored).abs().max()) < 1e-6
    assert float((exact - stored).abs().max()) > 1e-4


def test_gains_that_were_counted_from_one_are_no_change() -> None:
    """A round trip through 1 + w moves small gains by more than their own step; a trained value is not it."""
    gains = torch.linspace(-0.3, 0.3, 64).to(torch.bfloat16).float()
    stored = (gains + 1).to(torch.bfloat16).float() - 1
    assert bool((stored != gains).any())
    assert counted_from_one(gains, stored, "BF16")
    stored[5] += 2.0**-7
    assert not counted_from_one(gains, stored, "BF16")


def _probe(rank: int, reproduced: float) -> RankEstimate:
    return RankEstimate(rank, 30, 1, 5e-4, reproduced, 1000)


def _module(*probes: RankEstimate) -> _Module:
    return _Module((), {str(number): probe for number, probe in enumerate(probes)})


def test_ranks_that_differ_are_factors_only_if_they_give_the_values() -> None:
    """A faint training lies near many ranks; AdaLoRA has many, and each gives its matrix."""
    ranks = (1, 2, 6, 8, 12, 13)
    faint = [_module(_probe(rank, 0.85)) for rank in ranks]
    assert not _is_of_factors(faint)
    assert _is_of_factors([_module(_probe(rank, 0.99)) for rank in ranks])
    assert _is_of_factors([_module(_probe(8, 0.85)) for _ in ranks])


def test_factors_bound_the_rank_of_all_matrices() -> None:
    """What was seen of an adapter of rank 16 on SmolLM2, and of a faint training under Q8_0."""
    assert _have_one_rank([3, 5, 7, 9, 9, 11, 12, 13, 13, 16, 16, 16, 16, 16])
    assert not _have_one_rank([3, 3, 4, 4, 5, 5, 5, 5, 5, 5, 6, 6, 7, 8, 9, 9, 11])


def test_a_rank_that_most_matrices_do_not_have_is_no_vote() -> None:
    """Signed steps came to lie near rank 22 in one of three matrices; the others had been tested up to 48."""
    other = RankEstimate(None, 48, 1, 5e-3, 0.3, 1000)
    assert _module(other, other, _probe(13, 0.85)).vote(13, 1) == "undecided"
    assert _module(other, _probe(13, 0.85), _probe(13, 0.85)).vote(13, 1) == "low"


def test_a_faint_adapter_is_not_called_a_training() -> None:
    """So few values moved that ranks up to two could be refuted: nothing follows for rank eight."""
    original = zoo.base(10, SHAPE)
    assert named(original, zoo.lora(original, 11, size=4e-4)).keys() <= {
        EditKind.UNKNOWN,
        EditKind.LOW_RANK_MERGE,
    }


def test_directions_taken_out_one_by_one_leave_nothing_else() -> None:
    """Three steps are three roundings, which no longer give nine in ten values, and no second edit."""
    original = zoo.base(12, SHAPE)
    fork = original
    for step in range(3):
        fork = zoo.project(fork, 13 + step, where=lambda name: zoo.is_writer(name) and "embed" not in name)
    assert named(original, fork).keys() == {EditKind.DIRECTIONAL_EDIT}
