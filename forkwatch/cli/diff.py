"""`forkwatch diff`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data, data_json, progress
from forkwatch.text import plain

if TYPE_CHECKING:
    from crawler.interface import ByteSource
    from forkwatch.pipeline.pair import PairDiff


@handled
def diff(
    base: Annotated[str, typer.Argument(help="Folder or ORG/NAME[@REVISION].")],
    fork: Annotated[str, typer.Argument(help="Folder or ORG/NAME[@REVISION].")],
    json_output: JsonOption = False,
) -> None:
    """Compare the weights of any two checkpoints, and name the edit."""
    from forkwatch.pipeline.pair import compare_pair

    with ExitStack() as stack:
        first, second = _sides(stack, base, fork)
        result = compare_pair(base, first, fork, second, stack.enter_context(progress()).progress)
    if json_output:
        data_json(result.as_json())
        return
    data("\n".join(plain(line, 400) for line in _lines(result)))


def _sides(stack: ExitStack, base: str, fork: str) -> tuple[dict[str, ByteSource], dict[str, ByteSource]]:
    """Both sides; a session is opened only when one of them is a repository."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline.pair import folder_files, repo_files

    if Path(base).is_dir() and Path(fork).is_dir():
        return folder_files(Path(base)), folder_files(Path(fork))
    context = stack.enter_context(session())
    first, second = (
        folder_files(Path(side)) if Path(side).is_dir() else repo_files(context, side)
        for side in (base, fork)
    )
    return first, second


def _lines(result: PairDiff) -> list[str]:
    from forkwatch.policy.findings import describe_edit

    diff = result.diff
    changed = [tensor for tensor in diff.tensors if tensor.status != "identical"]
    lines = [
        f"{result.fork} against {result.base}",
        f"  lineage: {diff.lineage.status}",
        *(f"  edit: {edit.kind} ({edit.certainty}): {describe_edit(edit)}" for edit in diff.edits),
        f"  {len(changed)} of {len(diff.tensors)} tensors differ; {diff.bytes_read:,} bytes read",
    ]
    largest = sorted(changed, key=lambda tensor: -tensor.relative_norm)[:10]
    for tensor in largest:
        rank = "full rank" if tensor.rank is None else f"rank {tensor.rank}"
        lines.append(f"    {tensor.name}: {tensor.status}, {tensor.relative_norm:.2%} of the norm, {rank}")
    return lines
