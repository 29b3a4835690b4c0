"""`forkwatch digest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.output import data, say
from forkwatch.errors import Exit, SettingsError
from forkwatch.text import plain


@handled
def digest(
    week: Annotated[
        str | None,
        typer.Option("--week", help="ISO week (default: the last one that is over).", metavar="2026-W48"),
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Print the text; write and send nothing.")
    ] = False,
    send: Annotated[
        bool, typer.Option("--send", help="Send it to the recipients in the settings who have not got it.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for .html, .txt and .eml (default: in the state folder)."),
    ] = None,
) -> None:
    """Write the digest of a week, and send it: once to each recipient."""
    from forkwatch.cli.session import session
    from forkwatch.cli.writing import writing_to
    from forkwatch.pipeline import mailing
    from reports.mail import write_digest

    if preview and (send or out is not None):
        raise SettingsError("--preview writes and sends nothing", tip="Leave --send and --out out.")
    with session() as context:
        made = mailing.digest_of(context, week)
        if preview:
            data("\n".join(plain(line, 600) for line in made.text.splitlines()))
            return
        folder = out or context.state.digests
        with writing_to(folder):
            files = write_digest(made, folder)
        deliveries = mailing.send(context, made) if send else ()
    data(f"{files.page}\n{files.text}\n{files.mail}")
    for delivery in deliveries:
        note = f" ({delivery.note})" if delivery.note else ""
        say(plain(f"{delivery.recipient}: {delivery.state}{note}", 400))
    if any(delivery.state == "failed" for delivery in deliveries):
        raise typer.Exit(Exit.HUB)
