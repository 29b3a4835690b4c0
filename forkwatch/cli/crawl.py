"""`forkwatch crawl`."""

from __future__ import annotations

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption, ReleaseOption
from forkwatch.cli.output import data_json, table
from forkwatch.errors import NothingToExamineError


@handled
def crawl(release: ReleaseOption = None, json_output: JsonOption = False) -> None:
    """Find candidates for forks of a release, without reading any weights."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline.originals import find_release, open_original
    from forkwatch.pipeline.run import crawl as find_candidates

    with session() as context:
        original = open_original(context, find_release(context, release))
        before = context.hub.cost
        found = find_candidates(context, original)
        cost = context.hub.cost - before
    if not found:
        raise NothingToExamineError(
            f"no candidate was found for {original.repo}", tip="Check [crawl] and the Hub."
        )
    if json_output:
        candidates = [
            {
                "repo": candidate.repo,
                "channels": [str(channel) for channel in candidate.channels],
                "claims": [{"base": claim.base, "statement": claim.statement} for claim in candidate.claims],
            }
            for candidate in found
        ]
        data_json(
            {
                "schema": "forkwatch.crawl/1",
                "release": original.name,
                "candidates": candidates,
                "cost": {"requests": cost.requests, "bytes_downloaded": cost.bytes_downloaded},
            }
        )
        return
    rows = [
        (
            candidate.repo,
            ", ".join(candidate.channels),
            candidate.claims[0].statement if candidate.claims else "",
        )
        for candidate in found
    ]
    title = f"{len(found)} candidates for {original.repo} ({cost.requests} requests)"
    table(title, ("repository", "found by", "claim"), rows)
