"""MLX checkpoints are read as MLX dequantises them, whatever bits and groups their shapes leave open."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.compare import compare_pair
from detector.diff import diff_weights
from detector.errors import MalformedWeightsError, UnreadableTensorError
from detector.formats import open_weights
from detector.interface import EditKind, LineageStatus
from detector.pairing import pair_tensors
from tests.detector import zoo
from tests.detector.packing import Tensors, codes_of, mlx, opened, scales_of
from tests.detector.zoo import one_file

STEM = "model.layers.0.mlp.gate_proj"
NAME = f"{STEM}.weight"


def words(*numbers: int) -> torch.Tensor:
    signed = [number - (1 << 32) if number >> 31 else number for number in numbers]
    return torch.tensor([signed], dtype=torch.int32).view(torch.uint32)


GOLDEN: dict[str, tuple[Tensors, list[float]]] = {
    "MLX-INT4-G64": (
        {
            "weight": words(
                417710736, 2995743802, 1546254036, 4140015742, 2674739736, 973595826, 3567357532, 2118854902
            ),
            "scales": torch.tensor([[0.25]]),
            "biases": torch.tensor([[-2.0]]),
        },
        [-2.0, 0.25, -1.5, 1.0, -0.75, 1.5, 0.0, -1.75, 0.5, -1.25, 1.0, -0.5, 1.75, 0.0, -1.5, 0.75],
    ),
    "MLX-INT3-G32": (
        {
            "weight": words(2501094504, 3472533111, 4012517208),
            "scales": torch.tensor([[0.5]]),
            "biases": torch.tensor([[-2.0]]),
        },
        [-2.0, 0.5, -1.5, 1.0, -1.0, 1.5, 0.0, -2.0, 0.5, -1.0, 1.0, -0.5, 1.5, 0.0, -1.5, 0.5],
    ),
    "MLX-MXFP4-G32": (
        {
            "weight": words(3764079902, 1023780034, 3016845660, 1514942101),
            "scales": torch.tensor([[126]], dtype=torch.uint8),
        },
        [-2.0, 0.25, -1.5, 1.0, -0.75, 1.5, 0.0, -2.0, 0.5, -1.0, 1.0, -0.5, 1.5, 0.0, -1.5, 0.75],
    ),
    "MLX-MXFP8-G32": (
        {
            "weight": words(
                1878221560, 4141380844, 3916558952, 1811239030, 2028237552, 3983471712, 1727519860, 1995075826
            ),
            "scales": torch.tensor([[120]], dtype=torch.uint8),
        },
        [-2.0, 0.3125, -1.375, 0.9375, -0.75, 1.5, -0.125, -1.75, 0.5, -1.25, 1.125, -0.5625, 1.75, 0.0625],
    ),
    "MLX-NVFP4-G16": (
        {
            "weight": words(4184628783, 1309128147, 3588389485, 2086551446),
            "scales": torch.tensor([[43, 42]], dtype=torch.uint8),
        },
        [-2.0625, 0.34375, -1.375, 1.03125, -0.6875, 1.375, -0.171875, -2.0625, 0.515625, -1.03125, 1.03125],
    ),
}
"""What mlx 0.32.4 makes of one row, and what it makes of that again."""


@pytest.mark.parametrize("scheme", sorted(GOLDEN))
def test_a_row_that_mlx_packed(scheme: str) -> None:
    """Words, scales and biases written by MLX itself."""
    parts, expected = GOLDEN[scheme]
    reader = opened({f"{STEM}.{part}": value for part, value in parts.items()})
    assert reader.tensors()[NAME].dtype == scheme
    assert reader.values(NAME)[0, : len(expected)].tolist() == expected


@settings(max_examples=25, deadline=None)
@given(
    bits=st.sampled_from([2, 3, 4, 5, 6, 8]),
    group=st.sampled_from([32, 64, 128]),
    groups=st.integers(1, 2),
    rows=st.integers(1, 4),
    stacked=st.booleans(),
)
def test_values_are_code_times_scale_plus_bias(
    bits: int, group: int, groups: int, rows: int, stacked: bool
) -> None:
    """Law: with the configuration's word for bits and group, a stored code is its value, in stacks too."""
    shape = (2, rows, group * groups) if stacked else (rows, group * groups)
    codes, scales = codes_of(shape, bits), scales_of((*shape[:-1], groups))
    biases = -scales_of((*shape[:-1], groups), 3)
    reader = opened(
        mlx(STEM, codes, scales, biases, bits), {"quantization": {"bits": bits, "group_size": group}}
    )
    spread = [part.float().repeat_interleave(group, -1) for part in (scales, biases)]
    expected = codes * spread[0] + spread[1]
    assert reader.tensors()[NAME].dtype == f"MLX-INT{bits}-G{group}"
    assert torch.equal(reader.values(NAME), expected)
    assert torch.equal(reader.band(NAME, 1, 2), expected[1:3])


