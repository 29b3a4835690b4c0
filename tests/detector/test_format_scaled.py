"""FP8 and int8 weights with scales beside them are read as code × scale, whatever the scales are for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.compare import compare_pair
from detector.errors import UnreadableTensorError
from detector.grid import half_step
from detector.interface import TensorStatus
from detector.pairing import Pair
from tests.detector.packing import opened

NAME = "model.layers.0.mlp.up_proj.weight"
GENERATOR = torch.Generator().manual_seed(3)
VALUES = torch.randn(300, 200, generator=GENERATOR)
KINDS = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}


def test_bytes_mean_what_the_standard_says() -> None:
    """E4M3: 0x38 is 1, 0x40 is 2, 0x7e is 448, 0x01 is 2^-9; a scale of one half halves them."""
    codes = torch.tensor([[0x38, 0x40, 0x7E, 0x01]], dtype=torch.uint8).view(torch.float8_e4m3fn)
    reader = opened({NAME: codes, f"{NAME}_scale": torch.tensor(0.5)})
    assert reader.values(NAME).tolist() == [[0.5, 1.0, 224.0, 2.0**-10]]


@pytest.mark.parametrize("dtype", sorted(KINDS))
@pytest.mark.parametrize(
    ("suffix", "shape", "block", "grain"),
    [
        ("_scale", (), (300, 200), "TENSOR"),
        ("_scale", (1,), (300, 200), "TENSOR"),
        ("_scale", (300,), (1, 200), "ROW"),
        ("_scale", (300, 1), (1, 200), "ROW"),
        ("_scale", (300, 25), (1, 8), "G8"),
        ("_scale_inv", (3, 2), (128, 128), "BLOCK"),
        ("_scale_inv", (1, 2), (300, 100), "BLOCK300X100"),
    ],
)
def test_values_are_code_times_scale(
    dtype: str, suffix: str, shape: tuple[int, ...], block: tuple[int, int], grain: str
) -> None:
    """Every value is its code times the scale of its own block, in whole tensors and in bands."""
    codes = VALUES.to(KINDS[dtype])
    scales = torch.rand(shape, generator=GENERATOR) + 0.5
    reader = opened(
        {NAME: codes, NAME + suffix: scales, "model.layers.0.mlp.up_proj.input_scale": torch.ones(1)}
    )
    assert list(reader.tensors()) == [NAME]
    assert reader.tensors()[NAME].dtype == f"{dtype}-{grain}"
    flat = scales.reshape(-(-300 // block[0]), -(-200 // block[1]))
    expected = torch.stack(
        [codes[row].float() * flat[row // block[0], torch.arange(200) // block[1]] for row in range(300)]
    )
    assert torch.equal(reader.values(NAME), expected)
    assert torch.equal(reader.band(NAME, 127, 20), expected[127:147])


def test_experts_keep_their_own_scales() -> None:
    """A stack of experts has a scale for each block of each expert."""
    codes = torch.randn(3, 130, 64, generator=GENERATOR).to(torch.float8_e4m3fn)
    scales = torch.rand(3, 2, 1, generator=GENERATOR)
    name = "model.layers.0.mlp.experts.down_proj"
    values = opened({name: codes, f"{name}_scale_inv": scales}).band(name, 1, 2)
    assert torch.equal(values[1, 129], codes[2, 129].float() * scales[2, 1, 0])
    assert torch.equal(values[0, 0], codes[1, 0].float() * scales[1, 0, 0])


def test_int8_with_zero_points() -> None:
    """compressed-tensors int8: (code − zero) · scale, by row."""
    codes = torch.randint(-128, 128, (6, 8), generator=GENERATOR, dtype=torch.int8)
    zeros = torch.tensor([[1], [0], [-3], [5], [0], [2]], dtype=torch.int8)
    scales = torch.rand(6, 1, generator=GENERATOR)
    reader = opened({NAME: codes, f"{NAME}_scale": scales, f"{NAME}_zero_point": zeros})
    assert reader.tensors()[NAME].dtype == "I8-ROW"
    assert torch.equal(reader.values(NAME), (codes.float() - zeros.float()) * scales)


def test_microscaling_exponents_are_scales() -> None:
    """Scales of type E8M0 are powers of two: 0x7f is 1, 0x80 is 2."""
    codes = torch.ones(1, 64).to(torch.float8_e4m3fn)
    scales = torch.tensor([[0x7F, 0x80]], dtype=torch.uint8).view(torch.float8_e8m0fnu)
    values = opened({NAME: codes, f"{NAME}_scale": scales}).values(NAME)
    assert values.tolist() == [[1.0] * 32 + [2.0] * 32]


def test_scales_of_an_unknown_shape_are_unreadable() -> None:
    """Scales that fit no block leave the tensor in its place, unmeasured."""
    reader = opened({NAME: VALUES.to(torch.float8_e4m3fn), f"{NAME}_scale": torch.ones(7, 11, 3)})
    assert reader.tensors()[NAME].shape == (300, 200)
    with pytest.raises(UnreadableTensorError, match="not understood"):
        reader.values(NAME)


def test_fp8_without_scales_is_a_cast() -> None:
    """A plain cast to FP8 is recognised as one, value by value."""
    weights = (0.05 * VALUES).to(torch.bfloat16)
    original, fork = opened({NAME: weights}), opened({NAME: weights.to(torch.float8_e4m3fn)})
    pair = Pair(NAME, original.tensors()[NAME], fork.tensors()[NAME])
    assert compare_pair(pair, original, fork).status is TensorStatus.CAST


@pytest.mark.parametrize("dtype", sorted(KINDS))
@settings(deadline=None)
@given(seed=st.integers(0, 50), size=st.floats(1e-3, 10), columns=st.sampled_from([64, 200]))
def test_original_lies_within_half_a_step(dtype: str, seed: int, size: float, columns: int) -> None:
    """Law: values rounded to FP8, under scales by row or by group of any size, lie within `half_step`."""
    generator = torch.Generator().manual_seed(seed)
    width = 200
    values = (
        size
        * torch.randn(4, width, generator=generator)
        * 10 ** torch.randint(-3, 4, (width,), generator=generator)
    )
    stored = torch.empty_like(values)
    for first in range(0, width, columns):
        part = values[:, first : first + columns]
        scales = part.abs().amax(1, keepdim=True) / torch.finfo(KINDS[dtype]).max
        quotient = (part / scales).to(torch.bfloat16)  # as pipelines that work in the model's own type
        stored[:, first : first + columns] = quotient.to(KINDS[dtype]).float() * scales
    half = half_step(stored, f"{dtype}-ROW" if columns == width else f"{dtype}-G{columns}")
    assert half is not None
    assert bool(((values - stored).abs() <= half).all())
