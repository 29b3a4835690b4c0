"""Factors that a quantiser moved between operations are undone, only where both sides tell of the move."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.compare import compare_pair
from detector.content import match_by_content
from detector.diff import diff_weights
from detector.folded import UnfoldedReader, unfold
from detector.formats import open_weights
from detector.interface import EditKind, LineageStatus, TensorStatus, WeightReader
from detector.pairing import Pairing, pair_tensors
from tests.detector import zoo
from tests.detector.packing import Tensors, opened
from tests.detector.quantiser import LINEARS, awq_quantised
from tests.detector.zoo import Weights, one_file

SHAPE = zoo.Shape(hidden=128, inter=128, layers=2, heads=4, kv_heads=4, vocab=64)
GROUPED = zoo.Shape(hidden=128, inter=128, layers=2, heads=4, kv_heads=2, vocab=64)
BASE = zoo.base(31, SHAPE)
QUANTISED = awq_quantised(BASE, 5)


def unfolded(original: Weights, stored: Tensors) -> tuple[Pairing, WeightReader, WeightReader, WeightReader]:
    """Pairing, original, fork as stored, fork with its factors undone."""
    left, right = open_weights(one_file(original)), opened(stored)
    pairing = match_by_content(pair_tensors(left.tensors(), right.tensors()), left, right)
    reader, pairing = unfold(pairing, left, right)
    return pairing, left, right, reader


@pytest.mark.parametrize(("shape", "seed"), [(SHAPE, 31), (GROUPED, 32)], ids=["multi-head", "grouped"])
def test_what_awq_moved_is_moved_back(shape: zoo.Shape, seed: int) -> None:
    """Stored values differ by a third and more; undone, by the four-bit rounding, and gains not at all."""
    base = zoo.base(seed, shape)
    pairing, left, right, reader = unfolded(base, awq_quantised(base, seed))
    assert not pairing.unmeasured
    for pair in pairing.pairs:
        before, after = compare_pair(pair, left, right), compare_pair(pair, left, reader)
        if pair.is_matrix and pair.module in LINEARS:
            assert after.relative_norm < 0.16
            moved = pair.module not in {"v_proj", "o_proj"} or shape is SHAPE
            assert before.relative_norm > 0.25 or not moved
        else:
            assert after.status is TensorStatus.CAST


def test_undoing_changes_nothing_that_the_model_computes() -> None:
    """Law: gains times columns, and rows of one matrix times columns of the next, stay what they are."""
    pairing, _, right, reader = unfolded(BASE, QUANTISED)
    assert isinstance(reader, UnfoldedReader)
    for layer in range(SHAPE.layers):
        stem = f"model.layers.{layer}"
        products = [
            (f"{stem}.input_layernorm.weight", f"{stem}.self_attn.{m}_proj.weight") for m in ("q", "k")
        ] + [(f"{stem}.post_attention_layernorm.weight", f"{stem}.mlp.gate_proj.weight")]
        for norm, matrix in products:
            before = right.values(norm).double() * right.values(matrix).double()
            after = reader.values(norm).double() * reader.values(matrix).double()
            torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-9)  # gains are given in fp16
        gain, up, down = (
            f"{stem}.post_attention_layernorm.weight",
            f"{stem}.mlp.up_proj.weight",
            f"{stem}.mlp.down_proj.weight",
        )
        before = right.values(down).double() @ (right.values(up).double() * right.values(gain).double())
        after = reader.values(down).double() @ (reader.values(up).double() * reader.values(gain).double())
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    assert len(pairing.pairs) == len(BASE)


def test_bands_are_rows_of_the_values() -> None:
    """Rows, rows past the end, and views agree with the whole tensor."""
    _, _, right, reader = unfolded(BASE, QUANTISED)
    for name in reader.tensors():
        whole = reader.values(name)
        assert torch.equal(reader.band(name, 3, 5), whole[3:8])
        assert torch.equal(reader.band(name, len(whole) - 2, 9), whole[-2:])
        assert torch.equal(reader.values(f"{name}@rows:2:6"), whole[2:6])
        assert reader.raw(name) == right.raw(name)
        assert reader.band_bytes(name, 2) == right.band_bytes(name, 2)
    assert (reader.format, reader.headers) == (right.format, right.headers)
    assert reader.bytes_read == right.bytes_read


def test_a_plain_awq_quantisation_is_nothing_else() -> None:
    """The edit is `quantized`, and no norm is said to have been trained."""
    diff = diff_weights(open_weights(one_file(BASE)), opened(QUANTISED))
    assert [(edit.kind, edit.detail.scheme) for edit in diff.edits] == [(EditKind.QUANTIZED, "AWQ-INT4-G32")]
    assert diff.lineage.status is LineageStatus.PROVED
    assert {t.status for t in diff.tensors if "norm" in t.module} == {TensorStatus.CAST}


def test_trained_gains_are_left_unmeasured() -> None:
    """Gains that moved by more than the fit can tell are not called equal, nor measured against it."""
    trained = zoo.dense(BASE, 3, 0.1, where=lambda name: "layernorm" in name)
    pairing, _, _, reader = unfolded(BASE, awq_quantised(trained, 5))
    assert isinstance(reader, UnfoldedReader)
    assert pairing.unmeasured
    assert all("the quantiser divided it" in unpaired.reason for unpaired in pairing.unmeasured)


def test_scaled_columns_without_scaled_rows_are_an_edit() -> None:
    """Half of a move is no move: the columns of down_proj alone change what the model computes."""
    plain = QUANTISED
    name = "model.layers.0.mlp.down_proj.scales"
    groups = torch.linspace(0.5, 2, len(plain[name])).half()[:, None]
    pairing, left, _, reader = unfolded(BASE, plain | {name: plain[name] * groups})
    changed = {pair.name: compare_pair(pair, left, reader).relative_norm for pair in pairing.pairs}
    assert changed["model.layers.0.mlp.down_proj.weight"] > 0.3
    assert changed["model.layers.1.mlp.down_proj.weight"] < 0.16


def test_gains_stored_from_one_are_recognised() -> None:
    """Gemma multiplies by one plus the gain: the quotients of the sums are the factors."""
    base = {
        name: (value.float() - 1).bfloat16() if "layernorm" in name else value for name, value in BASE.items()
    }
    one = {name: value.float() + 1 if "layernorm" in name else value for name, value in base.items()}
    stored = awq_quantised(one, 5)
    stored = {
        name: (value.float() - 1).half() if "layernorm" in name else value for name, value in stored.items()
    }
    pairing, left, _, reader = unfolded(base, stored)
    assert not pairing.unmeasured
    for pair in pairing.pairs:
        if "layernorm" in pair.name:
            difference = reader.values(pair.name).float() - left.values(pair.name).float()
            assert difference.abs().max() < 1e-6


def test_biases_move_with_their_rows() -> None:
    """Biases of the matrices that were divided, and of norms, are divided as well."""
    bias = {f"model.layers.{n}.mlp.up_proj.bias": torch.linspace(0.5, 1.5, 128) for n in range(SHAPE.layers)}
    pairing, _, right, reader = unfolded(BASE | bias, QUANTISED | {k: v.half() for k, v in bias.items()})
    for name in bias:
        factor = reader.values(name).float() / right.values(name).float()
        up = name.replace("bias", "weight")
        rows = reader.values(up).norm(dim=1) / right.values(up).norm(dim=1)
        assert torch.corrcoef(torch.stack((factor, rows)))[0, 1] > 0.5
    assert pairing.pairs


def test_a_directional_edit_shows_under_awq() -> None:
    """A direction projected out before quantising is named, at a noise of an eighth."""
    base = zoo.base(12, zoo.Shape(layers=2, inter=128, vocab=64))
    edited = zoo.project(base, 13, where=lambda name: zoo.is_writer(name) and "embed" not in name)
    diff = diff_weights(open_weights(one_file(base)), opened(awq_quantised(edited, 5)))
    assert {edit.kind for edit in diff.edits} == {EditKind.QUANTIZED, EditKind.DIRECTIONAL_EDIT}


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1 << 30), width=st.sampled_from([16, 32]))
def test_any_contents_are_unfolded_or_left_alone(seed: int, width: int) -> None:
    """Zero, infinite and absent gains, random words and scales: a reader comes back, and can be read."""
    generator = torch.Generator().manual_seed(seed)
    layer = "model.layers.0"
    norms = [f"{layer}.{norm}.weight" for norm in ("input_layernorm", "post_attention_layernorm")]
    names = [f"{layer}.self_attn.{m}_proj" for m in "qkvo"] + [
        f"{layer}.mlp.{m}_proj" for m in ("gate", "up", "down")
    ]
    values = torch.tensor([0.0, 1.0, -2.0, float("inf"), float("nan"), 1e-30])

    def wild(*shape: int) -> torch.Tensor:
        picked = values[torch.randint(0, len(values), shape, generator=generator)]
        return picked if seed % 2 else torch.randn(shape, generator=generator)

    original = {f"{name}.weight": torch.randn(width, width, generator=generator) for name in names}
    original |= {norm: wild(width) for norm in norms}
    stored: Tensors = {norm: wild(width).half() for norm in norms}
    for name in names:
        words = torch.randint(-(1 << 31), 1 << 31, (width, width // 8), generator=generator)
        stored[f"{name}.qweight"] = words.to(torch.int32)
        stored[f"{name}.qzeros"] = words[:2].to(torch.int32).clone()
        stored[f"{name}.scales"] = wild(2, width).half()
    pairing, _, _, reader = unfolded(original, stored)
    for pair in pairing.pairs:
        assert tuple(reader.values(pair.fork.name).shape) == pair.fork.shape


@pytest.mark.parametrize("stored", [dict(BASE), {name: value.half() for name, value in BASE.items()}])
def test_nothing_moved_is_left_alone(stored: Tensors) -> None:
    """A checkpoint without codes comes back as it is."""
    pairing, left, right, reader = unfolded(BASE, stored)
    assert reader is right
    assert len(pairing.pairs) == len(left.tensors())