def test_a_module_may_have_bits_of_its_own() -> None:
    """What the configuration says of a module comes before what it says of all, shapes before both."""
    parts = mlx(STEM, codes_of((4, 128), 8), scales_of((4, 4)), scales_of((4, 4)), 8)
    for config in (
        {"quantization": {"bits": 4, "group_size": 64, STEM: {"bits": 8, "group_size": 32}}},
        {
            "quantization": {
                "bits": 8,
                "group_size": 32,
                STEM: {"bits": 3, "group_size": 32},
                "x.y": {"bits": 2},
            }
        },
        {"quantization": {"bits": 8, "group_size": 32, STEM: False}},
    ):
        dtype = opened(parts, config).tensors()[NAME].dtype
        assert dtype == (
            "MLX-INT4-G64"
            if config["quantization"].get(STEM) == {"bits": 3, "group_size": 32}
            else "MLX-INT8-G32"
        )


def test_a_band_reads_its_rows_only() -> None:
    """Rows are packed on their own."""
    reader = opened(mlx(STEM, codes_of((32, 64), 4), scales_of((32, 1)), scales_of((32, 1))))
    before = reader.bytes_read
    reader.band(NAME, 4, 2)
    assert reader.bytes_read - before == 2 * (32 + 2 + 2) == reader.band_bytes(NAME, 2)


def test_shapes_that_leave_the_bits_open_are_unreadable() -> None:
    """8 bits in groups of 64 or 4 in groups of 128: without a configuration neither is guessed."""
    reader = opened(mlx(STEM, codes_of((4, 128), 4), scales_of((4, 1)), scales_of((4, 1))))
    with pytest.raises(UnreadableTensorError, match="leave the bits open"):
        reader.values(NAME)


def test_parts_that_contradict_each_other_are_malformed() -> None:
    """Scales of other rows, biases of another shape."""
    good = mlx(STEM, codes_of((4, 64), 4), scales_of((4, 1)), scales_of((4, 1)))
    for part in ("scales", "biases"):
        with pytest.raises(MalformedWeightsError):
            opened(good | {f"{STEM}.{part}": torch.ones(3, 1)})


def quantised(name: str, value: torch.Tensor, group: int = 32) -> Tensors:
    grouped = value.reshape(*value.shape[:-1], -1, group)
    low, high = grouped.amin(-1), grouped.amax(-1)
    scales = ((high - low) / 15).bfloat16()
    biases = low.bfloat16()
    codes = ((grouped - biases.float()[..., None]) / scales.float()[..., None]).round().clamp(0, 15).long()
    return mlx(name.removesuffix(".weight"), codes.reshape(value.shape), scales, biases)


def test_a_quantised_fork_is_quantised_and_nothing_else() -> None:
    """Embedding and linear layers in MLX's four bits."""
    base = zoo.base(14, zoo.Shape(hidden=64, inter=128, layers=3, heads=4, kv_heads=2, vocab=128))
    stored: Tensors = {}
    for name, value in base.items():
        stored |= quantised(name, value.float()) if value.dim() == 2 else {name: value}
    fork = opened(stored, {"quantization": {"bits": 4, "group_size": 32, "mode": "affine"}})
    diff = diff_weights(open_weights(one_file(base)), fork)
    assert [(edit.kind, edit.detail.scheme) for edit in diff.edits] == [(EditKind.QUANTIZED, "MLX-INT4-G32")]
    assert diff.lineage.status is LineageStatus.PROVED


def test_stacked_experts_are_compared_one_by_one() -> None:
    """mlx-lm stacks experts under `switch_mlp`; the original has them apart."""
    generator = torch.Generator().manual_seed(2)
    original, stored = {}, {}
    for theirs, ours, shape in (
        ("gate_proj", "w1", (6, 32)),
        ("down_proj", "w2", (32, 64)),
        ("up_proj", "w3", (6, 32)),
    ):
        values = [torch.randn(shape, generator=generator) for _ in range(3)]
        stem = "model.layers.0.block_sparse_moe"
        original |= {f"{stem}.experts.{index}.{ours}.weight": value for index, value in enumerate(values)}
        stored |= quantised(f"{stem}.switch_mlp.{theirs}.weight", torch.stack(values))
    left = open_weights(one_file(original))
    right = opened(stored, {"quantization": {"bits": 4, "group_size": 32}})
    pairing = pair_tensors(left.tensors(), right.tensors())
    assert not pairing.added
    assert len(pairing.pairs) == len(original)
    assert all(compare_pair(pair, left, right).relative_norm < 0.12 for pair in pairing.pairs)
