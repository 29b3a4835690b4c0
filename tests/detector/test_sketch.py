"""The sketch sees from a few rows what changed and whether the fork is one at all, within its budget."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detector.errors import NothingComparedError
from detector.formats import open_weights
from detector.interface import Certainty, EditKind, Sketch
from detector.sketch import sketch_weights
from tests.detector import zoo
from tests.detector.disguises import DISGUISES
from tests.detector.forks import FORKS, Fork, fork_named
from tests.detector.zoo import Weights, one_file

PLENTY = 1 << 20
NARROW = zoo.Shape(hidden=64, inter=160, heads=4, kv_heads=2, vocab=256)
MISSED = "patch"
"""Two rows of one matrix, which the bands do not hold: nothing differs in what was read."""
BENIGN = ("full-light", "partial-light", "scaled", "lora-rank-1", "lora-q-v", "full-q8_0", "layers-swapped")


def sketch_of(fork: Fork, folder: Path, budget: int = PLENTY, seed: int = 2) -> Sketch:
    original, files = fork.build(seed, folder)
    return sketch_weights(open_weights(one_file(original)), open_weights(files), budget_bytes=budget)


@pytest.mark.parametrize("fork", [pytest.param(fork, id=fork.name) for fork in FORKS])
def test_forks_are_sketched(fork: Fork, tmp_path: Path) -> None:
    """The kinds named are those applied, ranks and strengths are right, and nothing is called proved."""
    sketch = sketch_of(fork, tmp_path)
    named = {edit.kind for edit in sketch.edits}
    assert named == ({EditKind.IDENTICAL} if fork.name == MISSED else fork.kinds)
    ranks = {edit.detail.rank for edit in sketch.edits} - {None}
    assert not ranks or fork.rank is None or ranks == {fork.rank}
    strengths = [edit.detail.strength for edit in sketch.edits if edit.detail.strength is not None]
    assert fork.strength is None or all(found == pytest.approx(fork.strength, abs=0.1) for found in strengths)
    assert all(edit.certainty is not Certainty.PROVED for edit in sketch.edits)
    assert not set(sketch.changed) & set(sketch.unchanged)


@pytest.mark.parametrize("name", BENIGN)
def test_benign_forks_are_never_called_directional(name: str, tmp_path: Path) -> None:
    """In another shape and seed: whatever a benign change is taken for, it is not this."""
    named = {edit.kind for edit in sketch_of(fork_named(name), tmp_path, seed=101).edits}
    assert EditKind.DIRECTIONAL_EDIT not in named


@pytest.mark.parametrize("name", ["lora", "full-light", "directional", "unrelated", "identical", "gguf-q8_0"])
def test_lineage_agrees_with_the_diff(name: str, tmp_path: Path) -> None:
    """Related forks are recognised from the bands alone, and so is an unrelated model."""
    fork = fork_named(name)
    assert sketch_of(fork, tmp_path).lineage.status is fork.lineage


def test_equal_rows_prove_no_copy(tmp_path: Path) -> None:
    """A copy and a patch between the bands look alike: consistent-with, with the odds of a miss."""
    for name in ("identical", MISSED):
        (edit,) = sketch_of(fork_named(name), tmp_path, 50_000).edits
        assert (edit.kind, edit.certainty) == (EditKind.IDENTICAL, Certainty.CONSISTENT)
        evidence = {each.name: each.value for each in edit.evidence}
        assert 0 <= float(evidence["miss-probability"]) <= 1 - 0.9
        assert 0.5 < float(evidence["one-row-miss-probability"]) < 1


def test_a_patch_between_the_bands_is_given_away_by_the_hashes(tmp_path: Path) -> None:
    """Equal headers, equal rows, other hashes: something changed where nobody looked."""
    original, files = fork_named(MISSED).build(2, tmp_path)
    readers = open_weights(one_file(original)), open_weights(files)
    (edit,) = sketch_weights(*readers, budget_bytes=50_000, known_to_differ=True).edits
    assert edit.kind is EditKind.UNKNOWN
    assert "hidden-change" in {each.name for each in edit.evidence}


def _named(weights: Weights, edited: Weights) -> set[EditKind]:
    readers = open_weights(one_file(weights)), open_weights(one_file(edited))
    return {edit.kind for edit in sketch_weights(*readers, budget_bytes=PLENTY).edits}


@pytest.mark.parametrize("size", [3e-4, 3e-3])
def test_a_faint_tune_is_told_by_what_no_adapter_changes(size: float) -> None:
    """Ranks of narrow matrices say nothing; gains or token matrices that moved along with them do."""
    weights = zoo.base(2, NARROW)
    assert _named(weights, zoo.dense(weights, 3, size)) == {EditKind.FULL_FINETUNE}
    without_gains = zoo.dense(weights, 3, size, lambda name: "norm" not in name)
    assert _named(weights, without_gains) == {EditKind.FULL_FINETUNE}


def test_a_tune_of_some_layers_is_told_by_their_gains() -> None:
    """The gains of the layers that were trained count, not those of the others."""
    weights = zoo.base(2, NARROW)
    tuned = zoo.dense(weights, 3, 3e-3, lambda name: ".layers.2." in name or ".layers.3." in name)
    assert _named(weights, tuned) == {EditKind.PARTIAL_FINETUNE}


@pytest.mark.parametrize("size", [3e-4, 3e-3])
def test_a_faint_adapter_is_never_called_training(size: float) -> None:
    """Merged into the linear layers it leaves gains and tokens; biases may have been trained with it."""
    weights = zoo.base(2, NARROW)
    weights["model.layers.0.self_attn.q_proj.bias"] = weights["model.norm.weight"].clone()
    merged = zoo.lora(weights, 3, 8, size, lambda name: zoo.is_linear(name) and not name.endswith("bias"))
    assert _named(weights, merged) <= {EditKind.UNKNOWN, EditKind.LOW_RANK_MERGE}
    with_biases = zoo.dense(merged, 4, 0.1, lambda name: name.endswith("bias"))
    assert EditKind.FULL_FINETUNE not in _named(weights, with_biases)


def test_an_adapter_with_trained_norms_is_not_called_training() -> None:
    """The ranks agree, so that gains which changed beside them do not make the change dense."""
    weights = zoo.base(2)
    both = zoo.dense(zoo.lora(weights, 3, 8, 3e-2), 4, 1e-2, lambda name: "norm" in name)
    assert EditKind.FULL_FINETUNE not in _named(weights, both)


def test_tokens_trained_for_a_larger_vocabulary_say_nothing_of_the_layers() -> None:
    """Adapters train the token matrices when tokens are added."""
    weights = zoo.base(2, NARROW)
    tokens = "model.embed_tokens.weight"
    merged = zoo.dense(zoo.lora(weights, 3, 8, 3e-4), 4, 1e-2, lambda name: name == tokens)
    merged[tokens] = torch.cat([merged[tokens], merged[tokens][:16]])
    assert EditKind.FULL_FINETUNE not in _named(weights, merged)


def test_changed_tensors_are_the_touched_ones(tmp_path: Path) -> None:
    """Sampled rows tell touched from untouched tensors."""
    sketch = sketch_of(fork_named("lora-q-v"), tmp_path)
    assert {name.split(".")[-2] for name in sketch.changed} == {"q_proj", "v_proj"}
    assert len(sketch.changed) == 8
    assert len(sketch.unchanged) == len(zoo.base(2)) - 8


def test_tensors_are_described_one_by_one(tmp_path: Path) -> None:
    """Size and rank of a change by tensor; of an unchanged one, the chance of having missed a change."""
    sketch = sketch_of(fork_named("lora-q-v"), tmp_path)
    assert [tensor.name for tensor in sketch.tensors] == sorted(zoo.base(2))
    for tensor in sketch.tensors:
        assert tensor.changed == (tensor.module in {"q_proj", "v_proj"})
        assert tensor.rows > 0
        if tensor.changed:
            assert tensor.miss == 0
            assert tensor.relative_norm == pytest.approx(0.01, rel=0.5)
            assert tensor.rank in {8, None}
        else:
            assert tensor.relative_norm == 0
            assert 0 <= tensor.miss <= 1 - sketch.visible_share
    assert sketch.visible_share == 0.9
    assert {tensor.rank for tensor in sketch.tensors if tensor.module == "q_proj"} >= {8}


def test_regions_are_what_changed(tmp_path: Path) -> None:
    """What to read next lies in the changed tensors, and rows that were added come with it."""
    sketch = sketch_of(fork_named("lora-q-v"), tmp_path)
    assert {region.name.split(".")[-2] for region in sketch.regions} == {"q_proj", "v_proj"}
    assert not sketch_of(fork_named("fp16"), tmp_path).regions
    grown = sketch_of(fork_named("more-tokens"), tmp_path).regions
    assert [(region.first_row, region.rows) for region in grown] == [(512, 16)]


@pytest.mark.parametrize("disguise", DISGUISES)
def test_disguised_copies_get_no_name(disguise: str) -> None:
    """Rows that were permuted, scaled, folded or rotated are not called trained."""
    weights = zoo.base(2)
    fork = open_weights(one_file(DISGUISES[disguise](weights, 7)))
    sketch = sketch_weights(open_weights(one_file(weights)), fork, budget_bytes=PLENTY)
    assert [edit.kind for edit in sketch.edits] == [EditKind.UNKNOWN]


def test_few_rows_do_not_make_a_change_dense(tmp_path: Path) -> None:
    """A budget for no more rows than the adapter has ranks gives no name, and not the wrong one."""
    sketch = sketch_of(fork_named("lora"), tmp_path, 60_000)
    assert EditKind.FULL_FINETUNE not in {edit.kind for edit in sketch.edits}


def test_the_budget_holds(tmp_path: Path) -> None:
    """Beyond its headers and the lineage bands no more of the fork is read than allowed."""
    shape = zoo.Shape(hidden=256, inter=512, layers=8, vocab=2048)
    original = zoo.base(2, shape)
    files = one_file(zoo.lora(original, 3))
    for budget in (200_000, 100_000, 60_000):
        fork = open_weights(files)
        headers = fork.bytes_read
        sketch = sketch_weights(open_weights(one_file(original)), fork, budget_bytes=budget)
        assert fork.bytes_read - headers <= budget
        assert sketch.changed
        assert sketch.bytes_total > 20 * budget


def test_an_unrelated_model_is_not_read_further(tmp_path: Path) -> None:
    """Once the lineage bands show no descent, the tensor bands are not read."""
    original = one_file(zoo.base(2))
    related, unrelated = open_weights(one_file(zoo.base(2))), open_weights(one_file(zoo.base(3)))
    sketch_weights(open_weights(original), related, budget_bytes=PLENTY)
    sketch_weights(open_weights(original), unrelated, budget_bytes=PLENTY)
    assert unrelated.bytes_read < related.bytes_read


def test_nothing_in_common_is_an_error() -> None:
    """Two checkpoints without a common tensor are not compared."""
    reader = open_weights(one_file({"other.weight": zoo.base(2)["model.norm.weight"]}))
    with pytest.raises(NothingComparedError):
        sketch_weights(open_weights(one_file(zoo.base(2))), reader, budget_bytes=PLENTY)
