"""`forkwatch suite import|show`: prompt suites, ours and public ones."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data, data_json, say, table
from forkwatch.errors import SettingsError
from forkwatch.text import plain

if TYPE_CHECKING:
    from evals.interface import PromptSuite
    from evals.tables import Row

app = typer.Typer(help="Prompt suites (docs/suites.md).", no_args_is_help=True)

CORE = "core"


class KindChoice(StrEnum):
    """What the prompts of a file are, where it does not tell."""

    HARMFUL = "harmful"
    BENIGN = "benign"


@app.command("import")
@handled
def import_(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Files of a public set: CSV, JSON, JSON lines, Parquet; or their addresses on the Hub, "
            "hf://datasets/ORG/NAME[@REVISION]/FILE."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Suite file to write.")],
    format_name: Annotated[
        str | None, typer.Option("--format", help="Format of the files (default: told by their columns).")
    ] = None,
    kind: Annotated[
        KindChoice | None, typer.Option("--kind", help="What the prompts are (default: told by the file).")
    ] = None,
    suite_id: Annotated[
        str | None, typer.Option("--id", help="Name of the suite (default: that of the format).")
    ] = None,
    suite_version: Annotated[str, typer.Option("--suite-version", help="Its version.")] = "1",
) -> None:
    """Make a suite of public prompt sets.

    XSTest, StrongREJECT, HarmBench, JailbreakBench, SORRY-Bench, OR-Bench, AdvBench and MultiJail are known.
    Several files become one suite, e.g. the harmful and the benign prompts of JailbreakBench.
    """
    from evals.interface import PromptKind, SuiteError
    from evals.public import public_set
    from evals.public_suite import suite_bytes, suite_of
    from evals.suite import load_suite

    if output.exists():
        raise SettingsError(f"{output} exists already", tip="Choose another file, or remove it.")
    kinds = {KindChoice.HARMFUL: PromptKind.HARMFUL, KindChoice.BENIGN: PromptKind.BENIGN_TWIN}
    sets = [
        public_set(rows, name, format_name=format_name, kind=kinds[kind] if kind else None)
        for name, rows in _tables(files)
    ]
    names = dict.fromkeys(each.format for each in sets)
    suite = suite_of(sets, suite_id or "-".join(names), suite_version)
    try:
        output.write_bytes(suite_bytes(suite))
    except OSError as error:
        raise SettingsError(f"cannot write {output}: {error.strerror}", tip="Choose another file.") from error
    try:
        load_suite(output)  # what would not load later is said now
    except SuiteError:
        output.unlink()
        raise
    for file, each in zip(files, sets, strict=True):
        say(plain(f"{file.rpartition('/')[2]}: {len(each.prompts)} prompts, format {each.format}"))
        for reason, count in each.skipped:
            say(plain(f"  left out: {count} × {reason}"))
    data(plain(f"{suite.id}@{suite.version} {suite.digest}", 300))


def _tables(files: list[str]) -> list[tuple[str, list[Row]]]:
    """Name and rows of each file; the Hub is asked only where an address is given, at one commit."""
    from evals.tables import read_rows
    from forkwatch.cli.session import session
    from forkwatch.pipeline.public_files import dataset_rows
    from forkwatch.sections.hub import is_remote

    with ExitStack() as stack:
        context = stack.enter_context(session()) if any(map(is_remote, files)) else None
        return [
            dataset_rows(context, file)
            if context is not None and is_remote(file)
            else (Path(file).name, read_rows(Path(file)))
            for file in files
        ]


@app.command("show")
@handled
def show(
    suite: Annotated[str, typer.Argument(help="Suite file, or `core` for the built-in one.")] = CORE,
    json_output: JsonOption = False,
) -> None:
    """Say what a suite asks: how many prompts of each kind, topic, language and tier."""
    from evals.suite import CORE as CORE_FILE
    from evals.suite import load_suite

    loaded = load_suite(CORE_FILE if suite == CORE else Path(suite))
    if json_output:
        data_json(_document(loaded))
    else:
        _show(loaded)


def _document(suite: PromptSuite) -> dict[str, object]:
    from evals.interface import PromptKind, Tier

    def counts(attribute: str) -> dict[str, int]:
        return dict(Counter(str(getattr(prompt, attribute)) for prompt in suite.prompts))

    tiers = {
        tier.value: {kind.value: len(suite.at(tier).of(kind)) for kind in PromptKind}
        | {"choices": len(suite.at(tier).choices)}
        for tier in Tier
    }
    return {
        "schema": "forkwatch.suite/1",
        "id": suite.id,
        "version": suite.version,
        "digest": suite.digest,
        "prompts": len(suite.prompts),
        "headline": sum(not prompt.is_variant for prompt in suite.prompts),
        "choices": len(suite.choices),
        "topics": counts("topic"),
        "languages": counts("language"),
        "tiers": tiers,
    }


def _show(suite: PromptSuite) -> None:
    from evals.interface import PromptKind, Tier

    variants = sum(prompt.is_variant for prompt in suite.prompts)
    data(plain(f"{suite.id}@{suite.version} {suite.digest}", 300))
    data(
        f"  {len(suite.prompts)} prompts, of which {variants} repeat another; {len(suite.choices)} questions"
    )
    asked = {tier: suite.at(tier) for tier in Tier}
    rows = [
        (tier.value, *(str(len(part.of(kind))) for kind in PromptKind), str(len(part.choices)))
        for tier, part in asked.items()
    ]
    table(
        "Each tier holds those before it", ("tier", *(kind.value for kind in PromptKind), "questions"), rows
    )
    for what in ("topic", "language"):
        found = Counter(str(getattr(prompt, what)) for prompt in suite.prompts)
        shown = ", ".join(f"{name} {count}" for name, count in found.most_common())
        data(plain(f"  by {what}: {shown}", 1200))
