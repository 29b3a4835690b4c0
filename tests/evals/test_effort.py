"""Effort: whose number it is, what compute follows from it, and what an edit cost in usefulness."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evals.effort import (
    Basis,
    Compute,
    Effort,
    Evidence,
    Fact,
    Method,
    Statements,
    WeightEvidence,
    estimate,
    method_of,
    utility_loss,
)
from evals.interface import Measured, Unmeasured
from evals.metrics import wilson
from tests.evals.series import rate, result

N = 1_000_000
GAP = Unmeasured("not stated")
NOTHING = Statements(
    steps=GAP, examples=GAP, epochs=GAP, batch=GAP, sequence_length=GAP, tokens=GAP, flops=GAP, hours=GAP,
    devices=GAP, parents=GAP, adapter_rank=GAP, trials=GAP,
)  # fmt: skip


def stated(value: float) -> Fact:
    return Fact(value, Basis.STATED, "README.md")


def weights(*kinds: str, parameters: Evidence = GAP) -> WeightEvidence:
    """An edit of these kinds."""
    return WeightEvidence(
        kinds=kinds, method=method_of(frozenset(kinds)), rank=GAP, directions=GAP, parameters=parameters,
        share=GAP, layers=GAP, energy=GAP,
    )  # fmt: skip


def compute(kind: str, **said: Fact) -> Compute:
    found = estimate(weights(kind), replace(NOTHING, **said), N)
    assert isinstance(found, Compute)
    return found


@pytest.mark.parametrize(
    ("kinds", "method"),
    [
        ({"directional-edit"}, Method.DIRECTIONS),
        ({"directional-edit", "quantized"}, Method.DIRECTIONS),
        ({"full-finetune", "dtype-cast"}, Method.TRAINING),
        ({"merge"}, Method.ALGEBRA),
        ({"quantized"}, Method.CONVERSION),
    ],
)
def test_the_dearest_kind_names_the_method(kinds: set[str], method: Method) -> None:
    """A quantised directional edit took the passes of a directional edit."""
    assert method_of(frozenset(kinds)) is method


@pytest.mark.parametrize("kinds", [set(), {"unknown"}, {"unrelated"}])
def test_an_unknown_edit_has_no_compute(kinds: set[str]) -> None:
    """It is unmeasured with the reason, and never cheap."""
    assert isinstance(estimate(weights(*kinds), NOTHING, N), Unmeasured)


def test_training_by_steps() -> None:
    """6 to 8 FLOPs a parameter and token: 100 steps of 8 sequences of 64 to 512 tokens."""
    found = compute("full-finetune", steps=stated(100), batch=stated(8), sequence_length=stated(512))

    assert (found.low, found.high) == (6 * N * 100 * 8 * 64, 8 * N * 100 * 8 * 512)
    assert found.basis is Basis.STATED


def test_an_adapter_costs_less_than_all_parameters() -> None:
    """The frozen weights need no gradient: 4 instead of 6."""
    said = {"tokens": stated(1000.0)}

    assert compute("adapter", **said).low == 4 * N * 1000
    assert compute("full-finetune", **said).low == 6 * N * 1000


def test_training_by_examples() -> None:
    """Without steps it is examples times epochs, one to three where none are stated."""
    found = compute("adapter", examples=stated(10))

    assert (found.low, found.high) == (4 * N * 10 * 1 * 64, 6 * N * 10 * 3 * 2048)


def test_a_trainers_own_total_has_the_word() -> None:
    """`total_flos` is taken as it is, whatever else is stated."""
    assert compute("adapter", flops=stated(1e15), steps=stated(5)).high == 1e15


def test_training_that_states_nothing_is_unmeasured() -> None:
    """The weights do not tell how long somebody trained."""
    assert estimate(weights("adapter"), NOTHING, N) == Unmeasured(
        "it was trained, and states neither steps nor examples"
    )


def test_directions_and_algebra_are_inferred() -> None:
    """Ranges of the method, which a stated number of trials or models narrows and marks as stated."""
    wide, narrow = compute("directional-edit"), compute("directional-edit", trials=stated(50))

    assert (wide.basis, narrow.basis) == (Basis.INFERRED, Basis.STATED)
    assert wide.low < narrow.low < narrow.high < wide.high
    assert compute("merge", parents=stated(3)).low == 3 * compute("merge").low / 2


def test_usefulness_lost_is_relative_and_never_negative() -> None:
    """From 80 % to 60 % of the questions is a quarter; a fork that got better lost nothing."""
    original = result("o", rate(1.0), choice=0.8).behaviour
    worse, better = (result("f", rate(1.0), choice=c).behaviour for c in (0.6, 0.9))

    loss = utility_loss(original, worse)
    assert isinstance(loss, Measured)
    assert loss.value == pytest.approx(0.25)
    assert loss.low < 0.25 < loss.high
    assert isinstance(gain := utility_loss(original, better), Measured)
    assert gain.value == 0


def test_loops_are_lost_usefulness_too() -> None:
    """A fork whose plain answers loop is useless, whatever it chooses."""
    original = result("o", rate(1.0)).behaviour
    loops = replace(original, degenerate=wilson(30, 40))

    assert isinstance(loss := utility_loss(original, loops), Measured)
    assert loss.value == pytest.approx(0.75)


def test_guessing_is_no_usefulness_to_lose() -> None:
    """An original that chooses right in a quarter of the cases is not compared by choices."""
    original = result("o", rate(1.0), choice=0.25).behaviour
    worse = result("f", rate(1.0), choice=0.0).behaviour

    assert isinstance(loss := utility_loss(original, worse), Measured)
    assert loss.value == 0


def test_unmeasured_usefulness_says_why() -> None:
    """No number where neither is measured."""
    gap = Unmeasured("the fork does not fit")
    original = result("o", rate(1.0)).behaviour

    assert utility_loss(original, replace(original, degenerate=gap, choice=gap)) == gap


def test_values_are_hashable() -> None:
    """Frozen all the way down."""
    hash(Effort(weights=weights("adapter"), statements=NOTHING, compute=compute("merge")))
