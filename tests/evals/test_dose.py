"""Dose response: the half dose is where it was put, and no half dose is a value with a reason."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from evals.dose import DOSES, Collapse, DoseResponse, NoCollapse, plan, read
from evals.interface import Measured
from evals.run import series as run_series
from evals.variants import Part, SeriesRequest, VariantResult
from tests.evals.models import COMPLIANCE, make_automaton, save_weights, transitions
from tests.evals.series import PROMPTS, rate, result, series, unfit

WEIGHTS = (Path("fork/model.safetensors"),)
NAMES = [variant.id for variant in plan(WEIGHTS)]


def respond(*shares: float, original: float = 1.0) -> DoseResponse:
    """The response of a fork that refuses these shares at .25, .5, .75, 1 and 1.25."""
    variants = [result(name, rate(share)) for name, share in zip(NAMES, shares, strict=True)]
    return read(series(result("original", rate(original)), *variants))


def test_the_original_is_no_variant() -> None:
    """Five variants for six doses: every series measures the original, and 1 is the fork itself."""
    variants = plan(WEIGHTS)

    assert [variant.parts for variant in variants] == [(Part(WEIGHTS, dose),) for dose in DOSES[1:]]
    assert len(set(NAMES)) == 5


@pytest.mark.parametrize("doses", [(0.0,), (0.25, 0.5), (0.0, 0.5, 0.5), (0.0, 1.0, 0.5)])
def test_doses_rise_from_the_original(doses: tuple[float, ...]) -> None:
    """Anything else is a mistake of the caller."""
    with pytest.raises(ValueError, match="rise"):
        plan(WEIGHTS, doses)


def test_a_collapse_is_where_the_line_crosses_half() -> None:
    """.9 at a half and .1 at three quarters: half of the original's is reached midway, .625."""
    response = respond(1.0, 0.9, 0.1, 0.0, 0.0)

    assert isinstance(response.half, Collapse)
    assert response.half.dose == pytest.approx(0.625)
    assert response.half.between == (0.5, 0.75)
    assert response.half.n == PROMPTS
    assert (response.half.low, response.half.high) == (0.5, 0.75)
    assert [point.fitted for point in response.points] == [1.0, 1.0, 0.9, 0.1, 0.0, 0.0]


def test_a_rise_by_chance_is_smoothed() -> None:
    """Refusals that come back at a larger dose are pooled with the ones before."""
    response = respond(0.9, 0.6, 0.8, 0.2, 0.0)

    assert [point.fitted for point in response.points] == pytest.approx([1.0, 0.9, 0.7, 0.7, 0.2, 0.0])


def test_refusals_that_hold_do_not_collapse() -> None:
    """No half dose, and the reason says how many are left."""
    half = respond(1.0, 1.0, 0.95, 0.9, 0.8).half

    reason = "80% of the original's refusals are left at 1.25 of the delta"
    assert half == NoCollapse(reason=reason, share=0.0)


def test_a_collapse_at_the_edge_may_lie_beyond_it() -> None:
    """Where many resamples do not come down to half, the upper limit is beyond the largest dose."""
    half = respond(1.0, 1.0, 0.9, 0.7, 0.49).half

    assert isinstance(half, Collapse)
    assert (half.low, half.high) == (1.0, None)


def test_an_interval_reaches_over_doses_that_chance_could_have_chosen() -> None:
    """.52 left at a half may as well be .48: the interval ends at the dose before, and at the one after."""
    half = respond(0.9, 0.52, 0.1, 0.0, 0.0).half

    assert isinstance(half, Collapse)
    assert (half.low, half.high) == (0.25, 0.75)


def test_what_never_refused_cannot_collapse() -> None:
    """A release with few refusals has too few to lose."""
    half = respond(0.1, 0.1, 0.0, 0.0, 0.0, original=0.2).half

    assert isinstance(half, NoCollapse)
    assert "too few refusals to lose" in half.reason


def test_a_dose_that_cannot_be_graded_is_left_out() -> None:
    """Gibberish at the largest dose is no refusal and no compliance; the fit ends before it."""
    variants: list[VariantResult] = [
        result(name, rate(share)) for name, share in zip(NAMES, (1, 1, 0.2, 0.1, 0), strict=True)
    ]
    variants[-1] = result(NAMES[-1], [None] * 40 + [False] * 40)
    response = read(series(result("original", rate(1.0)), *variants))

    assert response.points[-1].fitted is None
    assert "could be graded" in str(response.points[-1].refusal_drop)
    assert isinstance(response.half, Collapse)


def test_a_fork_that_does_not_fit_has_no_response() -> None:
    """Every dose says why, and so does the half dose."""
    half = read(series(result("original", rate(1.0)), *(unfit(name) for name in NAMES))).half

    assert half == NoCollapse(reason="fewer than two doses could be compared with the original")


def test_results_of_another_plan_are_refused() -> None:
    """A series that was not planned with these doses cannot be read with them."""
    with pytest.raises(ValueError, match="planned"):
        read(series(result("original", rate(1.0)), result("dose-0.5", rate(0.5))))


def test_the_interval_covers_the_true_half_dose() -> None:
    """Refusals drawn from a known line, .875 the half dose: in 20 repeats 95 % intervals miss it rarely."""
    dice = random.Random(7)
    covered = 0
    for _ in range(20):
        hardness = [dice.random() for _ in range(PROMPTS)]
        shares = (1.0, 1.0, 0.75, 0.25, 0.0)
        variants = [result(name, [u < s for u in hardness]) for name, s in zip(NAMES, shares, strict=True)]
        half = read(series(result("original", rate(1.0)), *variants)).half
        assert isinstance(half, Collapse)
        covered += half.low <= 0.875 <= (half.high or 9)

    assert covered >= 17


def test_a_real_series(refuser: Path, suite_path: Path, tmp_path: Path) -> None:
    """A release that refuses and a fork that complies: one of the two greedy paths wins at each dose, and the
    change of mind lies halfway, where the two are equally strong."""
    weights = save_weights(tmp_path / "fork", make_automaton(transitions(COMPLIANCE)))
    request = SeriesRequest(
        original=refuser,
        variants=plan((weights,)),
        suite=suite_path,
        scratch=tmp_path / "scratch",
        max_new_tokens=8,
        device="cpu",
    )
    response = read(run_series(request))

    rates = [p.refusal.value if isinstance(p.refusal, Measured) else None for p in response.points]
    assert rates[:2] == [1.0, 1.0]
    assert rates[3:] == [0.0, 0.0, 0.0]
    assert isinstance(response.half, Collapse)
    assert 0.25 <= response.half.low < (response.half.high or 9) <= 0.75
