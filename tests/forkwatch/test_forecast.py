"""What a fork can be expected to have lost: learnt from measured forks, honest about its error, and no
verdict."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from forkwatch.pipeline.forecast import (
    MIN_OBSERVED,
    PENALTY,
    NoPredictor,
    Predictor,
    expected_loss,
    features,
    fit,
    forecast,
    observed,
)
from reports.scan import EditView, IntentView, PairView, RateView, ScanDocument, UnmeasuredView
from tests.reports.sample_forks import FORKS
from tests.reports.sample_scans import rate, scan

PLAIN = next(fork for fork in FORKS if fork.refusal is not None and fork.edits)


def document(alignment: float, lost: float | None, *, repo: str = "demo/fork", rank: int = 8) -> ScanDocument:
    """A fork with a low-rank change of that alignment, whose refusals fell from 1 by `lost`, or are
    unmeasured."""
    base = scan(PLAIN)
    fork = UnmeasuredView(unmeasured="too large") if lost is None else rate(1.0 - lost)
    return replace(
        base,
        repo=repo,
        edits=(EditView(kind="low-rank-merge", certainty="proved", detail={"rank": rank}),),
        intent=IntentView(
            status="not-aligned",
            alignment=alignment,
            expected=0.1,
            extreme=0.3,
            p_value=0.5,
            directions=9999,
            energy=alignment**2,
            write_change=-alignment,
            matrices=8,
            prompts=96,
            stability=0.9,
        ),
        safety=replace(base.safety, refusal=PairView(original=rate(1.0), fork=fork)),
    )


def population(noise: float = 0.0, count: int = 16) -> list[ScanDocument]:
    """Forks that lost as much as their change is aligned, or (noise 1) as much as a die says."""
    dice = random.Random(3)
    shares = [index / (count - 1) for index in range(count)]
    return [document(share, (1 - noise) * share + noise * dice.random()) for share in shares]


def test_it_learns_what_changes_cost() -> None:
    """On changes that cost what they align, an unmeasured one is expected to cost the same, within the
    error."""
    found = fit(population())

    assert isinstance(found, Predictor)
    assert found.n == 16
    assert found.error < 0.1 < found.guess
    low, high = (found.loss(features(document(share, None))) for share in (0.15, 0.85))
    assert (low, high) == pytest.approx((0.15, 0.85), abs=0.1)


def test_too_few_measured_forks_are_no_forecast() -> None:
    """Below the least number there is none, and the reason says how many there are."""
    found = fit(population(count=MIN_OBSERVED - 1))

    assert isinstance(found, NoPredictor)
    assert f"{MIN_OBSERVED - 1} distinct" in found.reason


def test_mirrors_of_one_change_count_once() -> None:
    """A hundred copies of one edit are one observation; else each would be predicted by its copies."""
    copies = [document(0.5, 0.5, repo=f"demo/copy-{index}") for index in range(100)]

    assert isinstance(fit(copies), NoPredictor)
    assert fit([*population(), *copies[:1]]) == fit([*population(), *copies])


def test_noise_is_no_forecast() -> None:
    """Where what was lost has nothing to do with the weights, the mean is as good, and nothing is
    forecast."""
    found = fit(population(noise=1.0))

    assert isinstance(found, NoPredictor)
    assert "no better than their mean" in found.reason


def test_the_order_of_forks_does_not_matter() -> None:
    """The same store gives the same forecast, however it is read."""
    forward, backward = fit(population()), fit(population()[::-1])

    assert isinstance(forward, Predictor)
    assert isinstance(backward, Predictor)
    assert forward.error == pytest.approx(backward.error)
    assert forward.loss(features(document(0.4, None))) == pytest.approx(
        backward.loss(features(document(0.4, None)))
    )


def test_only_weights_count() -> None:
    """Name, card, downloads and verdict are not looked at."""
    one = document(0.4, None)
    other = replace(
        one, repo="demo/uncensored", claims=(), hub=replace(one.hub, downloads=10**6), findings=()
    )

    assert features(one) == features(other)


def test_measured_and_unexamined_forks_get_no_forecast() -> None:
    """What was measured needs none; what was not compared has nothing to be forecast from; each says why."""
    predictor = fit(population())
    measured = forecast(document(0.4, 0.1), predictor).forecast
    unknown = replace(document(0.4, None), intent=IntentView(status="not-measured", reason="gated"))

    assert measured.loss == UnmeasuredView(unmeasured="its refusals were measured")
    assert forecast(unknown, predictor).forecast.loss == UnmeasuredView(unmeasured="gated")
    assert forecast(document(0.4, None), NoPredictor("few")).forecast.loss == UnmeasuredView(unmeasured="few")


def test_a_forecast_comes_with_its_error_and_changes_nothing_else() -> None:
    """The number has n and an interval of two errors to either side; verdict and findings stay what they
    were."""
    predictor = fit(population())
    before = document(0.8, None)
    after = forecast(before, predictor)

    assert isinstance(predictor, Predictor)
    assert isinstance(after.forecast.loss, RateView)
    assert after.forecast.loss.n == 16
    low = after.forecast.loss.rate - 2 * predictor.error
    assert after.forecast.loss.ci[0] == pytest.approx(low, abs=1e-3)
    assert after.forecast.error == pytest.approx(predictor.error, abs=1e-4)
    assert replace(after, forecast=before.forecast) == before


def test_what_was_not_looked_at_counts_as_average() -> None:
    """A sketch knows kinds alone; what it does not know neither raises nor lowers the expectation."""
    found = fit(population())

    assert isinstance(found, Predictor)
    assert found.loss({}) == found.mean


def test_the_error_is_that_of_leaving_each_out() -> None:
    """The formula gives what fitting without each observation gives, with the inputs scaled as for all."""
    documents = population(noise=0.3)
    found = fit(documents)
    assert isinstance(found, Predictor)
    names = sorted(found.coefficients)
    scaled = [
        [
            1.0,
            *(
                (features(one)[name] - found.coefficients[name][1]) / found.coefficients[name][2]
                for name in names
            ),
        ]
        for one in documents
    ]
    table, losses = np.array(scaled), np.array([observed(one) for one in documents])
    penalty = PENALTY * np.diag([0.0] + [1.0] * len(names))
    errors = []
    for index in range(len(documents)):
        rest = np.arange(len(documents)) != index
        solution = np.linalg.solve(table[rest].T @ table[rest] + penalty, table[rest].T @ losses[rest])
        errors.append(losses[index] - table[index] @ solution)

    assert found.error == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-9)


def test_what_keeps_the_values_has_nothing_to_lose() -> None:
    """A conversion is expected to keep its refusals; forks are learnt from only where something was
    changed."""
    predictor = fit(population())
    edits = (EditView(kind="quantized", certainty="proved", detail={}),)

    assert isinstance(predictor, Predictor)
    assert expected_loss(replace(document(0.9, None), edits=edits), predictor) == 0.0
    assert expected_loss(document(0.9, None), predictor) > 0.5
