"""The plan of a sketch: the same every time, and its bands miss a change no oftener than is said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.formats import open_weights
from detector.interface import TensorInfo
from detector.pairing import Pair, pair_tensors
from detector.sketch.plan import Bands, cost, spread, survey
from tests.detector import zoo
from tests.detector.zoo import one_file


def bands(height: int, rows: int, count: int, seed: str) -> Bands:
    info = TensorInfo("w", "BF16", (height, 8), height * 16)
    return Bands(Pair("w", info, info), spread(height, rows, count, seed))


@given(
    height=st.integers(1, 5000), rows=st.integers(1, 300), count=st.integers(1, 4), seed=st.text(max_size=5)
)
def test_bands_lie_in_the_matrix_and_do_not_overlap(height: int, rows: int, count: int, seed: str) -> None:
    """As many rows as asked for, or all there are, in order; the same for the same seed."""
    places = spread(height, rows, count, seed)
    assert places == spread(height, rows, count, seed)
    assert sum(number for _, number in places) == min(rows, height)
    ends = [0, *(first + number for first, number in places)]
    assert all(end <= first for end, (first, _) in zip(ends, places, strict=False))
    assert ends[-1] <= height


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("where", ["start", "middle", "end", "strided"])
def test_the_miss_probability_is_a_bound(share: float, where: str) -> None:
    """Over 2 000 seeds, changes at any place are missed no oftener than stated (three standard errors)."""
    height, trials = 1000, 2000
    touched = int(share * height)
    first = {"start": 0, "middle": (height - touched) // 2, "end": height - touched}.get(where)
    rows = (
        set(range(first, first + touched))
        if first is not None
        else {row for row in range(height) if int((row + 1) * share) > int(row * share)}
    )
    missed = 0
    for trial in range(trials):
        plan = bands(height, 8, 2, f"{trial}")
        missed += not any(set(range(start, start + count)) & rows for start, count in plan.places)
    stated = bands(height, 8, 2, "").miss(share)
    assert missed / trials <= stated + 3 * (stated * (1 - stated) / trials) ** 0.5 + 1e-9


def test_a_change_that_leaves_fewer_rows_than_were_read_cannot_be_missed() -> None:
    """When more rows are read than can be untouched, the probability is zero."""
    assert bands(10, 8, 2, "").miss(0.9) == 0
    assert bands(1000, 8, 2, "").miss(0.9) == pytest.approx(0.01)


@pytest.mark.parametrize("budget", [3_000, 20_000, 60_000, 1 << 20])
def test_a_survey_stays_within_its_budget(budget: int) -> None:
    """Small budgets thin the tensors out, evenly over the modules; a large one reaches all of them."""
    weights = zoo.base(1, zoo.Shape(layers=8))
    reader = open_weights(one_file(weights))
    pairs = pair_tensors(reader.tensors(), reader.tensors()).pairs
    plans = survey(pairs, reader, budget)
    assert cost(plans, reader) <= budget
    assert len(plans) == len(pairs) if budget >= 60_000 else 0 < len(plans) < len(pairs)
