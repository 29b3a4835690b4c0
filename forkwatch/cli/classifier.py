"""`forkwatch classifier`: the classifier that tells a release's outputs from those of its forks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption, ReleaseOption, RequireIsolationOption
from forkwatch.cli.output import data, say, table

if TYPE_CHECKING:
    from reports.classifier import ClassifierDocument, PowerView

app = typer.Typer(help="Classifiers of outputs, one a release.", no_args_is_help=True)


@app.command("train")
@handled
def train(
    release: ReleaseOption = None,
    pack: Annotated[
        Path | None,
        typer.Option("--pack", help="Folder of a reference pack (default: draw answers, and make one)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where it goes (default: the state folder, from where it is published)."),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            "--samples", min=1, help="Without --pack: answers a probe, of each model in each setting."
        ),
    ] = 8,
    ratios: Annotated[
        int,
        typer.Option(
            "--ratios",
            min=0,
            help="Without --pack: score the release's answers under so many of its forks, too; see below.",
        ),
    ] = 0,
    require_isolation: RequireIsolationOption = False,
    json_output: JsonOption = False,
) -> None:
    """Train a release's classifier of outputs, and measure it on what it has not seen.

    Without --pack the release is asked in every nuisance setting, its measured forks are asked plainly, and
    the release scores the answers. A threshold for n outputs needs about 450 n answers of the release in each
    setting: 8 answers to each of 80 probes give one for a single output, and more outputs are not used. Where
    the pack is at hand, `classify` needs no threshold to test equality: it compares with the pack's answers.

    With --ratios, outputs that are scored under the same forks (`forkwatch score --fork`) are tested with
    their likelihood ratios beside the head: fewer outputs for forks that nobody knows. Each fork costs a
    pass over the release's answers here, and one over the outputs there.
    """
    from forkwatch.cli.session import isolating_settings, session
    from forkwatch.pipeline.classifier_pack import Drawing
    from forkwatch.pipeline.classifier_training import train_release
    from forkwatch.pipeline.originals import find_release, open_original
    from reports.classifier_json import to_json

    drawing = Drawing(samples=samples, witnesses=ratios)
    with session(isolating_settings(required=require_isolation)) as context:
        original = open_original(context, find_release(context, release))
        document, folder = train_release(context, original, pack=pack, out=out, drawing=drawing)
    if json_output:
        data(to_json(document).rstrip("\n"))
        return
    _show(document)
    say(f"{folder}: model.safetensors, config.json, card.md")


@app.command("card")
@handled
def card(release: ReleaseOption = None, json_output: JsonOption = False) -> None:
    """Print the card of a release's classifier: how good it is, how it is fooled, what it was trained on."""
    from forkwatch.cli.session import session
    from forkwatch.errors import NothingToExamineError
    from forkwatch.pipeline.classifier import stored_classifier
    from forkwatch.pipeline.originals import find_release
    from reports.classifier_json import to_json

    with session() as context:
        row = find_release(context, release)
        document = stored_classifier(context, row)
    if document is None:
        raise NothingToExamineError(
            f"{row.repo} has no classifier of outputs", tip="Train one with `forkwatch classifier train`."
        )
    data((to_json(document) if json_output else document.markdown).rstrip("\n"))


def _show(document: ClassifierDocument) -> None:
    for mode in document.modes:
        sizes = tuple(f"n = {one.n}" for one in mode.cells[0].powers)
        table(
            f"With {mode.needs}",
            ("held out", "family", "forks", "AUROC of one", *sizes),
            [
                (row.split, row.family, str(row.forks), f"{row.auroc:.2f}", *map(_power, row.powers))
                for row in mode.families
            ],
        )
        table(
            "False alarms",
            ("setting of the release", *sizes),
            [(row.cell, *map(_power, row.powers)) for row in mode.cells],
        )
        data(
            f"calibrated on {mode.outputs} outputs in the smallest setting: a threshold for up to "
            f"{mode.largest} outputs at once"
        )
    for sentence in document.left_out:
        say(f"left out: {sentence}")


def _power(view: PowerView) -> str:
    from reports.numbers import point, spread

    return f"{point(view.rate)} ({spread(view.rate)})"
