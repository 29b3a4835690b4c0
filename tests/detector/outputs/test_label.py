"""From three answers to one label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from detector.outputs.interface import Decision, OutputLabel, Question, TestResult
from detector.outputs.label import (
    PLAIN_CELL,
    Equality,
    Evidence,
    Named,
    cell_p,
    classify,
    explanations,
    share,
)

CELLS = (PLAIN_CELL, "int8", "system-prompt")
FORK = "a/fork@1"


def equal(p: float | None, *, alpha: float = 0.01, **cells: float) -> Equality:
    decision = Decision.INSUFFICIENT if p is None else Decision.NO_DIFFERENCE
    if p is not None and p <= alpha:
        decision = Decision.DIFFERENT
    result = TestResult(question=Question.EQUALITY, test="t", decision=decision, n=10, p_value=p)
    named = {name.replace("_", "-"): value for name, value in cells.items()}
    return Equality(result, {PLAIN_CELL: p, **named} if p is not None else {})


def named(decision: Decision, fork: str | None = None, **more: object) -> Named:
    result = TestResult(question=Question.ATTRIBUTION, test="lr", decision=decision, n=10, log_e=0.0)
    return Named(result, fork, **more)  # type: ignore[arg-type]


FOUND = named(Decision.DIFFERENT, FORK)
NOTHING = named(Decision.INSUFFICIENT)


@pytest.mark.parametrize(
    ("evidence", "label"),
    [
        (Evidence(), OutputLabel.INSUFFICIENT),
        (Evidence(equality=[equal(None)]), OutputLabel.INSUFFICIENT),
        (Evidence(equality=[equal(0.5)]), OutputLabel.AUTHENTIC),
        (Evidence(equality=[equal(0.5)], attribution=[NOTHING], cells=CELLS), OutputLabel.AUTHENTIC),
        # one test of two finds something at 0.01, both together do not at 0.01
        (Evidence(equality=[equal(0.008), equal(0.5)]), OutputLabel.INSUFFICIENT),
        (Evidence(attribution=[FOUND]), OutputLabel.MODIFIED_KNOWN),
        (Evidence(attribution=[FOUND], conversions=[FORK]), OutputLabel.BENIGN_VARIANT),
        (Evidence(attribution=[named(Decision.DIFFERENT)]), OutputLabel.INSUFFICIENT),
        (
            Evidence(attribution=[named(Decision.DIFFERENT, exhausted=True, relative=FORK)]),
            OutputLabel.MODIFIED_UNKNOWN,
        ),
        (
            Evidence(
                attribution=[named(Decision.DIFFERENT, exhausted=True, relative=FORK)], conversions=[FORK]
            ),
            OutputLabel.BENIGN_VARIANT,
        ),
        # different from the plain setting, and nobody looked at the nuisances
        (Evidence(equality=[equal(0.001)]), OutputLabel.INSUFFICIENT),
        (Evidence(equality=[equal(0.001, int8=0.001)], cells=CELLS), OutputLabel.INSUFFICIENT),
        (
            Evidence(equality=[equal(0.001, int8=0.2, system_prompt=0.001)], cells=CELLS),
            OutputLabel.BENIGN_VARIANT,
        ),
        (
            Evidence(equality=[equal(0.001, int8=0.002, system_prompt=0.004)], cells=CELLS),
            OutputLabel.MODIFIED_UNKNOWN,
        ),
        # every number format is rejected; nobody looked at another temperature or system prompt
        (
            Evidence(equality=[equal(0.001, int8=0.002)], cells={PLAIN_CELL, "int8"}),
            OutputLabel.INSUFFICIENT,
        ),
        (Evidence(equality=[equal(0.001)], cells={PLAIN_CELL}), OutputLabel.INSUFFICIENT),
        # the same beside a test of attribution: half the level is not reached in one cell
        (
            Evidence(
                equality=[equal(0.001, int8=0.002, system_prompt=0.006)], attribution=[NOTHING], cells=CELLS
            ),
            OutputLabel.BENIGN_VARIANT,
        ),
    ],
)
def test_labels(evidence: Evidence, label: OutputLabel) -> None:
    assert classify(evidence).label is label


def test_only_safety_says_that_safety_is_gone() -> None:
    for evidence in (Evidence(), Evidence(attribution=[FOUND]), Evidence(equality=[equal(0.5)])):
        assert not classify(evidence).safety_removed
        removed = classify(replace(evidence, safety_removed=True))
        assert removed.safety_removed
        assert removed.label is classify(evidence).label


def test_p_values_of_a_cell_and_levels_of_routes() -> None:
    both = [equal(0.004, int8=0.5), equal(0.3)]
    assert cell_p(both, PLAIN_CELL) == pytest.approx(0.008)
    assert cell_p(both, "int8") == pytest.approx(0.5), "the other test does not cover it"
    assert cell_p([*both, equal(None)], PLAIN_CELL) == pytest.approx(0.008)
    assert cell_p(both, "system-prompt") == 1
    assert share(0.01, attributions=1, equality=True) == 0.005
    assert share(0.01, attributions=0, equality=False) == 0.01
    assert explanations(Evidence(equality=both, cells=CELLS), 0.01) == ("int8",)
    e_value = TestResult(
        question=Question.EQUALITY, test="e", decision=Decision.DIFFERENT, n=5, log_e=float(np.log(200))
    )
    assert Equality(e_value).plain == pytest.approx(0.005)


def test_authentic_weights_in_any_cell_are_rarely_called_modified() -> None:
    """Tests depend on each other as they like: here, fully in half of the runs and not at all in others."""
    rng = np.random.default_rng(1)
    alpha, runs, wrong = 0.05, 4000, 0
    level = share(alpha, attributions=1, equality=True)
    for run in range(runs):
        p = rng.random(3) if run % 2 else np.repeat(rng.random(), 3)
        # in truth int8: p-values of that cell are uniform, those of the others are as small as can be
        equality = [equal(0.0001, alpha=alpha, int8=float(value), system_prompt=0.0001) for value in p[:2]]
        decision = Decision.DIFFERENT if p[2] <= level else Decision.INSUFFICIENT
        attribution = [named(decision, FORK if decision is Decision.DIFFERENT else None)]
        found = classify(Evidence(equality=equality, attribution=attribution, cells=CELLS), alpha=alpha)
        wrong += found.label in {OutputLabel.MODIFIED_KNOWN, OutputLabel.MODIFIED_UNKNOWN}
    assert binomtest(wrong, runs, alpha, alternative="greater").pvalue > 0.001
    assert wrong > alpha * runs / 4
