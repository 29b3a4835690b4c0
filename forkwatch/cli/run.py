"""`forkwatch run`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption, RequireIsolationOption
from forkwatch.cli.output import data, data_json
from forkwatch.errors import SettingsError


@handled
def run(
    once: Annotated[bool, typer.Option("--once", help="Run all stages once and exit.")] = False,
    require_isolation: RequireIsolationOption = False,
    json_output: JsonOption = False,
) -> None:
    """Discover, compare, evaluate, judge and publish for every guarded release."""
    from forkwatch.cli.session import isolating_settings, session
    from forkwatch.pipeline.publish import publish
    from forkwatch.pipeline.run import run_once

    if not once:
        raise SettingsError("say --once", tip="`forkwatch daemon` repeats it on schedule.")
    with session(isolating_settings(required=require_isolation)) as context:
        tally = run_once(context)
        published = publish(context)
    if json_output:
        data_json({"schema": "forkwatch.run/1", **asdict(tally), "site": str(published.site)})
        return
    for line in tally.to_decide:
        data(f"to decide: {line}")
    data(
        f"{tally.candidates} candidates ({tally.new_candidates} new), {tally.scanned} scanned, "
        f"{tally.verdicts_changed} verdicts changed, {len(tally.gaps)} could not be examined\n"
        f"{tally.results_computed} results computed ({tally.diffs} diffs, {tally.evaluations} evaluations), "
        f"{tally.results_reused} reused; {tally.bytes_downloaded:,} bytes in {tally.requests} requests\n"
        f"site: {published.site / 'index.html'}"
    )
