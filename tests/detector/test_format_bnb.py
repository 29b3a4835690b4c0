"""bitsandbytes checkpoints are read as codebook value × block scale, plain or nested, and int8 by row."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.compare import compare_pair
from detector.errors import MalformedWeightsError, UnreadableTensorError
from detector.grid import CODEBOOKS, half_step, quantise
from detector.interface import TensorStatus
from detector.pairing import Pair
from tests.detector.packing import Tensors, bnb4, codes_of, opened

NAME = "model.layers.0.mlp.down_proj.weight"
NF4_POSITIVE = [0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0]
"""QLoRA paper, appendix E, to four digits."""


def test_the_codebooks_are_the_published_ones() -> None:
    """NF4 as in the QLoRA paper; FP4 with its smallest value of 1/192."""
    assert [round(value, 4) for value in CODEBOOKS["nf4"][8:]] == NF4_POSITIVE
    assert list(CODEBOOKS["nf4"]) == sorted(CODEBOOKS["nf4"])
    assert sorted(CODEBOOKS["fp4"])[8:] == pytest.approx([0, 1 / 192, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 1.0])


def test_a_byte_by_hand() -> None:
    """0xF0: the first value is the block's scale, the second its negative."""
    codes = torch.zeros(1, 64, dtype=torch.int64)
    codes[0, 0] = 15
    parts = bnb4(NAME, codes, torch.tensor([0.5]))
    assert parts[NAME][0, 0] == 0xF0
    assert opened(parts).values(NAME)[0, :3].tolist() == [0.5, -0.5, -0.5]


