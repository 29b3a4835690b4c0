"""`forkwatch index add|list|remove`."""

from __future__ import annotations

from typing import Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data_json, say, table
from forkwatch.text import plain

app = typer.Typer(help="The models that lineage is searched in.", no_args_is_help=True)


@app.command("add")
@handled
def add(
    target: Annotated[str, typer.Argument(help="Folder, weight file, ORG/NAME or ORG/NAME@REVISION.")],
    name: Annotated[
        str | None, typer.Option("--name", help="What to call it (default: the repository and commit).")
    ] = None,
) -> None:
    """Make a model known, from a fraction of its bytes. Guarded releases are known by themselves."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline.known import add_model

    with session() as context:
        added = add_model(context, target, name=name)
    say(
        plain(f"Known: {added.identity.name}, {len(added.shape.layers)} layers of width {added.shape.width}.")
    )


@app.command("list")
@handled
def list_known(json_output: JsonOption = False) -> None:
    """List the known models."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline.known import list_models

    with session() as context:
        models, broken = list_models(context)
    if json_output:
        shown = [
            {
                "name": identity.name,
                "kind": identity.kind.value,
                "repo": identity.repo,
                "commit": identity.commit,
                "root_digest": identity.root_digest,
                "parameters": shape.parameters,
                "width": shape.width,
                "layers": len(shape.layers),
            }
            for identity, shape in models
        ]
        data_json({"schema": "forkwatch.index/1", "models": shown, "unreadable": broken})
        return
    for file, reason in broken.items():
        say(plain(f"unreadable: {file}: {reason}", 400))
    rows = [
        (identity.name, identity.kind, f"{shape.parameters:,}", str(shape.width), str(len(shape.layers)))
        for identity, shape in models
    ]
    table("Known models", ("model", "kind", "parameters", "width", "layers"), rows)


@app.command("remove")
@handled
def remove(name: Annotated[str, typer.Argument(help="As `forkwatch index list` shows it.")]) -> None:
    """Forget a model."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline.known import remove_model

    with session() as context:
        remove_model(context, name)
    say(plain(f"Forgotten: {name}."))
