"""compressed-tensors integers and four-bit floats in small blocks are read as their descriptions say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.errors import MalformedWeightsError
from tests.detector.packing import Tensors, codes_of, opened, scales_of, words_along_columns, words_along_rows

STEM = "model.layers.0.mlp.gate_proj"
NAME = f"{STEM}.weight"
E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]


def packed(codes: torch.Tensor, scales: torch.Tensor, bits: int = 4) -> Tensors:
    """Parts of (out, in) codes from 0 to 2^bits − 1, padded to whole words."""
    fields = 32 // bits
    padded = torch.nn.functional.pad(codes, (0, -codes.shape[1] % fields))
    return {
        f"{STEM}.weight_packed": words_along_columns(padded, bits),
        f"{STEM}.weight_scale": scales,
        f"{STEM}.weight_shape": torch.tensor(codes.shape, dtype=torch.int64),
    }


def test_a_word_by_hand() -> None:
    """0x76543210 holds −8 to −1: codes are shifted by eight to be positive."""
    parts = {
        f"{STEM}.weight_packed": torch.full((1, 1), 0x76543210, dtype=torch.int32),
        f"{STEM}.weight_scale": torch.full((1, 1), 0.5, dtype=torch.bfloat16),
        f"{STEM}.weight_shape": torch.tensor([1, 8]),
    }
    assert opened(parts).values(NAME).tolist() == [[-4.0, -3.5, -3.0, -2.5, -2.0, -1.5, -1.0, -0.5]]


@settings(max_examples=25, deadline=None)
@given(
    bits=st.sampled_from([4, 8]),
    width=st.sampled_from([32, 64, 36]),
    grouped=st.booleans(),
    asymmetric=st.booleans(),
    seed=st.integers(0, 99),
    first=st.integers(0, 26),
    rows=st.integers(0, 26),
)
def test_values_are_the_packed_ones(
    *, bits: int, width: int, grouped: bool, asymmetric: bool, seed: int, first: int, rows: int
) -> None:
    """Law: (code − zero) · scale comes back exactly, for padded words and bands inside a word too."""
    count = 2 if grouped else 1
    codes, scales = codes_of((24, width), bits, seed), scales_of((24, count), seed)
    parts, zeros = packed(codes, scales, bits), torch.full((24, count), 1 << (bits - 1))
    if asymmetric:
        zeros = codes_of((24, count), bits, seed + 1)
        parts[f"{STEM}.weight_zero_point"] = words_along_rows(zeros, bits)
    reader = opened(parts)
    groups = torch.arange(width) // (width // count)
    expected = (codes - zeros[:, groups]).float() * scales[:, groups].float()
    assert reader.tensors()[NAME].dtype == f"CT-INT{bits}-" + (f"G{width // 2}" if grouped else "ROW")
    assert list(reader.tensors()) == [NAME]
    assert torch.equal(reader.values(NAME), expected)
    assert torch.equal(reader.band(NAME, first, rows), expected[first : first + rows])


def test_groups_in_activation_order() -> None:
    """`weight_g_idx` says which group an input belongs to."""
    codes, scales = codes_of((8, 32), 4), scales_of((8, 2))
    order = codes_of((32,), 1, 9)
    reader = opened(packed(codes, scales) | {f"{STEM}.weight_g_idx": order.to(torch.int32)})
    assert reader.tensors()[NAME].dtype.endswith("-ACTORDER")
    assert torch.equal(reader.values(NAME), (codes - 8).float() * scales[:, order].float())


@pytest.mark.parametrize("shape", [[8, 33], [9, 32], [-8, 32], [8, 1 << 60], [8, 0]])
def test_a_false_shape_is_malformed(shape: list[int]) -> None:
    """The shape that the file states must be the one its words hold."""
    parts = packed(codes_of((8, 32), 4), scales_of((8, 1)))
    with pytest.raises(MalformedWeightsError):
        opened(parts | {f"{STEM}.weight_shape": torch.tensor(shape)})


def floats(codes: torch.Tensor) -> torch.Tensor:
    return torch.tensor(E2M1)[codes]


def bytes_of(codes: torch.Tensor) -> torch.Tensor:
    """Two codes a byte, the first in the low half."""
    return (codes[..., 0::2] + 16 * codes[..., 1::2]).to(torch.uint8)


def test_experts_of_gpt_oss() -> None:
    """`_blocks` and `_scales` make one tensor (experts, in, out); exponent 127 is a factor of one."""
    codes = codes_of((3, 10, 2, 32), 4)
    exponents = 120 + codes_of((3, 10, 2), 4, 5)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    reader = opened(
        {
            f"{name}_blocks": bytes_of(codes),
            f"{name}_scales": exponents.to(torch.uint8),
            f"{name}_bias": torch.ones(3, 10),
        }
    )
    expected = floats(codes) * torch.pow(2.0, exponents.float() - 127)[..., None]
    expected = expected.reshape(3, 10, 64).transpose(1, 2)
    assert sorted(reader.tensors()) == [name, f"{name}_bias"]
    assert reader.tensors()[name].shape == (3, 64, 10)
    assert torch.equal(reader.values(name), expected)
    assert torch.equal(reader.band(name, 1, 1), expected[1:2])


def test_experts_are_what_transformers_makes_of_them() -> None:
    """The dequantiser that transformers uses for gpt-oss gives the same values, random exponents included."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    blocks = codes_of((3, 10, 2, 16), 8).to(torch.uint8)
    exponents = (110 + codes_of((3, 10, 2), 4)).to(torch.uint8)
    name = "model.layers.0.mlp.experts.down_proj"
    values = opened({f"{name}_blocks": blocks, f"{name}_scales": exponents}).values(name)
    assert torch.equal(values, convert_moe_packed_tensors(blocks, exponents).float())


@pytest.mark.parametrize(
    ("leaf", "factor"), [("weight_packed", "weight_global_scale"), ("weight", "weight_scale_2")]
)
def test_nvfp4(leaf: str, factor: str) -> None:
    """The tensor's factor divides the block scales in compressed-tensors and multiplies them in ModelOpt."""
    codes = codes_of((4, 64), 4)
    scales = (torch.rand(4, 4, generator=torch.Generator().manual_seed(2)) + 0.5).to(torch.float8_e4m3fn)
    parts = {
        f"{STEM}.{leaf}": bytes_of(codes),
        f"{STEM}.weight_scale": scales,
        f"{STEM}.{factor}": torch.tensor([0.25]),
        f"{STEM}.input_global_scale": torch.tensor([3.0]),
    }
    reader = opened(parts)
    whole = scales.float() * (0.25 if leaf == "weight" else 4.0)
    assert list(reader.tensors()) == [NAME]
    assert reader.tensors()[NAME].dtype == "NVFP4-G16"
    assert torch.equal(reader.values(NAME), floats(codes) * whole.repeat_interleave(16, 1))


def test_mxfp4_linear() -> None:
    """Exponents for 32 inputs each."""
    codes, exponents = codes_of((4, 64), 4), 120 + codes_of((4, 2), 4, 5)
    reader = opened(
        {f"{STEM}.weight_packed": bytes_of(codes), f"{STEM}.weight_scale": exponents.to(torch.uint8)}
    )
    expected = floats(codes) * torch.pow(2.0, exponents.float() - 127).repeat_interleave(32, 1)
    assert torch.equal(reader.band(NAME, 1, 2), expected[1:3])
