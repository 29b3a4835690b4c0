"""`forkwatch lineage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data, data_json, say, table
from forkwatch.errors import Exit
from forkwatch.text import plain

if TYPE_CHECKING:
    from detector.index.search import Relation
    from forkwatch.pipeline.placement import Placement

RELATED = ("proved", "consistent-with")
SHOWN = 20
"""Rows of the table; `--json` has all that were judged."""


@handled
def lineage(
    target: Annotated[str, typer.Argument(help="Folder, weight file, ORG/NAME or ORG/NAME@REVISION.")],
    json_output: JsonOption = False,
) -> None:
    """Say which known models a checkpoint shares its ancestry with, from a fraction of its bytes."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline.placement import place

    with session() as context:
        placement = place(context, target)
    if json_output:
        data_json(placement.as_json())
    else:
        _show(placement)
    if not placement.search.comparable:
        raise typer.Exit(Exit.INCONCLUSIVE)


def _show(placement: Placement) -> None:
    search = placement.search
    data(plain(f"{placement.target}: {placement.summary}", 600))
    data(f"  p-values corrected for {search.known} models (Holm); related from 1e-6")
    for base in placement.claimed:
        data(plain(f"  the card claims {base.repo}: {base.standing} by the weights"))
    for file, reason in search.broken.items():
        say(plain(f"  not searched: {file}: {reason}", 400))
    if search.relations:
        columns = ("model", "kind", "status", "p", "matched", "correlation", "by", "layers")
        table(
            "Known models, the nearest first",
            columns,
            [_row(relation) for relation in search.relations[:SHOWN]],
        )
    if placement.requests:
        read = f"{placement.bytes_read:,} of {placement.bytes_total:,} bytes"
        data(f"  cost: {read}, {placement.requests} requests, {placement.seconds:.1f} s")


def _row(relation: Relation) -> tuple[str, ...]:
    power = round(relation.corrected_log10_p)
    related = relation.status in RELATED
    layers = f"{relation.aligned} traced" + (f", {relation.moved} moved" if relation.moved else "")
    return (
        relation.identity.name,
        relation.identity.kind,
        relation.status,
        "1" if power >= 0 else f"1e{power}",
        f"{relation.matched} of {relation.compared}",
        f"{relation.correlation:.4f}",
        relation.by if related else "",
        layers if related else "",
    )
