"""Authentic, but at another temperature, in another number format, under another system prompt?

The pack holds authentic answers in several nuisance cells. *Authentic in one of them* is a union of
hypotheses, so the largest p-value over the cells is a p-value for it, with no correction: whichever cell is
the true one, its own p-value is too small with probability α at most. The price is power against what a
cell happens to explain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from detector.outputs.first_logprobs import NUMERIC_CELLS
from detector.outputs.interface import ALPHA, Sampling, TestResult
from detector.outputs.permutation import from_p, insufficient


def nuisance_p(by_cell: Mapping[str, TestResult], *, alpha: float = ALPHA) -> TestResult:
    """The test of *authentic in one of the cells*, from one equality test against each cell.

    Args:
        by_cell: cell to its result, all of one test. Cells that share no prompt with the outputs (n = 0) are
            left out; one that could not reach alpha leaves the whole undecided, as it may be the true one.
        alpha: level.
    """
    used = {name: one for name, one in by_cell.items() if one.n}
    if not used:
        test = next((one.test for one in by_cell.values()), "equality")
        return insufficient(f"{test}-nuisance", 0, "no cell of the pack shares a prompt with the outputs")
    test = f"{next(iter(used.values())).test}-nuisance"
    open_cells = [(name, one) for name, one in used.items() if one.p_value is None]
    if open_cells:
        name, undecided = open_cells[0]
        return insufficient(test, undecided.n, f"cell {name}: {undecided.reason}", needed=undecided.needed)
    best = best_cells(used)[0]
    p = used[best].p_value
    assert p is not None
    on = f"{used[best].n} answers against {len(used)} authentic cells, {best} the nearest"
    return from_p(test, p, used[best].n, alpha, on)


def best_cells(by_cell: Mapping[str, TestResult]) -> tuple[str, ...]:
    """Cells that were tested, the one that explains the outputs best first."""
    tested = {name: one.p_value for name, one in by_cell.items() if one.p_value is not None}
    return tuple(sorted(tested, key=lambda name: (-tested[name], not is_plain(name), name)))


def possible_cells(cells: Iterable[str], samplings: Iterable[Sampling]) -> tuple[str, ...]:
    """Cells that what is known of the sampling leaves open; fewer cells, more power.

    Outputs that are known to be drawn at temperature 1 rule out the cells of other temperatures, and with
    top_p 1 those of another top_p. Anything else leaves all cells.
    """
    known = tuple(samplings)
    plain_temperature = bool(known) and all(one.temperature == 1 for one in known)
    plain_top_p = bool(known) and all(one.top_p == 1 for one in known)
    return tuple(
        cell
        for cell in cells
        if not (plain_temperature and temperature_of(cell) not in {None, 1.0})
        and not (plain_top_p and cell.startswith("top-p-"))
    )


def is_plain(cell: str) -> bool:
    """Whether this is the setting that is claimed and no nuisance."""
    return cell == "seed"


def setting_of(cell: str) -> str:
    """The setting of a cell: number formats and engines are all the plain one, `seed`."""
    return "seed" if cell in NUMERIC_CELLS else cell


def temperature_of(cell: str) -> float | None:
    """Temperature that a cell differs by, or 1 for the plain one; None for other nuisances."""
    if is_plain(cell):
        return 1.0
    try:
        value = float(cell.removeprefix("temperature-")) if cell.startswith("temperature-") else 0.0
    except ValueError:
        return None
    return value if value > 0 else None
