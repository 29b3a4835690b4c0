"""`forkwatch status`."""

from __future__ import annotations

from collections import Counter

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data_json, say, table
from reports.interface import ReleaseView


@handled
def status(json_output: JsonOption = False) -> None:
    """What is known: releases, candidates, verdicts, and what has none."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline.publish import site_view

    with session() as context:
        view = site_view(context)
        root = context.state.root
    releases = [
        {
            "release": f"{release.repo}@{release.commit}",
            "verdicts": dict(_counts(release)),
            "without_verdict": {gap.repo: gap.reason for gap in release.gaps},
            "signature": release.original.signature,
            "to_decide": len(release.to_decide),
            "last_result": max((scan.scanned_at for scan in release.scans), default=None),
        }
        for release in view.releases
    ]
    if json_output:
        data_json({"schema": "forkwatch.status/1", "state": str(root), "releases": releases})
        return
    say(f"state: {root}")
    if not view.releases:
        say("no release is guarded; `forkwatch release add` adds one")
        return
    rows = [
        (
            release.repo,
            str(len(release.scans)),
            ", ".join(f"{n} {label}" for label, n in _counts(release)),
            str(len(release.gaps)),
            str(len(release.to_decide)),
        )
        for release in view.releases
    ]
    table("Guarded releases", ("release", "forks", "verdicts", "without verdict", "changed upstream"), rows)


def _counts(release: ReleaseView) -> list[tuple[str, int]]:
    """Verdict labels with how many forks carry them, by label."""
    return sorted(Counter(scan.verdict.label for scan in release.scans).items())
