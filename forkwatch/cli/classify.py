"""`forkwatch classify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data
from forkwatch.errors import Exit, SettingsError


@handled
def classify(
    outputs: Annotated[
        Path,
        typer.Argument(metavar="OUTPUTS", help="outputs.jsonl of `probe`, or scored.jsonl of `score`."),
    ],
    release: Annotated[
        str,
        typer.Option("--release", "-r", metavar="ORG/NAME", help="The release that it should be."),
    ],
    pack: Annotated[
        Path | None,
        typer.Option("--pack", metavar="DIR", help="Its reference pack: transcripts, samples, refusals."),
    ] = None,
    alpha: Annotated[
        float, typer.Option("--alpha", help="Chance of a wrong accusation, for each question.")
    ] = 0.01,
    sequential: Annotated[
        Path | None,
        typer.Option(
            "--sequential",
            metavar="FILE",
            help="Add to the stream in this file; only tests that hold however often one looks.",
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Say from outputs alone whether a model is the authentic release, and which fork it is if not.

    Exits with 0 (authentic, or a benign variant), 1 (modified, or refusals removed) or 3 (insufficient).
    docs/methodology/outputs.md says which tests run and what they cannot know.
    """
    from forkwatch.pipeline.classify import Request, run_classify
    from forkwatch.pipeline.classify_document import classify_document, lines
    from forkwatch.state import find_state_dir
    from reports.attribution import to_json

    if not 0 < alpha < 1:
        raise SettingsError(f"--alpha {alpha:g} is not between 0 and 1", tip="0.01 is usual.")
    request = Request(outputs=outputs, release=release, pack=pack, state=sequential, alpha=alpha)
    document = classify_document(run_classify(request, find_state_dir()))
    data(to_json(document).rstrip("\n") if json_output else "\n".join(lines(document)))
    if document.safety_removed:
        raise typer.Exit(Exit.FINDING)
    raise typer.Exit(_EXITS[document.label])


_EXITS = {
    "authentic": Exit.OK,
    "benign-variant": Exit.OK,
    "modified-known": Exit.FINDING,
    "modified-unknown": Exit.FINDING,
    "insufficient-evidence": Exit.INCONCLUSIVE,
}
