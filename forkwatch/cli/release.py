"""`forkwatch release add|list|verify`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data_json, say, table
from forkwatch.errors import NothingToExamineError, SettingsError

app = typer.Typer(help="The releases that are guarded.", no_args_is_help=True)


@app.command("add")
@handled
def add(
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME")],
    public_key: Annotated[Path, typer.Option("--public-key", help="PEM of the publisher's EC public key.")],
    suite: Annotated[
        Path | None, typer.Option("--suite", help="Prompt suite (default: the built-in one).")
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Commit, tag or branch to pin.")] = None,
    signature: Annotated[
        str, typer.Option("--signature", help="Path of the signature bundle.")
    ] = "model.sig",
) -> None:
    """Fetch a release, verify its signature, and guard it."""
    from evals.suite import load_suite
    from forkwatch.cli.session import session
    from forkwatch.pipeline.known import keep_release
    from forkwatch.pipeline.originals import add_release

    prompts = suite or Path(str(files("evals") / "prompts" / "core.json"))
    for file in (public_key, prompts):
        if not file.is_file():
            raise SettingsError(f"{file} is not a file", tip="Check the path.")
    load_suite(prompts)
    with session() as context:
        original = add_release(
            context,
            repo,
            public_key=public_key.read_text(),
            suite=prompts.read_bytes(),
            revision=revision,
            signature=signature,
        )
        keep_release(context, original)
    say(f"Guarding {original.name}: signature verified, {len(original.manifest.files)} files covered.")


@app.command("list")
@handled
def list_releases(json_output: JsonOption = False) -> None:
    """List the guarded releases."""
    from dataclasses import asdict

    from forkwatch.cli.session import session
    from forkwatch.pipeline.cards import published_card

    with session() as context:
        rows = context.store.releases()
        cards = {row.repo: published_card(context, row) for row in rows}
    if json_output:
        shown = [
            {
                "repo": row.repo,
                "commit": row.commit,
                "root_digest": row.root_digest,
                "signer": row.signer,
                "card": None if (card := cards[row.repo]) is None else asdict(card),
            }
            for row in rows
        ]
        data_json({"schema": "forkwatch.releases/1", "releases": shown})
        return
    table(
        "Guarded releases",
        ("release", "commit", "signer"),
        [(row.repo, row.commit[:12], row.signer) for row in rows],
    )


@app.command("verify")
@handled
def verify(
    repo: Annotated[str | None, typer.Argument(metavar="ORG/NAME")] = None, json_output: JsonOption = False
) -> None:
    """Verify the signature of one guarded release, or of all."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline.known import keep_release
    from forkwatch.pipeline.originals import find_release, open_original

    with session() as context:
        rows = (find_release(context, repo),) if repo else context.store.releases()
        if not rows:
            raise NothingToExamineError("no release is guarded")
        originals = [open_original(context, row) for row in rows]
        for original in originals:
            keep_release(context, original)
    if json_output:
        shown = [
            {
                "release": original.name,
                "signature": "verified",
                "signer": original.signer,
                "root_digest": original.root_digest,
            }
            for original in originals
        ]
        data_json({"schema": "forkwatch.verify/1", "releases": shown})
        return
    for original in originals:
        say(f"{original.name}: verified, {len(original.manifest.files)} files, signed by {original.signer}")
