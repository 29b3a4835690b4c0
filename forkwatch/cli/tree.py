"""`forkwatch tree`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data, say
from forkwatch.errors import NothingToExamineError
from forkwatch.text import plain

if TYPE_CHECKING:
    from reports.tree import Branch, TreeEdge, TreeVerdict


@handled
def tree(
    release: Annotated[
        str | None, typer.Argument(metavar="ORG/NAME", help="Guarded release (default: the only one).")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Show the family of a release: what forks claim, what their weights prove, and what is inferred."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline.families import family_tree
    from forkwatch.pipeline.originals import find_release
    from reports.tree import branches
    from reports.tree_json import to_json

    with session() as context:
        document = family_tree(context, find_release(context, release))
    if document is None:
        raise NothingToExamineError(
            "no candidate is known for this release", tip="Run `forkwatch crawl` first."
        )
    if json_output:
        data(to_json(document).rstrip("\n"))
        return
    for branch in branches(document):
        data("  " * min(branch.depth, 40) + plain(_line(branch), 400))
    inferred = sum(count.count for count in document.inferred)
    own = sum(count.count for count in document.verdicts)
    say(f"{own} examined; {inferred} inferred from the fork that they claim to be a quantisation of")


def _line(branch: Branch) -> str:
    node = branch.node
    parts = [node.repo]
    if branch.edges:
        parts.append(f"[{', '.join(_edge(edge) for edge in branch.edges)}]")
    if branch.again:
        return " ".join([*parts, "(shown elsewhere)"])
    if node.role == "outside":
        parts.append("(not of this family)")
    if node.verdict is not None:
        parts.append(_verdict(node.verdict))
    elif node.role == "fork":
        parts.append("not examined")
    if node.gone_at is not None:
        parts.append(f"gone since {node.gone_at[:10]}")
    return " ".join(parts)


def _edge(edge: TreeEdge) -> str:
    return edge.kind if edge.relation is None else f"{edge.kind} {edge.relation}"


def _verdict(verdict: TreeVerdict) -> str:
    if verdict.inferred_from is None:
        return f"{verdict.label} ({verdict.certainty})"
    return f"{verdict.label} (inferred from {verdict.inferred_from}, not examined)"
