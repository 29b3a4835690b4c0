"""The diff names the edits that were made to the forks of the zoo, and proves those it can reproduce."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detector.diff import diff_weights
from detector.errors import NothingComparedError
from detector.formats import open_adapter, open_weights
from detector.interface import Certainty, Diff, EditKind, LineageStatus, TensorStatus
from detector.sketch import sketch_weights
from tests.detector import zoo
from tests.detector.forks import FORKS, Fork, fork_named
from tests.detector.zoo import MemoryFile, one_file

SEED = 1
SLOW = {"lora-exchanged", "directional-lora", "lora-q8_0"}
"""More than a second each; the rest of the family takes about 15 s of processor time."""


def diff_of(fork: Fork, folder: Path, seed: int = SEED) -> Diff:
    original, files = fork.build(seed, folder)
    return diff_weights(open_weights(one_file(original)), open_weights(files))


@pytest.mark.parametrize(
    "fork",
    [pytest.param(fork, id=fork.name, marks=pytest.mark.slow if fork.name in SLOW else ()) for fork in FORKS],
)
def test_edits_are_named(fork: Fork, tmp_path: Path) -> None:
    """Every fork gets exactly the kinds that were applied to it, with rank, strength, type and layers."""
    diff = diff_of(fork, tmp_path)
    edits = {edit.kind: edit for edit in diff.edits}
    assert set(edits) == fork.kinds
    assert len(edits) == len(diff.edits)
    assert diff.lineage.status is fork.lineage
    assert {kind for kind in fork.proved if edits[kind].certainty is not Certainty.PROVED} == set()
    details = [edit.detail for edit in diff.edits]
    if fork.rank is not None:
        assert [detail.rank for detail in details if detail.rank is not None] == [fork.rank]
    if fork.strength is not None:
        assert [d.strength for d in details if d.strength] == pytest.approx([fork.strength], abs=0.02)
    if fork.scheme is not None and fork.lineage is not LineageStatus.UNRELATED:
        assert [detail.scheme for detail in details if detail.scheme] == [fork.scheme]
    if fork.layers is not None:
        assert fork.layers in [detail.layers for detail in details]


def test_rank_one_lora_is_not_directional(tmp_path: Path) -> None:
    """A trained rank-1 change of the residual writers alone is a merge, not a directional edit."""
    original = zoo.base(SEED)
    edited = zoo.lora(original, SEED + 9, 1, 0.08, lambda name: zoo.is_writer(name) and "embed" not in name)
    diff = diff_weights(open_weights(one_file(original)), open_weights(one_file(edited)))
    assert [edit.kind for edit in diff.edits] == [EditKind.LOW_RANK_MERGE]
    assert diff.edits[0].detail.rank == 1


def test_directional_reports_modules_and_evidence(tmp_path: Path) -> None:
    """A directional edit names its modules and is reproduced in nearly all values that moved."""
    (edit,) = diff_of(fork_named("directional"), tmp_path).edits
    evidence = {fact.name: fact.value for fact in edit.evidence}
    assert edit.detail.modules == ("down_proj", "embed_tokens", "o_proj")
    assert float(evidence["reproduced-fraction"]) >= 0.95
    assert float(evidence["shared-direction-cosine"]) >= 0.999


def test_tensor_statuses(tmp_path: Path) -> None:
    """Untouched tensors are identical, touched ones changed with rank and energies, and nothing is lost."""
    diff = diff_of(fork_named("lora-q-v"), tmp_path)
    changed = [tensor for tensor in diff.tensors if tensor.status is TensorStatus.CHANGED]
    assert {tensor.module for tensor in changed} == {"q_proj", "v_proj"}
    assert {tensor.rank for tensor in changed} == {8}
    assert all(0.005 < tensor.relative_norm < 0.02 and 0 < tensor.fraction_changed < 1 for tensor in changed)
    assert all(sum(tensor.energy[:8]) > 0.9 for tensor in changed)
    rest = {tensor.status for tensor in diff.tensors if tensor not in changed}
    assert rest == {TensorStatus.IDENTICAL}
    assert len(diff.tensors) == len(zoo.base(SEED))


def test_added_and_missing_tensors_are_listed(tmp_path: Path) -> None:
    """A dropped layer's tensors are missing and an extra tensor is added."""
    original = zoo.base(SEED)
    fork = {name: value for name, value in original.items() if ".layers.3." not in name}
    fork["model.extra.weight"] = torch.zeros(4, 4)
    diff = diff_weights(open_weights(one_file(original)), open_weights(one_file(fork)))
    by_status = {status: [t.name for t in diff.tensors if t.status is status] for status in TensorStatus}
    assert by_status[TensorStatus.ADDED] == ["model.extra.weight"]
    assert len(by_status[TensorStatus.MISSING]) == 9


def test_non_finite_values_are_reported(tmp_path: Path) -> None:
    """A tensor of infinities and NaNs does not stop the diff, and is named."""
    original = zoo.base(SEED)
    broken = original["model.layers.0.mlp.up_proj.weight"].clone()
    broken[0, 0], broken[1, 1] = float("nan"), float("inf")
    fork = {**original, "model.layers.0.mlp.up_proj.weight": broken}
    diff = diff_weights(open_weights(one_file(original)), open_weights(one_file(fork)))
    names = [fact.name for edit in diff.edits if edit.kind is EditKind.UNKNOWN for fact in edit.evidence]
    assert "non-finite-tensors" in names


