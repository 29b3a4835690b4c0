"""The curve of a release: an upper bound on the least effort, by what was observed."""

from __future__ import annotations

from itertools import permutations

import pytest

from evals.effort import Basis, Effort, Fact
from evals.frontier import Axis, Curve, Observed, Point, curve
from evals.interface import Measured, Unmeasured
from tests.evals.test_effort import NOTHING, compute, weights


def fork(name: str, effort: float, loss: float, *, utility: float = 0.0, kind: str = "adapter") -> Observed:
    """A fork that changed so many values, lost so much of refusals (± .05), and so much usefulness."""
    changed = weights(kind, parameters=Fact(effort, Basis.INFERRED, "diff"))
    return Observed(
        name=name,
        effort=Effort(weights=changed, statements=NOTHING, compute=Unmeasured("not known")),
        refusal_loss=Measured(loss, 72, loss - 0.05, loss + 0.05),
        utility_loss=Measured(utility, 60, max(0.0, utility - 0.1), utility + 0.1),
    )


CHEAP, DEAR = fork("a/cheap", 100, 0.4), fork("b/dear", 1000, 0.9)
WORSE = fork("c/worse", 2000, 0.8)
"""Took more than `DEAR` for less."""
USELESS = fork("d/useless", 10, 1.0, utility=0.6)
RETAINED = fork("e/retained", 1, 0.0)
ALL = (CHEAP, DEAR, WORSE, USELESS, RETAINED)


def frontier(found: Curve) -> list[str]:
    return [point.fork.name for point in found.points if point.on_frontier]


def test_the_frontier_is_undominated_useful_and_certain() -> None:
    """What took more for less is not on it; nor what is useless, nor what may have lost nothing."""
    assert frontier(curve(ALL, Axis.PARAMETERS, 0.1)) == ["a/cheap", "b/dear"]
    assert frontier(curve(ALL, Axis.PARAMETERS, 0.7)) == ["d/useless"]


def test_the_cheapest_by_what_is_certain() -> None:
    """A loss of .9 ± .05 is a loss of three quarters for certain, and not one of .9."""
    cells = {(c.loss, c.utility): c.cheapest for c in curve(ALL, Axis.PARAMETERS, 0.1).cells}
    names = {key: c.fork.name if isinstance(c, Point) else "none" for key, c in cells.items()}

    assert names[0.25, 0.1] == "a/cheap"
    assert names[0.5, 0.1] == names[0.75, 0.1] == "b/dear"
    assert names[0.9, 0.1] == "none"
    assert names[0.75, 0.01] == "b/dear"


def test_a_bound_of_ones_own_is_in_the_grid() -> None:
    """The bound that was asked for, beside the standing ones."""
    found = curve(ALL, Axis.PARAMETERS, 0.65)

    assert {cell.utility for cell in found.cells} == {0.01, 0.05, 0.1, 0.2, 0.65}
    cheapest = next(cell.cheapest for cell in found.cells if (cell.loss, cell.utility) == (0.9, 0.65))
    assert isinstance(cheapest, Point)
    assert cheapest.fork is USELESS


def test_forks_without_a_number_are_named_with_the_reason() -> None:
    """On an axis that nobody stated there is no point, and nothing is a cheap fork."""
    found = curve(ALL, Axis.COMPUTE, 0.1)

    assert found.points == ()
    assert found.unplaced == tuple((each.name, "not known") for each in ALL)
    assert all(isinstance(cell.cheapest, Unmeasured) for cell in found.cells)


def test_a_conversion_is_no_edit() -> None:
    """A quantisation of the release changed everything and took nothing: it is not on the curve."""
    found = curve([fork("q/gguf", 10**6, 0.0, kind="quantized"), CHEAP], Axis.PARAMETERS, 0.1)

    assert [point.fork.name for point in found.points] == ["a/cheap"]
    assert "conversion" in found.unplaced[0][1]


def test_a_range_counts_by_its_upper_end() -> None:
    """Two forks of the same lower end: the one that surely took less is the cheaper."""
    wide = compute("directional-edit")
    narrow = Effort(
        weights=weights("adapter"), statements=NOTHING, compute=type(wide)(
            low=wide.low, high=wide.high / 10, basis=Basis.STATED, how="",
        ),
    )  # fmt: skip
    first = Observed(
        name="a/wide",
        effort=Effort(weights=weights("directional-edit"), statements=NOTHING, compute=wide),
        refusal_loss=DEAR.refusal_loss,
        utility_loss=DEAR.utility_loss,
    )
    second = Observed(
        name="b/narrow", effort=narrow, refusal_loss=DEAR.refusal_loss, utility_loss=DEAR.utility_loss
    )

    assert frontier(curve([first, second], Axis.COMPUTE, 0.1)) == ["b/narrow"]


@pytest.mark.parametrize("axis", [Axis.PARAMETERS, Axis.COMPUTE])
def test_the_order_of_forks_does_not_matter(axis: Axis) -> None:
    """The same forks give the same curve."""
    assert len({curve(order, axis, 0.1) for order in permutations(ALL)}) == 1
