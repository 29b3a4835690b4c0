"""`forkwatch effort`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data, say, table
from forkwatch.errors import NothingToExamineError

if TYPE_CHECKING:
    from reports.effort import CheapestView, EffortDocument, EffortPointView
    from reports.scan import NumberView


class AxisChoice(StrEnum):
    """What effort is counted in."""

    COMPUTE = "compute"
    STEPS = "steps"
    EXAMPLES = "examples"
    PARAMETERS = "parameters"
    RANK = "rank"
    ENERGY = "energy"


UNITS = {
    "compute": "FLOPs",
    "steps": "steps",
    "examples": "examples",
    "parameters": "values changed",
    "rank": "rank",
    "energy": "relative norm",
}


@handled
def effort(
    release: Annotated[
        str | None, typer.Argument(metavar="RELEASE", help="Guarded release (default: the only one).")
    ] = None,
    axis: Annotated[
        AxisChoice, typer.Option("--axis", help="What effort is counted in.")
    ] = AxisChoice.COMPUTE,
    utility_loss: Annotated[
        float, typer.Option("--utility-loss", min=0.0, max=1.0, help="Most usefulness a fork may have lost.")
    ] = 0.1,
    json_output: JsonOption = False,
) -> None:
    """Say what the observed forks of a release took to lose refusals: an upper bound on the least effort."""
    from evals.frontier import Axis
    from forkwatch.cli.session import session
    from forkwatch.pipeline.effort import observe
    from forkwatch.pipeline.effort_document import effort_document
    from forkwatch.pipeline.originals import find_release, open_original
    from reports.effort_json import to_json

    with session() as context:
        original = open_original(context, find_release(context, release))
        forks = observe(context, original)
    if not forks:
        raise NothingToExamineError(
            f"no fork of {original.repo} has measured refusals yet",
            tip="Run `forkwatch run --once`, or `forkwatch scan` a fork.",
        )
    document = effort_document(original.name, forks, Axis(axis.value), utility_loss)
    if json_output:
        data(to_json(document).rstrip("\n"))
    else:
        _show(document)


def _show(document: EffortDocument) -> None:
    unit = UNITS[document.axis]
    table(
        f"Forks of {document.release}; * on the frontier at ≤ {document.utility_loss:.0%} usefulness lost",
        ("fork", "edit", unit, "basis", "refusals lost", "usefulness lost", ""),
        [_row(point) for point in document.points],
    )
    table(
        f"Cheapest observed ({unit}, upper end)",
        ("refusals lost", *(f"≤ {bound:.0%} usefulness" for bound in _bounds(document))),
        _grid(document),
    )
    for unplaced in document.unplaced:
        say(f"{unplaced.fork}: not placed: {unplaced.reason}")
    for limit in document.limits:
        say(limit)


def _row(point: EffortPointView) -> tuple[str, ...]:
    repo, _, commit = point.fork.partition("@")
    return (
        f"{repo}@{commit[:12]}",
        ", ".join(point.kinds),
        _span(point),
        point.basis,
        _rate(point.refusal_loss),
        _rate(point.utility_loss),
        "*" if point.on_frontier else "",
    )


def _span(point: EffortPointView) -> str:
    return f"{point.low:.3g}" if point.low == point.high else f"{point.low:.3g} to {point.high:.3g}"


def _rate(number: NumberView) -> str:
    from reports.numbers import point, spread

    return f"{point(number)} ({spread(number)})"


def _bounds(document: EffortDocument) -> list[float]:
    return sorted({cell.utility_loss for cell in document.cheapest})


def _grid(document: EffortDocument) -> list[tuple[str, ...]]:
    rows: dict[float, dict[float, CheapestView]] = {}
    for cell in document.cheapest:
        rows.setdefault(cell.refusal_loss, {})[cell.utility_loss] = cell
    return [
        (f"≥ {loss:.0%}", *(_cheapest(row[bound]) for bound in _bounds(document)))
        for loss, row in sorted(rows.items())
    ]


def _cheapest(cell: CheapestView) -> str:
    if cell.effort is None:
        return "none observed"
    return f"{cell.effort:.3g}, {', '.join(cell.kinds)} ({cell.basis})"
