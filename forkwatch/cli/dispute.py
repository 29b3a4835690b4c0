"""`forkwatch dispute open|resolve|withdraw|list`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption, ReleaseOption
from forkwatch.cli.output import data, data_json, say, table
from forkwatch.text import plain

if TYPE_CHECKING:
    from forkwatch.store.disputes import Dispute

app = typer.Typer(help="Disputes about verdicts. Nothing is ever deleted.", no_args_is_help=True)

RepoArgument = Annotated[str, typer.Argument(metavar="ORG/NAME")]
ByOption = Annotated[str, typer.Option("--by", help="Who says so; the page shows it.")]


class OutcomeChoice(StrEnum):
    """What can become of a dispute."""

    UPHELD = "upheld"
    CORRECTED = "corrected"
    WITHDRAWN = "withdrawn"
    DROPPED = "dropped"


@app.command("open")
@handled
def open_(
    repo: RepoArgument,
    reason: Annotated[str, typer.Option("--reason", help="What is said to be wrong; the page shows it.")],
    by: ByOption = "",
    release: ReleaseOption = None,
) -> None:
    """Note that somebody disputes the newest verdict about a repository."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline.disputes import open_dispute

    with session() as context:
        dispute = open_dispute(context, repo, release, reason=reason, by=by)
    _tell(dispute)


@app.command("resolve")
@handled
def resolve(
    dispute: Annotated[str, typer.Argument(metavar="ID", help="Of the dispute, like D-3.")],
    outcome: Annotated[
        OutcomeChoice,
        typer.Option(
            "--outcome",
            help="upheld: the verdict stands; corrected: a newer one replaced it; withdrawn: it is taken "
            "back; dropped: who opened it took it back.",
        ),
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; the page shows it.")],
    by: ByOption = "",
) -> None:
    """Decide an open dispute."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline import disputes
    from forkwatch.store.disputes import Status

    with session() as context:
        decided = disputes.resolve(context, dispute, Status(outcome.value), reason=reason, by=by)
    _tell(decided)


@app.command("withdraw")
@handled
def withdraw(
    repo: RepoArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; the page shows it.")],
    by: ByOption = "",
    release: ReleaseOption = None,
) -> None:
    """Take the newest verdict about a repository back: it stays in the log, marked as withdrawn."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline import disputes

    with session() as context:
        withdrawn = disputes.withdraw(context, repo, release, reason=reason, by=by)
    _tell(withdrawn)


@app.command("list")
@handled
def list_(json_output: JsonOption = False) -> None:
    """Show all disputes and withdrawals."""
    from dataclasses import asdict

    from forkwatch.cli.session import session
    from forkwatch.pipeline.disputes import all_disputes, dispute_view

    with session() as context:
        found = all_disputes(context)
    if json_output:
        rows = [{"release": release, **asdict(dispute_view(each, each.repo))} for release, each in found]
        data_json({"schema": "forkwatch.disputes/1", "disputes": rows})
        return
    if not found:
        say("no dispute and no withdrawal")
        return
    columns = ("id", "fork", "verdict", "since", "by", "status", "reason")
    table("Disputes", columns, [_row(dispute) for _release, dispute in found])


def _row(dispute: Dispute) -> tuple[str, ...]:
    since = f"{dispute.opened_at:%Y-%m-%d}"
    reason = dispute.decision or dispute.statement
    newest = dispute.label if dispute.current else f"{dispute.label} (replaced)"
    return (f"D-{dispute.number}", dispute.repo, newest, since, dispute.by, dispute.status.value, reason)


def _tell(dispute: Dispute) -> None:
    about = f"{dispute.repo}@{dispute.commit[:12]}: {dispute.label}"
    data(plain(f"D-{dispute.number}: {dispute.status.value}; {about}", 400))
    say("`forkwatch report build` shows it on the site.")
