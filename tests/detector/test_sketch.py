"""The sketch sees from a few rows what changed and whether the fork is one at all, within its budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.errors import NothingComparedError
from detector.formats import open_weights
from detector.interface import Certainty, EditKind, Sketch
from detector.sketch import sketch_weights
from tests.detector import zoo
from tests.detector.forks import FORKS, Fork, fork_named
from tests.detector.zoo import one_file

PLENTY = 1 << 20
SEEN = {
    EditKind.REPACKAGED,
    EditKind.DTYPE_CAST,
    EditKind.QUANTIZED,
    EditKind.ADAPTER,
    EditKind.UNRELATED,
    EditKind.VOCABULARY_CHANGE,
    EditKind.DIRECTIONAL_EDIT,
}
"""Kinds that a sketch can name."""
WEAK = {"directional-own-direction-a-layer", "directional-full", "directional-lora", "directional-q4_0"}
"""No shared direction, or one among other changes: the sketch leaves the name to the diff."""


def sketch_of(fork: Fork, folder: Path, budget: int = PLENTY, seed: int = 2) -> Sketch:
    original, files = fork.build(seed, folder)
    return sketch_weights(open_weights(one_file(original)), open_weights(files), budget_bytes=budget)


@pytest.mark.parametrize("fork", [pytest.param(fork, id=fork.name) for fork in FORKS])
def test_forks_are_sketched(fork: Fork, tmp_path: Path) -> None:
    """Lineage agrees with the truth, no kind is named that was not applied, and none is called proved."""
    sketch = sketch_of(fork, tmp_path)
    named = {edit.kind for edit in sketch.edits} - {EditKind.UNKNOWN}
    assert named <= fork.kinds
    if fork.name not in WEAK | {"shuffled-tokens", "dequantised-q8_0", "directional-three"}:
        assert fork.kinds & SEEN <= named
    assert all(edit.certainty is not Certainty.PROVED for edit in sketch.edits)
    assert not set(sketch.changed) & set(sketch.unchanged)


@pytest.mark.parametrize("name", ["lora", "full-light", "directional", "unrelated", "identical", "gguf-q8_0"])
def test_lineage_agrees_with_the_diff(name: str, tmp_path: Path) -> None:
    """Related forks are recognised from the bands alone, and so is an unrelated model."""
    fork = fork_named(name)
    assert sketch_of(fork, tmp_path).lineage.status is fork.lineage


def test_a_sketch_never_says_identical(tmp_path: Path) -> None:
    """A change in rows that were not sampled is not vouched for, whatever the sampled rows say."""
    for name in ("identical", "patch"):
        sketch = sketch_of(fork_named(name), tmp_path, 50_000)
        assert [edit.kind for edit in sketch.edits] == [EditKind.UNKNOWN]


def test_changed_tensors_are_the_touched_ones(tmp_path: Path) -> None:
    """Sampled rows tell touched from untouched tensors."""
    sketch = sketch_of(fork_named("lora-q-v"), tmp_path)
    assert {name.split(".")[-2] for name in sketch.changed} == {"q_proj", "v_proj"}
    assert len(sketch.changed) == 8
    assert len(sketch.unchanged) == len(zoo.base(2)) - 8


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
