"""Statistics of a change agree with the plain formulas, for every pair of types."""

from __future__ import annotations

import math

import pytest
import torch

from detector.grid import half_step, values_as_stored
from detector.tiles import LEVELS, Meter, Sums

TORCH = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F8_E4M3": torch.float8_e4m3fn,
}
PAIRS = [
    ("BF16", "BF16"),
    ("F16", "F16"),
    ("F32", "F32"),
    ("BF16", "F16"),
    ("F32", "BF16"),
    ("BF16", "F32"),
    ("F32", "F8_E4M3"),
    ("BF16", "Q8_0"),
    ("Q8_0", "Q8_0"),
]


def stored(values: torch.Tensor, dtype: str) -> torch.Tensor:
    return values.to(TORCH[dtype]) if dtype in TORCH else values_as_stored(values, dtype)


def change(types: tuple[str, str], scale: float, size: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Two matrices of (64, 256) with six equal rows and a column of zeros."""
    generator = torch.Generator().manual_seed(1)
    before = torch.randn(64, 256, generator=generator) * scale
    after = before + torch.randn(64, 256, generator=generator) * scale * size
    after[3:9] = before[3:9]
    before[:, 5] = after[:, 5] = 0
    return stored(before, types[0]), stored(after, types[1])


def measure(types: tuple[str, str], before: torch.Tensor, after: torch.Tensor) -> tuple[Sums, Meter]:
    meter = Meter(torch.device("cpu"))
    meter.start(*types, before.numel())
    return meter.measure(before, after), meter


@pytest.mark.parametrize("types", PAIRS, ids="-".join)
@pytest.mark.parametrize(("scale", "size"), [(0.02, 1e-2), (0.02, 1e-4), (1e-6, 0.1)])
def test_sums_are_those_of_the_formulas(types: tuple[str, str], scale: float, size: float) -> None:
    """Norms, products, the rounding floor, and what moved where, computed again in float64."""
    before, after = change(types, scale, size)
    sums, meter = measure(types, before, after)
    x, y = before.double(), after.double()
    expected = before.float() if types[0] == types[1] else values_as_stored(before.float(), types[1])
    moved = after.float() != expected
    half = half_step(after.float(), types[1])
    assert half is not None
    assert meter.columns is not None
    assert sums.floor is not None
    assert sums.square == pytest.approx(x.square().sum().item(), rel=1e-5)
    assert sums.delta_square == pytest.approx((y - x).square().sum().item(), rel=1e-5, abs=1e-300)
    assert sums.dot == pytest.approx((x * (y - x)).sum().item(), rel=1e-3, abs=1e-6 * sums.square)
    assert sums.floor == pytest.approx((2 * half.double()).square().sum().item() / 12, rel=1e-5)
    assert (sums.moved, sums.unequal) == (moved.sum().item(), (x != y).sum().item())
    assert (sums.rows, sums.moved_rows) == (64, moved.any(1).sum().item())
    assert meter.columns.sum().item() == moved.any(0).sum().item()
    if moved.any():
        assert sums.largest == pytest.approx((y - x).abs().max().item(), rel=1e-6)
        assert sums.first_moved == moved.any(1).int().argmax().item()


@pytest.mark.parametrize("types", PAIRS, ids="-".join)
def test_levels_count_moved_values_by_their_steps(types: tuple[str, str]) -> None:
    """Entry k counts 2^(k−1) ≤ |Δ| / step < 2^k; |Δ| is rounded to bf16, so few are one entry off."""
    before, after = change(types, 0.02, 1e-2)
    sums, _ = measure(types, before, after)
    expected = before.float() if types[0] == types[1] else values_as_stored(before.float(), types[1])
    moved = after.float() != expected
    half = half_step(after.float(), types[1])
    assert half is not None
    quotient = ((after.float() - before.float()).abs() / (2 * half))[moved]
    level = torch.where(quotient < 1, 0, quotient.clamp_min(1).log2().floor() + 1).clamp_max(LEVELS - 1)
    counts = torch.bincount(level.long(), minlength=LEVELS)
    off = (counts - torch.tensor(sums.levels)).abs().sum().item()
    assert sum(sums.levels) == sums.moved > 0
    assert off <= 0.02 * sums.moved


def test_values_without_a_known_step_have_no_floor() -> None:
    """Of a K-quant's values nothing is said about rounding, but what moved is counted."""
    before, after = change(("F32", "F32"), 0.02, 1e-2)
    sums, _ = measure(("Q4_K", "Q4_K"), before, after)
    assert sums.floor is None
    assert sums.moved == (before != after).sum().item()
    assert sums.exponents() == ()


def test_what_is_no_number_is_counted_and_cleared() -> None:
    """Infinities and NaNs of the fork do not reach the norms."""
    before, after = change(("BF16", "BF16"), 0.02, 1e-2)
    broken = after.clone()
    broken[0, 0], broken[1, 1] = float("nan"), float("-inf")
    after[0, 0] = after[1, 1] = 0
    clean, _ = measure(("BF16", "BF16"), before, after)
    sums, _ = measure(("BF16", "BF16"), before, broken)
    assert sums.non_finite == 2
    assert sums.delta_square == pytest.approx(clean.delta_square, rel=1e-6)
    assert (sums.moved, sums.moved_rows) == (clean.moved, clean.moved_rows)


@pytest.mark.parametrize("scale", [1e25, 1e-30])
def test_squares_beyond_float32_are_not_lost(scale: float) -> None:
    """Weights whose squares float32 cannot hold have the relative change that they have."""
    before, after = change(("F32", "F32"), scale, 0.1)
    sums, _ = measure(("F32", "F32"), before, after)
    exact = (after.double() - before.double()).norm() / before.double().norm()
    assert math.sqrt(sums.delta_square / sums.square) == pytest.approx(exact.item(), rel=1e-6)


def test_changes_of_subnormal_numbers_are_counted() -> None:
    """A change that is invisible to the exponents still counts as one."""
    before = torch.zeros(4, 8, dtype=torch.bfloat16)
    after = before.clone()
    after.view(torch.int16)[1, 2] = 1
    sums, _ = measure(("BF16", "BF16"), before, after)
    assert (sums.moved, sums.unequal, sums.moved_rows) == (1, 1, 1)
    assert sum(sums.levels) == 1


def test_cosine_of_a_scaled_matrix_is_one() -> None:
    """Length does not matter to the cosine, sign does."""
    before, _ = change(("F32", "F32"), 0.02, 1e-2)
    assert measure(("F32", "F32"), before, before * 2)[0].cosine() == pytest.approx(1)
    assert measure(("F32", "F32"), before, -before)[0].cosine() == pytest.approx(-1)
    assert measure(("F32", "F32"), before, before * 0)[0].cosine() is None
