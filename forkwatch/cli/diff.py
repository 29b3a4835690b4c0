"""`forkwatch diff`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption, SeverityChoice
from forkwatch.cli.output import data, progress, say, stdout
from forkwatch.errors import Exit, SettingsError

if TYPE_CHECKING:
    from forkwatch.pipeline.pair import PairDepth, PairDiff
    from forkwatch.pipeline.sides import Side

_SIDE = r"Folder, .safetensors or .gguf file, ORG/NAME\[@REVISION], or ORG/NAME\[@REVISION]:path/in/repo."
"""Brackets would be markup."""


class DiffDepth(StrEnum):
    """How closely to compare."""

    SKETCH = "sketch"
    FULL = "full"


@handled
def diff(
    base: Annotated[str, typer.Argument(help=_SIDE)],
    fork: Annotated[str, typer.Argument(help=_SIDE)],
    depth: Annotated[
        DiffDepth | None,
        typer.Option(
            "--depth",
            help="sketch: sampled rows, nothing is downloaded, no edit proved; full: every value. "
            "Default: full, and sketch when a side is on the Hub.",
        ),
    ] = None,
    parent: Annotated[
        list[str] | None,
        typer.Option(
            "--parent", help="Another model that FORK may be merged from; again for more. Full depth only."
        ),
    ] = None,
    svg: Annotated[Path | None, typer.Option("--svg", help="Write the picture to a file, too.")] = None,
    fail_on: Annotated[
        SeverityChoice | None,
        typer.Option("--fail-on", help="Exit with 1 when an edit's finding is at least this severe."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Compare the weights of any two checkpoints, name the edit, and draw where it is."""
    from forkwatch.pipeline.pair import PairDepth
    from forkwatch.pipeline.pair_document import pair_document
    from forkwatch.pipeline.sides import LocalSide, parse_side
    from reports.diff import to_json

    if svg is not None:
        _check_target(svg)
    first, second = parse_side(base), parse_side(fork)
    local = isinstance(first, LocalSide) and isinstance(second, LocalSide)
    chosen = PairDepth(depth or (PairDepth.FULL if local else PairDepth.SKETCH))
    parents = [parse_side(name) for name in parent or ()]
    if parents and chosen is PairDepth.SKETCH:
        raise SettingsError("a merge cannot be proved from sampled rows", tip="Add --depth full to --parent.")
    try:
        pair = _compare([first, second, *parents], chosen, said=depth is not None)
    except KeyboardInterrupt as error:
        again = "starts again" if chosen is PairDepth.SKETCH else "goes on where it was"
        say(f"forkwatch: interrupted; the same command {again}")
        raise typer.Exit(130) from error
    document = pair_document(pair)
    if svg is not None:
        from reports.svg import write_svg

        try:
            write_svg(document, svg)
        except OSError as error:
            raise SettingsError(
                f"cannot write {svg}: {error.strerror}", tip="Choose another file."
            ) from error
    if json_output:
        data(to_json(document).removesuffix("\n"))
    else:
        from forkwatch.picture import draw

        draw(document, stdout())
    raise typer.Exit(_exit(pair, fail_on))


def _compare(sides: list[Side], depth: PairDepth, *, said: bool) -> PairDiff:
    """Open all sides and compare the first two; a session is opened only when one of them is a repository.

    Args:
        sides: base, fork, and possible parents.
        depth: how closely.
        said: the user named the depth.
    """
    from forkwatch.pipeline.pair import PairDepth, compare_checkpoints
    from forkwatch.pipeline.sides import LocalSide, open_local, open_repo
    from forkwatch.state import find_state_dir

    with ExitStack() as stack:
        local = [open_local(side) for side in sides if isinstance(side, LocalSide)]
        if len(local) == len(sides):
            talk = stack.enter_context(progress())
            return compare_checkpoints(local, depth, find_state_dir(), talk)
        from forkwatch.cli.session import session

        context = stack.enter_context(session())
        before, download = context.hub.cost, depth is PairDepth.FULL
        if not said:
            say("a side is on the Hub: sampled rows only; `--depth full` downloads and compares every value")
        opened = [
            open_local(side)
            if isinstance(side, LocalSide)
            else open_repo(side, context.hub, download=download, progress=context.talk.progress)
            for side in sides
        ]
        pair = compare_checkpoints(opened, depth, context.state, context.talk)
        return replace(pair, spent=context.hub.cost - before)


def _check_target(svg: Path) -> None:
    """A place that cannot be written to is said before the work, not after."""
    if svg.is_dir() or not svg.absolute().parent.is_dir():
        what = "is a folder" if svg.is_dir() else "lies in a folder that does not exist"
        raise SettingsError(f"--svg: {svg} {what}", tip="Name a file in an existing folder.")


def _exit(pair: PairDiff, fail_on: SeverityChoice | None) -> Exit:
    """1 for an edit whose finding reaches `--fail-on`; 3 when none could be named, or a copy only sampled."""
    from detector.interface import Certainty, EditKind

    edits = pair.found.edits
    if fail_on is not None:
        from forkwatch.policy.catalogue import SEVERITIES
        from forkwatch.policy.findings import edit_severity

        floor = SEVERITIES.index(fail_on.value)
        if any(SEVERITIES.index(severity) >= floor for edit in edits if (severity := edit_severity(edit))):
            return Exit.FINDING
    settled = any(
        edit.kind is not EditKind.UNKNOWN
        and (edit.kind is not EditKind.IDENTICAL or edit.certainty is Certainty.PROVED)
        for edit in edits
    )
    return Exit.OK if settled else Exit.INCONCLUSIVE
