"""Statistics of a change agree with the plain formulas, for every pair of types."""

from __future__ import annotations

import math

import pytest
import torch

from detector import tiles
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

SAME = [types for types in PAIRS if types[0] == types[1] in TORCH]


@pytest.fixture(params=[0, 1 << 30], ids=["compiled", "torch"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tiles go through the compiled loop, or large ones through torch."""
    monkeypatch.setattr(tiles, "FUSED_ELEMENTS", request.param)


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
    meter = Meter("cpu")
    meter.start(*types)
    return meter.measure(before, after), meter


def hard_values(dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(48, 301) random bits of numbers of every size, equal rows, zeros of both signs, subnormal numbers."""
    generator = torch.Generator().manual_seed(2)
    powers = torch.exp2(torch.randint(-12, 3, (48, 301), generator=generator).float())
    before = torch.randn(48, 301, generator=generator) * powers
    after = before + torch.randn(48, 301, generator=generator) * powers.flip(1) * 1e-3
    after[7:20] = before[7:20]
    before[0, :40], after[0, :40] = 0.0, -0.0
    before[1, :40], after[1, 20:60] = 0.0, 0.0
    left, right = before.to(TORCH[dtype]), after.to(TORCH[dtype])
    width = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[left.element_size()]
    right.view(width)[2, :3] = torch.arange(3).to(width)  # zero and the two smallest numbers
    right[:, 5], left[:, 5] = 0.25, 0.25
    return left, right


@pytest.mark.parametrize(
    "types", [p for p in PAIRS if p[0] == p[1] in TORCH] + [("BF16", "F32"), ("F16", "F32")]
)
@pytest.mark.parametrize("flat", [False, True])
def test_both_ways_of_measuring_agree(
    types: tuple[str, str], flat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts to the last one, sums to float32: a compiled loop and a dozen passes of torch."""
    before, after = hard_values(types[0])[0], hard_values(types[1])[1]
    if flat:
        before, after = before.flatten(), after.flatten()
    found = []
    for least in (0, 1 << 30):
        monkeypatch.setattr(tiles, "FUSED_ELEMENTS", least)
        found.append(measure(types, before, after))
    (fused, marked), (plain, expected) = found
    for name in (
        "elements",
        "unequal",
        "moved",
        "rows",
        "moved_rows",
        "first_moved",
        "within_a_step",
        "largest",
    ):
        assert getattr(fused, name) == getattr(plain, name), name
    assert fused.levels == plain.levels
    for name in ("square", "delta_square", "dot", "floor"):
        assert getattr(fused, name) == pytest.approx(
            getattr(plain, name), rel=2e-5, abs=1e-5 * plain.delta_square
        )
    if not flat:
        assert marked.columns is not None
        assert expected.columns is not None
        assert (marked.columns == expected.columns).all()


def test_the_compiled_loop_gives_the_same_bits_at_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a tile lies in memory changes no bit of a sum."""
    monkeypatch.setattr(tiles, "FUSED_ELEMENTS", 0)
    before, after = change(("BF16", "BF16"), 0.02, 1e-2)
    expected, _ = measure(("BF16", "BF16"), before, after)
    for offset in range(1, 33):
        room = torch.empty(2, before.numel() + 64, dtype=torch.bfloat16)
        moved = [
            room[side, offset : offset + values.numel()].copy_(values.flatten()).view(values.shape)
            for side, values in enumerate((before, after))
        ]
        assert measure(("BF16", "BF16"), *moved)[0] == expected


@pytest.mark.usefixtures("either_way")
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
    assert meter.columns.sum() == moved.any(0).sum().item()
    if moved.any():
        assert sums.largest == pytest.approx((y - x).abs().max().item(), rel=1e-6)
        assert sums.first_moved == moved.any(1).int().argmax().item()


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("types", PAIRS, ids="-".join)
def test_levels_count_moved_values_by_their_steps(types: tuple[str, str]) -> None:
    """Entry k counts 2^(k−1) ≤ |Δ| / step < 2^k; of coded types few are one entry off."""
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
    assert off <= (0 if types[1] in TORCH else 0.02) * sums.moved


def test_values_without_a_known_step_have_no_floor() -> None:
    """Of a K-quant's values nothing is said about rounding, but what moved is counted."""
    before, after = change(("F32", "F32"), 0.02, 1e-2)
    sums, _ = measure(("Q4_K", "Q4_K"), before, after)
    assert sums.floor is None
    assert sums.moved == (before != after).sum().item()
    assert sums.exponents() == ()


@pytest.mark.usefixtures("either_way")
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


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("scale", [1e25, 1e-30])
def test_squares_beyond_float32_are_not_lost(scale: float) -> None:
    """Weights whose squares float32 cannot hold have the relative change that they have."""
    before, after = change(("F32", "F32"), scale, 0.1)
    sums, _ = measure(("F32", "F32"), before, after)
    exact = (after.double() - before.double()).norm() / before.double().norm()
    assert math.sqrt(sums.delta_square / sums.square) == pytest.approx(exact.item(), rel=1e-6)


@pytest.mark.usefixtures("either_way")
def test_changes_of_subnormal_numbers_are_counted() -> None:
    """A change that is invisible to the exponents still counts as one."""
    before = torch.zeros(4, 8, dtype=torch.bfloat16)
    after = before.clone()
    after.view(torch.int16)[1, 2] = 1
    sums, _ = measure(("BF16", "BF16"), before, after)
    assert (sums.moved, sums.unequal, sums.moved_rows) == (1, 1, 1)
    assert sum(sums.levels) == 1


@pytest.mark.usefixtures("either_way")
def test_cosine_of_a_scaled_matrix_is_one() -> None:
    """Length does not matter to the cosine, sign does."""
    before, _ = change(("F32", "F32"), 0.02, 1e-2)
    assert measure(("F32", "F32"), before, before * 2)[0].cosine() == pytest.approx(1)
    assert measure(("F32", "F32"), before, -before)[0].cosine() == pytest.approx(-1)
    assert measure(("F32", "F32"), before, before * 0)[0].cosine() is None