def test_rounded_norms_alone_are_a_repackaging(tmp_path: Path) -> None:
    """Norm gains that moved by one step of bf16, and nothing else, are the trace of a format round trip."""
    original = zoo.base(SEED)
    norm = original["model.norm.weight"]
    bits = norm.view(torch.int16).clone()
    bits[::3] += 1
    fork = {**original, "model.norm.weight": bits.view(torch.bfloat16)}
    diff = diff_weights(open_weights(one_file(original)), open_weights(one_file(fork)))
    assert [(e.kind, e.certainty) for e in diff.edits] == [(EditKind.REPACKAGED, Certainty.CONSISTENT)]


def test_adapter_beside_identical_weights_is_seen(tmp_path: Path) -> None:
    """Weights equal to the release's do not hide an adapter in the same folder."""
    original = zoo.base(SEED)
    files = one_file(original) | zoo.adapter_files(original, SEED)
    diff = diff_weights(open_weights(one_file(original)), open_weights(files), adapter=open_adapter(files))
    assert {edit.kind for edit in diff.edits} == {EditKind.IDENTICAL, EditKind.ADAPTER}


def test_adapter_for_another_shape_is_unrelated(tmp_path: Path) -> None:
    """An adapter whose factors fit no matrix of the release cannot be one of its forks."""
    files = zoo.adapter_files(zoo.base(SEED, zoo.Shape(hidden=64, inter=128)), SEED)
    diff = diff_weights(open_weights(one_file(zoo.base(SEED))), open_weights(files))
    assert diff.lineage.status is LineageStatus.UNRELATED


def test_unreadable_encoding_is_unknown(tmp_path: Path) -> None:
    """Matrices in an encoding that is not decoded are reported as unreadable, with the encoding's name."""
    original = zoo.base(SEED)
    data = zoo.safetensors_bytes({name: value for name, value in original.items() if "norm" in name})
    name = "model.layers.0.mlp.up_proj.weight"
    packed = zoo.safetensors_bytes({name: torch.zeros(256, 64, dtype=torch.float16)})
    packed = packed.replace(b'"dtype": "F16", "shape": [256, 64]', b'"dtype": "F4", "shape": [256, 256]')
    original[name] = torch.zeros(256, 256, dtype=torch.bfloat16)
    files = {"model-1.safetensors": MemoryFile(data), "model-2.safetensors": MemoryFile(packed)}
    diff = diff_weights(open_weights(one_file(original)), open_weights(files))
    assert {t.name for t in diff.tensors if t.status is TensorStatus.UNREADABLE} == {name}
    unknown = [edit for edit in diff.edits if edit.kind is EditKind.UNKNOWN]
    assert any("F4" in fact.note for edit in unknown for fact in edit.evidence)


WIDE = zoo.Shape(hidden=256, inter=512, layers=3, vocab=256)
"""K-quants need rows of 256."""


@pytest.mark.parametrize(
    ("edit", "kinds"),
    [
        pytest.param(lambda weights: weights, {EditKind.QUANTIZED}, id="pure"),
        pytest.param(lambda weights: zoo.lora(weights, 3, 8, 0.003), {EditKind.QUANTIZED}, id="hidden-lora"),
        pytest.param(
            lambda weights: zoo.project(weights, 3),
            {EditKind.QUANTIZED, EditKind.DIRECTIONAL_EDIT},
            id="directional",
        ),
        pytest.param(
            lambda weights: zoo.dense(weights, 3, 0.1),
            {EditKind.QUANTIZED, EditKind.FULL_FINETUNE},
            id="finetune",
        ),
    ],
)
def test_searched_scales_prove_nothing(
    edit: Callable[[zoo.Weights], zoo.Weights], kinds: set[EditKind], tmp_path: Path
) -> None:
    """Under a K-quant, what its error explains is not accused, a direction is seen, nothing is proved."""
    original = zoo.base(SEED, WIDE)
    files = zoo.gguf_file(edit(original), "Q6_K", tmp_path, WIDE)
    diff = diff_weights(open_weights(one_file(original)), open_weights(files))
    assert {edit.kind for edit in diff.edits} == kinds
    assert all(edit.certainty is not Certainty.PROVED for edit in diff.edits)
    assert diff.lineage.status is LineageStatus.PROVED


def test_nothing_in_common_is_an_error() -> None:
    """Two checkpoints without a common tensor are not 'equal'."""
    left = open_weights(one_file({"a.weight": torch.zeros(2, 2)}))
    right = open_weights(one_file({"b.weight": torch.zeros(2, 2)}))
    with pytest.raises(NothingComparedError):
        diff_weights(left, right)


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    """Progress counts every element once."""
    seen: list[tuple[int, int]] = []
    reader = open_weights(one_file(zoo.base(SEED)))
    diff_weights(reader, reader, progress=lambda _, done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_diff_is_deterministic(tmp_path: Path) -> None:
    """The same two checkpoints give the same diff."""
    fork = fork_named("lora")
    assert diff_of(fork, tmp_path) == diff_of(fork, tmp_path)


@pytest.mark.parametrize("value", [-3e38, float("inf"), float("nan"), 1e20])
def test_one_absurd_value_ends_no_comparison(value: float) -> None:
    """A fork may hold any number: a diff and a sketch of it end, and name no direction."""
    weights = zoo.base(1)
    fork = dict(weights)
    name = "model.layers.1.mlp.down_proj.weight"
    fork[name] = weights[name].clone()
    fork[name][5, 7] = value
    original = open_weights(one_file(weights))

    kinds = {edit.kind for edit in diff_weights(original, open_weights(one_file(fork))).edits}
    sketch_weights(original, open_weights(one_file(fork)), budget_bytes=1 << 20)

    assert kinds <= {EditKind.SPARSE_PATCH, EditKind.UNKNOWN}
    assert kinds
