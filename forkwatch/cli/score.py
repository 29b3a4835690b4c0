"""`forkwatch score`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import RequireIsolationOption
from forkwatch.cli.output import say
from forkwatch.errors import SettingsError
from forkwatch.text import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detector.outputs.interface import Output
    from evals.outputs.interface import Model
    from forkwatch.pipeline.context import Context
    from forkwatch.pipeline.scoring import Scorer


@handled
def score(
    outputs: Annotated[Path, typer.Argument(metavar="OUTPUTS", help="File of outputs, one a line as JSON.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Write the scored outputs here.")],
    authentic: Annotated[
        Path | None,
        typer.Option("--authentic", help="Folder of the authentic model.", file_okay=False, exists=True),
    ] = None,
    release: Annotated[
        str | None,
        typer.Option("--release", "-r", help="The guarded release instead.", metavar="ORG/NAME"),
    ] = None,
    fork: Annotated[
        list[str] | None,
        typer.Option(
            "--fork",
            help="Score under these weights too: a path, NAME=PATH, or ORG/NAME on the Hub. Repeatable.",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.")] = None,
    require_isolation: RequireIsolationOption = False,
) -> None:
    """Say how likely the authentic model, and forks of it, would have given these outputs.

    No model answers anything: outputs are read once, token by token, in the confined child.
    """
    from detector.outputs.files import read_outputs, write_entries
    from forkwatch.cli.evaluate import device_settings
    from forkwatch.cli.session import session
    from forkwatch.pipeline.scoring import score_outputs
    from forkwatch.pipeline.scratch import scratch_folder

    if (authentic is None) == (release is None):
        raise SettingsError(
            "which model is the authentic one?", tip="Give --authentic FOLDER, or --release ORG/NAME."
        )
    settings = device_settings(device, require_isolation=require_isolation)
    read = read_outputs(outputs)
    with ExitStack() as stack:
        context = stack.enter_context(session(settings))
        scratch = stack.enter_context(scratch_folder(context))
        scorer = _scorer(context, authentic, release, read)
        forks = [_fork(context, name, scratch / f"fork-{n}") for n, name in enumerate(fork or [])]
        found = score_outputs(read, scorer, forks, settings.evaluation, scratch / "child", context.talk)
    count = write_entries(out, found.entries)
    for name, reason in found.misfits.items():
        say(f"  {plain(name, 80)} has no scores: {plain(reason, 200)}")
    say(f"Wrote {out}: {count} outputs, {found.scored} of them scored under {plain(scorer.name, 80)}.")


def _scorer(
    context: Context, authentic: Path | None, release: str | None, outputs: Sequence[Output]
) -> Scorer:
    """The release; its private probes are told by their ids."""
    from forkwatch.pipeline.evaluation_subject import local_subject
    from forkwatch.pipeline.originals import find_release, open_original
    from forkwatch.pipeline.probing import past_probes
    from forkwatch.pipeline.scoring import Scorer
    from forkwatch.pipeline.sides import LocalSide

    if authentic is not None:
        subject = local_subject(LocalSide(str(authentic), authentic), None)
        return Scorer(subject.name, subject.folder)
    row = find_release(context, release)
    original = open_original(context, row)
    probes = past_probes(context, row, (output.prompt_id for output in outputs))
    return Scorer(original.name, original.folder, original.suite, probes)


def _fork(context: Context, name: str, folder: Path) -> Model:
    """Weights to score under, fetched where they are on the Hub.

    Raises:
        SettingsError: there are none of that name.
        CrawlerError: they could not be fetched.
    """
    from evals.outputs.interface import Model
    from forkwatch.pipeline.sides import LocalSide, local_files, parse_side
    from forkwatch.pipeline.stages import materialise

    label, named, path = name.partition("=")
    side = parse_side(path if named else name)
    if isinstance(side, LocalSide):
        return Model(label if named else side.path.resolve().name, local_files(side))
    snapshot = context.hub.snapshot(side.repo, side.revision)
    return Model(f"{snapshot.repo}@{snapshot.commit}", materialise(context, snapshot, folder))
