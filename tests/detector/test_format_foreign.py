"""HQQ is read as HQQ dequantises it; other methods are unreadable under their names, not damaged."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from detector.diff import diff_weights
from detector.errors import DetectorError, MalformedWeightsError, UnreadableTensorError
from detector.formats import open_weights
from detector.formats.foreign import METHODS
from detector.interface import EditKind, LineageStatus, TensorStatus
from tests.detector import zoo
from tests.detector.packing import Tensors, codes_of, hqq, opened, scales_of
from tests.detector.zoo import MemoryFile, one_file

STEM = "model.layers.0.mlp.up_proj"
NAME = f"{STEM}.weight"


def test_a_row_that_hqq_packed() -> None:
    """Four bits along axis 1: row 0 in the high half of a byte, row 1 in the low one."""
    codes = torch.tensor([[1, 2], [3, 4]])
    parts = hqq(STEM, codes, torch.tensor([0.5, 2.0]), torch.tensor([1.0, 3.5]), 4, 2, 1)
    assert parts[f"{STEM}.W_q"].tolist() == [[0x13, 0x24]]
    assert opened(parts).values(NAME).tolist() == [[0.0, 0.5], [-1.0, 1.0]]


@settings(max_examples=30, deadline=None)
@given(
    bits=st.sampled_from([8, 4, 3, 2, 1]),
    axis=st.sampled_from([0, 1]),
    group=st.sampled_from([8, 16, 32]),
    rows=st.sampled_from([16, 32]),
    first=st.integers(0, 24),
    count=st.integers(0, 24),
)
def test_values_are_code_minus_zero_times_scale(
    bits: int, axis: int, group: int, rows: int, first: int, count: int
) -> None:
    """Law: whatever the bits, the axis and the group, a stored code is its value, in bands too."""
    codes = codes_of((rows, 48), bits)
    groups = rows * 48 // group
    scales, zeros = scales_of((groups,)), 100 * scales_of((groups,), 3)
    reader = opened(hqq(STEM, codes, scales, zeros, bits, group, axis))
    grouped = codes.reshape((-1, group) if axis else (group, -1)).float()
    spread = [part.float().reshape((-1, 1) if axis else (1, -1)) for part in (zeros, scales)]
    expected = ((grouped - spread[0]) * spread[1]).reshape(rows, 48)
    assert torch.equal(reader.values(NAME), expected)
    assert torch.equal(reader.band(NAME, first, count), expected[first : first + count])


def test_a_band_reads_its_groups_only() -> None:
    """Along axis 1 a row is whole groups; along axis 0 every group crosses all rows."""
    for axis, bytes_of_two in ((1, 2 * (2 * 32 + 2 * 2 + 2 * 2)), (0, None)):
        parts = hqq(STEM, codes_of((32, 64), 8), scales_of((64,)), scales_of((64,)), 8, 32, axis)
        reader = opened(parts)
        before = reader.bytes_read
        reader.band(NAME, 4, 2)
        spent = reader.bytes_read - before
        assert spent == (bytes_of_two or 32 * 64 + 2 * 2 * 64)
        assert reader.band_bytes(NAME, 2) >= spent * 0.9


def test_numbers_that_contradict_the_codes_are_malformed() -> None:
    """A shape that the codes do not fill, groups that do not divide it, an axis that does not exist."""
    good = hqq(STEM, codes_of((8, 32), 4), scales_of((8,)), scales_of((8,)), 4, 32, 1)
    for part, value in (("shape", [8, 64]), ("group_size", 7), ("axis", 2), ("nbits", 2)):
        bad = torch.tensor(value, dtype=good[f"{STEM}.{part}"].dtype)
        with pytest.raises(MalformedWeightsError):
            opened(good | {f"{STEM}.{part}": bad})


PARTS: dict[str, dict[str, torch.Tensor]] = {
    "EXL2": {
        "q_weight": torch.zeros(4, 96, dtype=torch.int32),
        "q_invperm": torch.zeros(64, dtype=torch.int32),
        "q_scale": torch.zeros(2, 12, dtype=torch.int32),
        "q_scale_max": torch.zeros(2).half(),
        "q_groups": torch.zeros(4, dtype=torch.int16),
    },
    "EXL3": {
        "trellis": torch.zeros(4, 6, 48, dtype=torch.int16),
        "suh": torch.zeros(64).half(),
        "svh": torch.zeros(96).half(),
        "mcg": torch.zeros((), dtype=torch.int32),
    },
    "AQLM": {
        "codes": torch.zeros(96, 8, 1, dtype=torch.int16),
        "codebooks": torch.zeros(1, 16, 1, 8).half(),
        "scales": torch.zeros(96, 1, 1, 1).half(),
    },
    "QuIP#": {
        "Qidxs": torch.zeros(96, 8, dtype=torch.int64),
        "SU": torch.zeros(64).half(),
        "SV": torch.zeros(96).half(),
        "Wscale": torch.ones(()),
    },
}


@pytest.mark.parametrize("method", sorted(PARTS))
def test_a_method_with_known_shapes_is_unreadable_tensor_by_tensor(method: str) -> None:
    """Nothing came, nothing is gone, no layer is missing: what is not decoded is said so."""
    shape = zoo.Shape(hidden=64, inter=96, layers=2, heads=4, kv_heads=2, vocab=64)
    base = zoo.base(27, shape)
    stored: Tensors = {name: value for name, value in base.items() if "up_proj" not in name}
    for layer in range(2):
        stem = f"model.layers.{layer}.mlp.up_proj"
        stored |= {f"{stem}.{part}": value.clone() for part, value in PARTS[method].items()}
    reader = opened(stored)
    assert reader.tensors()[NAME].shape == base[NAME].shape
    assert reader.tensors()[NAME].dtype == method
    with pytest.raises(UnreadableTensorError, match=method):
        reader.values(NAME)
    diff = diff_weights(open_weights(one_file(base)), reader)
    statuses = {tensor.name: tensor.status for tensor in diff.tensors}
    assert statuses[NAME] is TensorStatus.UNREADABLE
    assert not {TensorStatus.ADDED, TensorStatus.MISSING} & set(statuses.values())
    assert EditKind.LAYER_SURGERY not in {edit.kind for edit in diff.edits}
    assert diff.lineage.status is not LineageStatus.UNRELATED


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("VPTQ", ("indices", "centroids.weight")),
        ("SpQR", ("dense_weights", "row_offsets")),
        ("HIGGS", ("tables", "tables2", "scales")),
        ("torchao", ("weight:_data", "weight:scale")),
        ("quanto", ("weight._data", "weight._scale")),
        ("Marlin", ("B", "s", "workspace")),
    ],
)
def test_a_method_whose_shapes_are_unknown_makes_the_checkpoint_unreadable(
    method: str, parts: tuple[str, ...]
) -> None:
    """Its parts are not taken for tensors that came."""
    with pytest.raises(UnreadableTensorError, match=f"by {method}"):
        opened({f"{STEM}.{part}": torch.zeros(4, 4) for part in parts})


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_parts_are_read_or_refused(data: st.DataObject) -> None:
    """Parts of any shape under any of the names."""
    method = data.draw(st.sampled_from(METHODS))
    names = (method.mark.removeprefix("."), *method.needed, *method.beside)
    shapes = st.lists(st.integers(0, 9), max_size=4)
    parts = {f"{STEM}.{name}": torch.zeros(data.draw(shapes)) for name in names if data.draw(st.booleans())}
    try:
        reader = open_weights({"model.safetensors": MemoryFile(save(parts))})
        for name in reader.tensors():
            reader.values(name)
    except DetectorError:
        return
