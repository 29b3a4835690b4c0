"""`forkwatch report build|serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.output import data, say

app = typer.Typer(help="The site and the digest.", no_args_is_help=True)


@app.command("build")
@handled
def build(
    out: Annotated[Path | None, typer.Option("--out", help="Folder (default: in the state folder).")] = None,
) -> None:
    """Build the site and this week's digest from stored verdicts."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline.publish import publish

    with session() as context:
        published = publish(context, out)
    say(f"{published.forks} forks; digest: {published.digest}")
    data(str(published.site / "index.html"))


@app.command("serve")
@handled
def serve(
    port: Annotated[
        int, typer.Option("--port", help="Port on 127.0.0.1; 0 picks a free one.", min=0, max=65535)
    ] = 8787,
) -> None:
    """Serve the built site on this machine, until interrupted."""
    from forkwatch.cli.serve import serve_folder
    from forkwatch.errors import NothingToExamineError
    from forkwatch.state import find_state_dir

    site = find_state_dir().site
    if not (site / "index.html").is_file():
        raise NothingToExamineError(
            "there is no site yet", tip="Run `forkwatch run --once` or `forkwatch report build`."
        )
    serve_folder(site, port)