@settings(max_examples=25, deadline=None)
@given(
    code=st.sampled_from(["nf4", "fp4"]),
    block=st.sampled_from([64, 128]),
    width=st.sampled_from([64, 40, 6, 33]),
    seed=st.integers(0, 99),
    first=st.integers(0, 16),
    rows=st.integers(0, 16),
)
def test_values_are_the_packed_ones(
    *, code: str, block: int, width: int, seed: int, first: int, rows: int
) -> None:
    """Law: value = codebook[code] · absmax[block], in bands that start inside a block or a byte too."""
    codes = codes_of((14, width), 4, seed)
    absmax = torch.rand(math.ceil(14 * width / block), generator=torch.Generator().manual_seed(seed))
    reader = opened(bnb4(NAME, codes, absmax, code=code, block=block))
    book = torch.tensor(CODEBOOKS[code])
    expected = book[codes] * absmax[torch.arange(14 * width) // block].reshape(14, width)
    assert reader.tensors()[NAME].shape == (14, width)
    assert reader.tensors()[NAME].dtype == f"BNB-{code.upper()}" + ("" if block == 64 else "-B128")
    assert torch.equal(reader.values(NAME), expected)
    assert torch.equal(reader.band(NAME, first, rows), expected[first : first + rows])


def nested(codes: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """Parts with 8-bit scales in outer blocks of 4, and the scales they stand for."""
    count = math.ceil(codes.numel() / 64)
    inner = codes_of((count,), 8, 7)
    book = torch.linspace(-1, 1, 256)
    outer = torch.rand(math.ceil(count / 4), generator=torch.Generator().manual_seed(5))
    parts = bnb4(
        NAME, codes, inner.to(torch.uint8), nested_blocksize=4, nested_offset=1.25, nested_dtype="float32"
    )
    parts |= {f"{NAME}.nested_absmax": outer, f"{NAME}.nested_quant_map": book}
    return parts, book[inner] * outer[torch.arange(count) // 4] + 1.25


def test_nested_scales_are_unfolded() -> None:
    """The scale of a block is nested_map[code] · nested_absmax + offset."""
    codes = codes_of((14, 64), 4)
    parts, scales = nested(codes)
    reader = opened(parts)
    expected = torch.tensor(CODEBOOKS["nf4"])[codes] * scales[:, None]
    assert reader.tensors()[NAME].dtype == "BNB-NF4-NESTED"
    assert list(reader.tensors()) == [NAME]
    assert torch.equal(reader.values(NAME), expected)
    assert torch.equal(reader.band(NAME, 5, 6), expected[5:11])


def test_nothing_but_the_band_is_read() -> None:
    """A band costs its own bytes and scales, so that a fork can be sketched remotely."""
    reader = opened(bnb4(NAME, codes_of((64, 128), 4), torch.ones(128)))
    before = reader.bytes_read
    reader.band(NAME, 10, 2)
    assert reader.bytes_read - before == 2 * 64 + 4 * 4


@pytest.mark.parametrize(("code", "dtype"), [("nf4", "BNB-NF4"), ("fp4", "BNB-FP4")])
def test_quantising_the_original_recreates_the_codes(code: str, dtype: str) -> None:
    """Nearest values of the codebook, found by trying all sixteen, are what the comparison re-creates."""
    values = torch.randn(8, 128, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    blocks = values.float().reshape(-1, 64)
    absmax = blocks.abs().amax(1)
    book = torch.tensor(CODEBOOKS[code])
    codes = (blocks[..., None] / absmax[:, None, None] - book).abs().argmin(-1).reshape(8, 128)
    original, fork = opened({NAME: values}), opened(bnb4(NAME, codes, absmax, code=code))
    pair = Pair(NAME, original.tensors()[NAME], fork.tensors()[NAME])
    comparison = compare_pair(pair, original, fork)
    assert (comparison.status, comparison.scheme) == (TensorStatus.CAST, dtype)


@pytest.mark.parametrize("dtype", ["BNB-NF4", "BNB-FP4"])
@settings(deadline=None)
@given(seed=st.integers(0, 50))
def test_original_lies_within_half_a_step(dtype: str, seed: int) -> None:
    """Law: rounded values lie within `half_step` of what they were."""
    values = torch.randn(4, 128, generator=torch.Generator().manual_seed(seed))
    stored = quantise(values, dtype)
    half = half_step(stored, dtype)
    assert half is not None
    assert bool(((values - stored).abs() <= half).all())


def int8(values: torch.Tensor) -> Tensors:
    """LLM.int8 parts of a matrix."""
    largest = values.abs().amax(1)
    codes = torch.round(values * (127 / largest)[:, None]).to(torch.int8)
    return {
        NAME: codes,
        NAME.replace(".weight", ".SCB"): largest,
        f"{NAME}_format": torch.tensor(0, dtype=torch.uint8),
    }


def test_int8_rows() -> None:
    """value = code · SCB / 127; the original lies within half a step."""
    values = torch.randn(8, 32, generator=torch.Generator().manual_seed(1))
    parts = int8(values)
    reader = opened(parts)
    assert [(info.name, info.dtype) for info in reader.tensors().values()] == [(NAME, "BNB-INT8")]
    stored = reader.values(NAME)
    assert torch.equal(stored, parts[NAME].float() * (values.abs().amax(1) / 127)[:, None])
    assert torch.equal(reader.band(NAME, 3, 2), stored[3:5])
    half = half_step(stored, "BNB-INT8")
    assert half is not None
    assert bool(((values - stored).abs() <= half).all())


def test_tiled_int8_is_unreadable() -> None:
    """Weights reordered for one kernel are named and left alone."""
    parts = int8(torch.randn(8, 32, generator=torch.Generator().manual_seed(1)))
    reader = opened(parts | {f"{NAME}_format": torch.tensor(1, dtype=torch.uint8)})
    with pytest.raises(UnreadableTensorError, match="tiled"):
        reader.values(NAME)


def test_another_codebook_is_unreadable() -> None:
    """A codebook that is not the one of its name would be ignored by the kernels: which counts is unclear."""
    parts = bnb4(NAME, codes_of((2, 64), 4), torch.ones(2)) | {f"{NAME}.quant_map": torch.linspace(-1, 1, 16)}
    with pytest.raises(UnreadableTensorError, match="not NF4"):
        opened(parts).values(NAME)


GOOD = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [2, 64]}


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 4000,
        b"\xff\xfe",
        b" " * 5000,
        json.dumps(GOOD | {"quant_type": "fp4"}).encode(),
        json.dumps(GOOD | {"shape": [2, 65]}).encode(),
        json.dumps(GOOD | {"shape": [1 << 39, 1 << 39]}).encode(),
        json.dumps(GOOD | {"shape": [-2, -64]}).encode(),
        json.dumps(GOOD | {"shape": [True, 128]}).encode(),
        json.dumps(GOOD | {"shape": None}).encode(),
        json.dumps(GOOD | {"shape": []}).encode(),
        json.dumps(GOOD | {"blocksize": 0}).encode(),
        json.dumps(GOOD | {"blocksize": 1}).encode(),
        json.dumps(GOOD | {"blocksize": "64"}).encode(),
        json.dumps(GOOD | {"blocksize": 1 << 40}).encode(),
        json.dumps(GOOD | {"nested_blocksize": -1}).encode(),
        b'{"quant_type": "nf4", "blocksize": 64, "shape": [2, 64], "nested_offset": Infinity}',
    ],
)
def test_a_hostile_state_is_malformed(state: bytes) -> None:
    """Every size in a state is checked against the codes before anything is allocated."""
    parts = bnb4(NAME, codes_of((2, 64), 4), torch.ones(2))
    parts[f"{NAME}.quant_state.bitsandbytes__nf4"] = torch.tensor(list(state), dtype=torch.uint8)
    with pytest.raises(MalformedWeightsError):
        opened(parts)
