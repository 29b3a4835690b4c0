"""GPTQ and AWQ are read as (code − zero) · scale in their own bit orders, and told apart by shapes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.errors import MalformedWeightsError, UnreadableTensorError
from tests.detector.packing import Tensors, awq, codes_of, gptq, opened, scales_of

STEM = "model.layers.0.self_attn.q_proj"
NAME = f"{STEM}.weight"
V1 = {
    "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq"}
}
V2 = {"quantization_config": {"quant_method": "gptq", "checkpoint_format": "gptq_v2"}}


def dequantised(
    codes: torch.Tensor, zeros: torch.Tensor, scales: torch.Tensor, groups: torch.Tensor
) -> torch.Tensor:
    """(in, out) codes → (out, in) values, by the formula."""
    return ((codes - zeros[groups]).float() * scales[groups].float()).T


def test_a_gptq_word_by_hand() -> None:
    """0x76543210 holds codes 0 to 7 for inputs 0 to 7; a stored zero of 7 is a zero of 8."""
    parts = {
        f"{STEM}.qweight": torch.full((1, 8), 0x76543210, dtype=torch.int32),
        f"{STEM}.qzeros": torch.tensor([[0x77777777]], dtype=torch.int32),
        f"{STEM}.scales": torch.full((1, 8), 0.5, dtype=torch.float16),
    }
    values = opened(parts).values(NAME)
    assert values[3].tolist() == [-4.0, -3.5, -3.0, -2.5, -2.0, -1.5, -1.0, -0.5]


def test_an_awq_word_by_hand() -> None:
    """0x76543210 holds, for outputs 0 to 7, codes 0, 4, 1, 5, 2, 6, 3, 7."""
    parts = {
        f"{STEM}.qweight": torch.full((2, 1), 0x76543210, dtype=torch.int32),
        f"{STEM}.qzeros": torch.zeros(1, 1, dtype=torch.int32),
        f"{STEM}.scales": torch.ones(1, 8, dtype=torch.float16),
    }
    assert opened(parts).values(NAME)[:, 1].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


@settings(max_examples=25, deadline=None)
@given(
    bits=st.sampled_from([2, 3, 4, 8]),
    version=st.sampled_from([1, 2]),
    act_order=st.booleans(),
    seed=st.integers(0, 99),
    first=st.integers(0, 70),
    rows=st.integers(0, 70),
)
def test_gptq_values_are_the_packed_ones(
    *, bits: int, version: int, act_order: bool, seed: int, first: int, rows: int
) -> None:
    """Law: what was packed comes back exactly, at every width, in both versions, with groups in any order."""
    codes, zeros, scales = (
        codes_of((64, 64), bits, seed),
        codes_of((2, 64), bits, seed + 1),
        scales_of((2, 64), seed),
    )
    groups = torch.arange(64) // 32
    if act_order:
        groups = groups[torch.randperm(64, generator=torch.Generator().manual_seed(seed))]
    parts = gptq(STEM, codes, zeros, scales, bits=bits, version=version, order=groups if act_order else None)
    reader = opened(parts, V1 if version == 1 else V2)
    expected = dequantised(codes, zeros, scales, groups)
    assert reader.tensors()[NAME].dtype == f"GPTQ-INT{bits}-G32"
    assert torch.equal(reader.values(NAME), expected)
    assert torch.equal(reader.band(NAME, first, rows), expected[first : first + rows])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), first=st.integers(0, 70), rows=st.integers(0, 70), grouped=st.booleans())
def test_awq_values_are_the_packed_ones(*, seed: int, first: int, rows: int, grouped: bool) -> None:
    """Law: what was packed comes back exactly, in bands that start inside a word too."""
    count = 3 if grouped else 1
    codes, zeros, scales = (
        codes_of((48, 64), 4, seed),
        codes_of((count, 64), 4, seed + 1),
        scales_of((count, 64)),
    )
    reader = opened(awq(STEM, codes, zeros, scales))
    expected = dequantised(codes, zeros, scales, torch.arange(48) // (48 // count))
    assert reader.tensors()[NAME].dtype == ("AWQ-INT4-G16" if grouped else "AWQ-INT4-ROW")
    assert reader.tensors()[NAME].shape == (64, 48)
    assert torch.equal(reader.values(NAME), expected)
    assert torch.equal(reader.band(NAME, first, rows), expected[first : first + rows])


def test_parts_are_no_tensors_of_their_own() -> None:
    """Only the layer itself is seen, its bias and plain neighbours beside it."""
    parts = gptq(STEM, codes_of((32, 32), 4), torch.full((1, 32), 8), scales_of((1, 32)))
    plain = {f"{STEM}.bias": torch.ones(32), "model.norm.weight": torch.ones(32)}
    reader = opened(parts | plain)
    assert list(reader.tensors()) == [f"{STEM}.bias", NAME, "model.norm.weight"]
    assert reader.tensors()[NAME].nbytes == len(reader.raw(NAME)) == 32 * 32 // 2 + 32 // 2 + 64


@pytest.mark.parametrize("pack", [gptq, awq])
def test_a_band_costs_the_whole_layer(pack: Callable[..., Tensors]) -> None:
    """Rows lie across the words: a band is announced at its cost, and the next of its layer costs little."""
    parts = pack(STEM, codes_of((64, 64), 4), torch.full((2, 64), 8), scales_of((2, 64)))
    plain = torch.zeros(64, 64)
    reader = opened(parts | {"model.norm.weight": plain})
    assert reader.band_bytes("model.norm.weight", 2) == 2 * 64 * 4
    assert reader.band_bytes(NAME, 2) == reader.tensors()[NAME].nbytes
    before = reader.bytes_read
    reader.band(NAME, 3, 2)
    assert reader.bytes_read - before == reader.tensors()[NAME].nbytes
    before = reader.bytes_read
    reader.band(NAME, 5, 2)
    assert reader.bytes_read - before < 64 * 64 // 2


@pytest.mark.parametrize("version", [1, 2])
def test_symmetric_zeros_tell_the_version(version: int) -> None:
    """Without a configuration, zeros that all lie in the middle say which convention they follow."""
    codes, scales = codes_of((32, 32), 4), scales_of((1, 32))
    zeros = torch.full((1, 32), 8)
    values = opened(gptq(STEM, codes, zeros, scales, version=version)).values(NAME)
    assert torch.equal(values, dequantised(codes, zeros, scales, torch.zeros(32, dtype=torch.int64)))


def test_asymmetric_zeros_without_a_configuration_are_unreadable() -> None:
    """A convention that is not known is not guessed: off by one, every value would be off by a step."""
    reader = opened(gptq(STEM, codes_of((32, 32), 4), codes_of((1, 32), 4), scales_of((1, 32))))
    with pytest.raises(UnreadableTensorError, match="which GPTQ version"):
        reader.values(NAME)


def test_shuffled_layouts_are_unreadable() -> None:
    """Words laid out for one kernel are named and left alone."""
    parts = gptq(STEM, codes_of((32, 32), 4), torch.full((1, 32), 8), scales_of((1, 32)))
    reader = opened(parts, {"quantization_config": {"quant_method": "gptq", "checkpoint_format": "marlin"}})
    with pytest.raises(UnreadableTensorError, match="marlin"):
        reader.values(NAME)


def test_awq_for_the_other_kernel_is_unreadable() -> None:
    """AutoAWQ's GEMV layout is recognised by its heights and not decoded."""
    parts = {
        f"{STEM}.qweight": torch.zeros(32, 16, dtype=torch.int32),
        f"{STEM}.qzeros": torch.zeros(32, 1, dtype=torch.int32),
        f"{STEM}.scales": torch.ones(32, 8, dtype=torch.float16),
    }
    reader = opened(parts)
    assert (reader.tensors()[NAME].dtype, reader.tensors()[NAME].shape) == ("AWQ-GEMV", (32, 128))
    with pytest.raises(UnreadableTensorError, match="GEMV"):
        reader.band(NAME, 0, 1)


@pytest.mark.parametrize("index", [-1, 2, 1 << 30])
def test_groups_that_do_not_exist_are_malformed(index: int) -> None:
    """A group index outside the scales is refused before it is used."""
    order = torch.zeros(32, dtype=torch.int64)
    order[5] = index
    parts = gptq(STEM, codes_of((32, 32), 4), torch.full((2, 32), 8), scales_of((2, 32)), order=order)
    with pytest.raises(MalformedWeightsError, match="does not exist"):
        opened(parts).values(NAME)


def test_a_short_group_index_is_malformed() -> None:
    """A group index of another length than the inputs is refused at once."""
    parts = gptq(
        STEM, codes_of((32, 32), 4), torch.full((1, 32), 8), scales_of((1, 32)), order=torch.zeros(31)
    )
    with pytest.raises(MalformedWeightsError, match="31"):
        opened(parts)
