"""`forkwatch demo`."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data, data_json, progress, say, table
from forkwatch.errors import Exit, SettingsError

if TYPE_CHECKING:
    from forkwatch.demo.truth import Agreement
    from forkwatch.pipeline.publish import Published
    from forkwatch.settings import Settings
    from forkwatch.state import StateDir


class Family(StrEnum):
    """Model families the demo can build."""

    TINY = "tiny"
    SMOLLM2 = "smollm2"


@handled
def demo(
    family: Annotated[
        Family, typer.Option("--family", help="tiny: trained here; smollm2: a real small model.")
    ] = Family.TINY,
    seed: Annotated[int, typer.Option("--seed", help="Of everything random in the family.")] = 0,
    json_output: JsonOption = False,
) -> None:
    """Build a family of forks on this machine, run all stages on it, and compare with the ground truth."""
    from forkwatch.demo.families.build import ensure_family

    began = time.monotonic()
    state, settings = _demo_state()
    with progress() as talk:
        folder = ensure_family(family.value, state.demo, seed, talk.note)
    rows, published = _run(settings, state, folder)
    agreed = sum(row.agrees for row in rows)
    if json_output:
        data_json(
            {
                "schema": "forkwatch.demo/1",
                "family": family.value,
                "forks": [row.as_json() for row in rows],
                "site": str(published.site / "index.html"),
            }
        )
    else:
        _print(rows, published)
    say(f"{agreed} of {len(rows)} forks as built, in {time.monotonic() - began:.0f} s")
    raise typer.Exit(Exit.OK if agreed == len(rows) else Exit.FINDING)


def _demo_state() -> tuple[StateDir, Settings]:
    """A state folder whose settings name the demo's hub, so that `forkwatch scan demo/…` works afterwards."""
    import os

    from forkwatch.sections.hub import DEMO_ENDPOINT
    from forkwatch.settings import load_settings
    from forkwatch.state import LOCAL_STATE, StateDir, find_state_dir

    state = find_state_dir() if os.environ.get("FORKWATCH_STATE_DIR") else StateDir(LOCAL_STATE.absolute())
    file = state.root / "forkwatch.toml"
    if not file.exists():
        if state.database.exists():
            raise SettingsError(
                f"{state.root} holds results of a real Hub", tip="Set FORKWATCH_STATE_DIR to a new folder."
            )
        state.create()
        file.write_text(f'# Written by `forkwatch demo`.\n[hub]\nendpoint = "{DEMO_ENDPOINT}"\n')
    settings = load_settings()
    hub = settings.hub.model_copy(update={"endpoint": DEMO_ENDPOINT, "free_space_floor_gb": 0.5})
    return state, settings.model_copy(update={"hub": hub})


def _run(settings: Settings, state: StateDir, folder: Path) -> tuple[tuple[Agreement, ...], Published]:
    import json

    from detector.provenance.interface import KeyTrust, Trust
    from forkwatch.cli.session import session
    from forkwatch.demo.truth import compare_with_truth
    from forkwatch.pipeline.originals import add_release
    from forkwatch.pipeline.publish import publish, site_view
    from forkwatch.pipeline.run import run_once
    from forkwatch.trust import TrustPolicy

    release = json.loads((folder / "hub.json").read_text())["release"]
    with session(settings, state) as context:
        key = KeyTrust((folder / "keys" / "release.pub").read_bytes())
        add_release(
            context,
            release,
            policy=TrustPolicy(Trust((key,))),
            suite=(folder / "suite.json").read_bytes(),
            replace=True,
            reregistered=True,  # a family that is built anew is another repository of our own hub
        )
        run_once(context)
        published = publish(context)
        view = next(view for view in site_view(context).releases if view.repo == release)
    return compare_with_truth(folder, view.scans), published


def _print(rows: tuple[Agreement, ...], published: Published) -> None:
    table(
        "What was found, and whether it is what was built",
        ("repository", "verdict", "edits", "lineage", "as built"),
        [
            (
                row.repo,
                row.verdict,
                ", ".join(row.edits),
                row.lineage,
                "yes" if row.agrees else f"NO: {row.expected}",
            )
            for row in rows
        ],
    )
    data(f"site:   {published.site / 'index.html'}")
    data(f"digest: {published.digest}")
