"""`forkwatch status`."""

from __future__ import annotations

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data_json, say, table


@handled
def status(json_output: JsonOption = False) -> None:
    """What is known: releases, candidates, verdicts, and what has none."""
    from forkwatch.cli.session import session
    from forkwatch.store.standing import gaps, standing
    from forkwatch.store.upstream import upstream_events

    with session() as context:
        store, root = context.store, context.state.root
        found = [
            (
                row,
                standing(store, row.id or 0),
                sum(event.decision is None for event in upstream_events(store, row.id or 0)),
            )
            for row in store.releases()
        ]
        if json_output:
            releases = [
                {
                    "release": f"{row.repo}@{row.commit}",
                    "verdicts": dict(stands.labels),
                    "without_verdict": dict(gaps(store, row.id or 0)),
                    "signature": row.status,
                    "to_decide": to_decide,
                    "last_result": stands.last_result,
                }
                for row, stands, to_decide in found
            ]
    if json_output:
        data_json({"schema": "forkwatch.status/1", "state": str(root), "releases": releases})
        return
    say(f"state: {root}")
    if not found:
        say("no release is guarded; `forkwatch release add` adds one")
        return
    rows = [
        (
            row.repo,
            str(sum(count for _, count in stands.labels)),
            ", ".join(f"{count} {label}" for label, count in stands.labels),
            str(stands.gaps),
            str(to_decide),
        )
        for row, stands, to_decide in found
    ]
    table("Guarded releases", ("release", "forks", "verdicts", "without verdict", "changed upstream"), rows)
