"""`forkwatch release check|adopt|keep`: what became of guarded releases upstream, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data, data_json, say
from forkwatch.cli.trust_options import ReregisteredOption, require_text
from forkwatch.errors import Exit, NothingToExamineError, SettingsError

if TYPE_CHECKING:
    from forkwatch.pipeline.context import Context
    from forkwatch.pipeline.upstream import Watched
    from forkwatch.store.models import Release
    from forkwatch.store.upstream import UpstreamEvent

Repo = Annotated[str, typer.Argument(metavar="ORG/NAME")]


@handled
def check(
    repo: Annotated[str | None, typer.Argument(metavar="ORG/NAME")] = None, json_output: JsonOption = False
) -> None:
    """Look at guarded releases on the Hub, without their weights. Exit 1: there is something to decide."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline.originals import find_releases
    from forkwatch.pipeline.upstream import sentence, watch

    with session() as context:
        rows = find_releases(context, repo)
        looks = [watch(context, row) for row in rows]
    waiting = sum(len(look.open) for look in looks)
    if json_output:
        data_json({"schema": "forkwatch.release-check/1", "releases": [_shown(look) for look in looks]})
    else:
        for look in looks:
            for event in look.open:
                data(sentence(look.row, event))
            if not look.open:
                data(f"{look.row.repo}: nothing to decide; pinned at {look.row.commit[:12]}")
        if waiting:
            say("Decide: `forkwatch release adopt ORG/NAME --revision COMMIT`, or `… release keep ORG/NAME`.")
    raise typer.Exit(Exit.FINDING if waiting else Exit.OK)


def _shown(look: Watched) -> dict[str, Any]:
    row = look.row
    return {
        "repo": row.repo,
        "commit": row.commit,
        "signature": row.status,
        "signer": row.signer,
        "new": look.new,
        "to_decide": [_event(event) for event in look.open],
    }


def _event(event: UpstreamEvent) -> dict[str, str]:
    change = event.change
    return {
        "kind": str(change.kind),
        "before": change.before,
        "after": change.after,
        "note": change.note,
        "at": event.at.isoformat(timespec="seconds"),
    }


@handled
def adopt(
    repo: Repo,
    revision: Annotated[
        str | None,
        typer.Option("--revision", help="Commit, tag or branch; needed when a commit waits."),
    ] = None,
    reregistered: ReregisteredOption = False,
) -> None:
    """Move the pin of a guarded release, with the trust that it has; verdicts about the old pin stay."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline.known import keep_release
    from forkwatch.pipeline.originals import add_release, find_release
    from forkwatch.pipeline.release_section import require_agreement, section_of
    from forkwatch.trust import STATES, load_policy

    require_text(revision=revision)
    with session() as context:
        row = find_release(context, repo)
        section = section_of(context.settings, repo)
        if section is not None and section.revision is not None:
            raise SettingsError(
                f"the settings pin {repo} at {section.revision[:12]}",
                tip=f"Change its revision there, then `forkwatch release add {repo} --replace`.",
            )
        require_agreement(context.settings, row)
        original = add_release(
            context,
            repo,
            policy=load_policy(row.trust),
            revision=_reviewed(context, row) if revision is None else revision,
            signature=row.signature,
            replace=True,
            reregistered=reregistered,
        )
        keep_release(context, original)
    say(f"Guarding {original.name}: {STATES[original.signature]}. It was at {row.commit[:12]}.")
    if section is not None and original.repo != row.repo:
        say(f"The settings still call it {row.repo}: rename the section, or nothing there is looked at.")


def _reviewed(context: Context, row: Release) -> str:
    """The pinned commit, unless another one waits: a later look may have noted that after somebody's review.

    Raises:
        SettingsError: one waits.
    """
    from forkwatch.pipeline.upstream import waiting_commit

    commit = waiting_commit(context, row)
    if commit is not None:
        raise SettingsError(
            f"{row.repo}: which commit? {commit} waits, and may not be the one that you have looked at",
            tip=f"Look at it, then `forkwatch release adopt {row.repo} --revision {commit}`.",
        )
    return row.commit


@handled
def keep(repo: Repo) -> None:
    """Decide that a guarded release stays at its pin: what is open is closed, and not noted again."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline.originals import find_release
    from forkwatch.pipeline.upstream import sentence
    from forkwatch.store.upstream import keep_pin

    with session() as context:
        row = find_release(context, repo)
        closed = keep_pin(context.store, row.id or 0)
    if not closed:
        raise NothingToExamineError(
            f"there is nothing to keep {repo} from",
            tip="`forkwatch release check` looks again; what the settings say is settled by `release add`.",
        )
    for event in closed:
        say(f"Closed: {sentence(row, event)}")
    say(f"{repo} stays at {row.commit[:12]}: {len(closed)} events closed.")
