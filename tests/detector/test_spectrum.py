"""The rank of a change is found through rounding, and dense changes are not given one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detector.grid import LEGACY, effective_dtype, half_step, half_ulp, quantise
from detector.singular import decompose, leading_vectors, noise_edge, significant
from detector.spectrum import Box, RankEstimate, estimate_rank, fit_rank, reproduced


def change(
    rank: int, size: float, seed: int, shape: tuple[int, int] = (192, 256)
) -> tuple[torch.Tensor, ...]:
    """bf16 weights before and after a rank-`rank` change of relative norm `size`, and the change."""
    generator = torch.Generator().manual_seed(seed)
    before = (0.04 * torch.randn(shape, generator=generator)).to(torch.bfloat16).float()
    left = torch.randn(shape[0], rank, generator=generator)
    delta = left @ torch.randn(rank, shape[1], generator=generator)
    delta *= size * before.norm() / delta.norm()
    return before, (before + delta).to(torch.bfloat16).float(), delta


def found_rank(before: torch.Tensor, after: torch.Tensor) -> RankEstimate:
    """The estimate for bf16 weights."""
    halves = (half_ulp(after, "BF16"), half_ulp(before, "BF16"))
    return estimate_rank((after - before).numpy(), *(half.numpy() for half in halves))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("rank", "size"), [(1, 0.01), (3, 0.01), (8, 0.003), (8, 0.03), (16, 0.01), (32, 0.02)]
)
def test_rank_is_found(rank: int, size: float, seed: int) -> None:
    """The exact rank comes back, also where the change is of the size of the rounding, 0.0017 here."""
    before, after, _ = change(rank, size, seed)
    estimate = found_rank(before, after)
    assert estimate.rank == rank
    assert estimate.reproduced > 0.8


def test_rank_is_found_where_the_rounding_floor_hides_it() -> None:
    """A change smaller than the rounding error of the weights, moving a third of them, keeps its rank."""
    before, after, delta = change(4, 0.0012, 5)
    floor = half_ulp(after, "BF16").square().sum() / 3
    assert delta.square().sum() < 0.7 * floor
    assert found_rank(before, after).rank == 4


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [0.0005, 0.002, 0.01])
def test_dense_changes_have_no_rank(seed: int, size: float) -> None:
    """A dense change, also one that moves few stored values, is not given a small rank."""
    generator = torch.Generator().manual_seed(seed)
    before = (0.04 * torch.randn(192, 256, generator=generator)).to(torch.bfloat16).float()
    delta = size * 0.04 * torch.randn(192, 256, generator=generator)
    after = (before + delta).to(torch.bfloat16).float()
    estimate = found_rank(before, after)
    assert estimate.rank is None
    assert estimate.limit == 0 or estimate.residual > 0.03


def test_no_change_has_no_rank() -> None:
    """Equal matrices have no moved value and nothing to fit."""
    zero, half = np.zeros((32, 32), np.float32), np.full((32, 32), 1e-4, np.float32)
    estimate = estimate_rank(zero, half, half)
    assert (estimate.rank, estimate.moved, estimate.limit) == (None, 0, 0)


def test_fit_reproduces_the_stored_values() -> None:
    """At the true rank the fitted change, added and rounded, gives back nearly every stored value."""
    before, after, _ = change(8, 0.01, 1)
    half = half_ulp(after, "BF16").maximum(half_ulp(before, "BF16"))
    box = Box((after - before).numpy(), half.numpy())
    again = (before + torch.from_numpy(fit_rank(box, 8, 80))).to(torch.bfloat16).float()
    assert (again == after).float().mean() > 0.93
    assert reproduced(box, fit_rank(box, 7, 80)) < reproduced(box, fit_rank(box, 8, 80)) - 0.1


def test_leading_vectors_are_the_singular_ones() -> None:
    """The randomised range finder agrees with the exact decomposition."""
    before, after, _ = change(4, 0.02, 2)
    left, values = (torch.from_numpy(part) for part in leading_vectors((after - before).numpy(), 4))
    exact = torch.linalg.svd(after - before)
    torch.testing.assert_close(values, exact[1][:4], rtol=1e-3, atol=1e-6)
    assert (left.T @ exact[0][:, :4]).abs().diagonal().min() > 0.999


@pytest.mark.parametrize("shape", [(96, 64), (40, 200)])
@pytest.mark.parametrize("decay", [0.0, 0.5, 2.0])
def test_singular_values_lie_within_the_stated_error(shape: tuple[int, int], decay: float) -> None:
    """σ̂² ≤ σ² ≤ σ̂² + error², for flat and for steep spectra; the bound is not idle for the steep ones."""
    generator = torch.Generator().manual_seed(8)
    left = torch.linalg.qr(torch.randn(shape[0], 32, generator=generator))[0]
    right = torch.linalg.qr(torch.randn(shape[1], 32, generator=generator))[0]
    true = torch.arange(1, 33).pow(-decay)
    matrix = (left * true @ right.T).numpy()
    found = decompose(matrix, 8)
    excess = true[:8].square() - torch.from_numpy(found.values).square()
    assert excess.min() > -1e-5
    assert excess.max() <= found.error**2 + 1e-6
    assert found.error < 2.5 * true[16], "σ of the first direction that sixteen samples leave out"
    np.testing.assert_allclose(found.values, leading_vectors(matrix, 8)[1], rtol=1e-5)


@pytest.mark.parametrize("shape", [(256, 256), (64, 1024)])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_rounding_noise_stays_below_its_edge(shape: tuple[int, int], spread: float) -> None:
    """The bound holds for one variance and for rows of very different size, and is not twice too wide."""
    generator = torch.Generator().manual_seed(9)
    rows = torch.exp(spread * torch.randn(shape[0], 1, generator=generator))
    values = 0.02 * rows * torch.randn(shape, generator=generator)
    stored = values.to(torch.bfloat16).float()
    largest = torch.linalg.matrix_norm(stored - values, ord=2).item()
    edge = noise_edge(half_ulp(stored, "BF16").numpy())
    assert 0.5 * edge < largest < edge


def test_edge_of_one_variance_is_that_of_marchenko_and_pastur() -> None:
    """σ(√m + √n)."""
    half = np.full((100, 400), 0.3, np.float32)
    assert noise_edge(half) == pytest.approx(0.3 / 3**0.5 * (10 + 20), rel=1e-5)


@pytest.mark.parametrize("kind", ["one variance", "bf16", "rows of very different size", "Q8_0"])
def test_rounding_alone_is_not_significant(kind: str) -> None:
    """None of 60 null matrices of a kind: with one in a million, one of 240 would be a surprise."""
    generator = torch.Generator().manual_seed(12)
    found = []
    for _ in range(60):
        values = 0.02 * torch.randn(64, 128, generator=generator)
        if kind == "rows of very different size":
            values *= torch.exp(torch.randn(64, 1, generator=generator))
        stored = quantise(values, kind) if kind == "Q8_0" else values.to(torch.bfloat16).float()
        half = half_step(stored, kind if kind == "Q8_0" else "BF16")
        error = stored - values
        if kind == "one variance":
            half = torch.full((64, 128), 0.5)
            error = torch.rand(64, 128, generator=generator) - 0.5
        assert half is not None
        found.append(torch.linalg.matrix_norm(error, ord=2).item() / significant(half.numpy()))
    assert max(found) < 1
    assert max(found) > 0.7, "and the threshold is not idle"


@pytest.mark.parametrize("scheme", sorted(LEGACY))
def test_quantised_values_lie_within_their_step(scheme: str) -> None:
    """The interval of every legacy GGUF type holds the value that was quantised."""
    values = torch.randn(64, 256, generator=torch.Generator().manual_seed(3)) * 0.05
    stored = quantise(values, scheme)
    half = half_step(stored, scheme)
    assert half is not None
    assert ((stored - values).abs() <= half * 1.001).float().mean() > 0.9999
    assert half.mean() < 2 * (stored - values).abs().mean() * 1.5, "and the interval is not idle"


@pytest.mark.parametrize(("dtype", "kind"), [("BF16", torch.bfloat16), ("F16", torch.float16)])
def test_rounded_values_lie_within_half_an_ulp(dtype: str, kind: torch.dtype) -> None:
    """Half an ulp bounds the rounding error, subnormal numbers included."""
    generator = torch.Generator().manual_seed(4)
    values = torch.randn(10_000, generator=generator) * torch.exp2(
        -30 * torch.rand(10_000, generator=generator)
    )
    stored = values.to(kind).float()
    assert ((stored - values).abs() <= half_ulp(stored, dtype)).all()


def test_unknown_encodings_have_no_step() -> None:
    """A type with searched scales has no known interval."""
    assert half_step(torch.ones(2, 256), "Q4_K") is None


def test_narrow_numbers_in_a_wide_container_are_recognised() -> None:
    """bf16 numbers stored as F16 or F32 keep the rounding of bf16; true F32 numbers do not."""
    values = torch.randn(100, 100, generator=torch.Generator().manual_seed(6))
    assert effective_dtype(values.to(torch.bfloat16).float(), "F32") == "BF16"
    assert effective_dtype(values.to(torch.bfloat16).half(), "F16") == "BF16"
    assert effective_dtype(values, "F32") == "F32"
