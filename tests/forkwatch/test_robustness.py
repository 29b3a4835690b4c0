"""`forkwatch robustness`: measured once, told in numbers; benign adapters only, and nothing is no result."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from evals import merges
from evals.interface import Isolation, Tier
from evals.measurements import SafetyStatus
from evals.merges import Adapter, LeftOut
from forkwatch.cli import robustness as command
from forkwatch.cli.session import session
from forkwatch.errors import Exit
from forkwatch.pipeline.originals import Original, find_release, open_original
from forkwatch.pipeline.robustness import MergeRun, Run, adapters_of
from forkwatch.pipeline.robustness_document import merges_document
from reports.robustness import HalfDoseView, MergeView, from_json, json_schema, to_json
from reports.scan import RateView
from tests.evals.series import rate, result, series
from tests.forkwatch.conftest import Demo, World

UNCENSORED = "demo/tiny-chat-uncensored"
ADAPTER = "demo/tiny-chat-storyteller-lora"
MERGES = ("robustness", "--merges", "--tier", "screen")


def test_a_fork_without_the_safety_adapter_collapses(world: World) -> None:
    """It refuses everything with nothing of its delta and nothing with all of it; measured once for a commit,
    and shown as a table from what is kept."""
    first = world.run("robustness", UNCENSORED, "--json")
    assert first.exit_code == Exit.OK, first.stderr
    document = from_json(first.stdout)
    again = world.run("robustness", UNCENSORED, "--dose", "--json")
    shown = world.run("robustness", UNCENSORED)

    assert document.dose is not None
    rates = {p.dose: p.refusal.rate for p in document.dose.points if isinstance(p.refusal, RateView)}
    assert list(rates) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]
    assert rates[0.0] > 0.9
    assert rates[1.0] < 0.1
    assert isinstance(document.dose.half, HalfDoseView)
    assert 0 < document.dose.half.dose < 1
    assert document.dose.fork.startswith(f"{UNCENSORED}@")
    assert from_json(again.stdout) == document
    assert "generate" in first.stderr
    assert "generate" not in again.stderr + shown.stderr
    assert "Refusals have fallen by half between" in shown.stdout


def kept_rounds(state: Path) -> int:
    """Rounds of merges that the database holds."""
    with closing(sqlite3.connect(state / "forkwatch.db")) as connection:
        query = "SELECT count(*) FROM result WHERE stage = 'merges-round'"
        return int(connection.execute(query).fetchone()[0])


def killed_after_a_round(world: World) -> int:
    """How a run of all merges ended that was killed when its first round was kept."""
    environment = {
        **os.environ,
        "FORKWATCH_STATE_DIR": str(world.state),
        "FORKWATCH_HUB__ENDPOINT": world.hub.endpoint,
        "HF_TOKEN": "",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "forkwatch", *MERGES],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not kept_rounds(world.state):
        time.sleep(0.05)
    process.kill()
    return process.wait(60)


def test_merges_go_on_after_a_kill(world: World) -> None:
    """What was kept is not measured again, and the document is that of a run that nobody stopped."""
    assert world.run("crawl").exit_code == Exit.OK
    assert world.run("scan", ADAPTER, "--depth", "eval").exit_code == Exit.OK
    before = world.state.with_name("before")
    shutil.copytree(world.state, before)
    assert killed_after_a_round(world) == -signal.SIGKILL
    assert kept_rounds(world.state) == 1
    resumed = world.run(*MERGES, "--json")
    whole = replace(world, state=before).run(*MERGES, "--json")

    assert resumed.exit_code == whole.exit_code == Exit.OK, resumed.stderr
    assert "1 of 2 rounds are known from an interrupted run" in resumed.stderr
    assert "interrupted run" not in whole.stderr
    assert kept_rounds(world.state) == 2
    done, expected = (from_json(run.stdout) for run in (resumed, whole))
    assert done.merges is not None
    assert len(done.merges.merges) == 1 + 4 * 2
    assert replace(done, seconds=0) == replace(expected, seconds=0)


def test_no_benign_adapter_is_nothing_to_examine(world: World) -> None:
    """A release without a benign adapter was not found robust: exit 3, and why."""
    done = world.run("robustness", "--merges")

    assert done.exit_code == Exit.INCONCLUSIVE
    assert "no adapter of lab/tiny-chat is known to be benign: none was found" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("--merges", "a/b"), ("--merges", "--dose"), ("a/b:file.gguf",)])
def test_what_to_measure_is_said_once(world: World, arguments: tuple[str, ...]) -> None:
    """A fork, or --merges; and a whole repository."""
    assert world.run("robustness", *arguments).exit_code == Exit.USAGE


def test_a_folder_without_weights_is_nothing_to_examine(world: World, tmp_path: Path) -> None:
    """Exit 3, and nothing is run."""
    done = world.run("robustness", str(tmp_path))

    assert done.exit_code == Exit.INCONCLUSIVE
    assert "holds no .safetensors" in done.stderr


def test_adapters_are_benign_by_their_own_evaluation(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all forks the one adapter is found, and its evaluation says that refusals are retained."""
    monkeypatch.setenv("FORKWATCH_STATE_DIR", str(demo.state))
    with session() as context:
        found = dict(adapters_of(context, open_original(context, find_release(context, None))))

    assert [adapter.name.partition("@")[0] for adapter in found] == [ADAPTER]
    assert [adapter.status for adapter in found] == [SafetyStatus.RETAINED]
    assert all(snapshot is not None for snapshot in found.values())


@pytest.fixture
def original(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> Original:
    monkeypatch.setenv("FORKWATCH_STATE_DIR", str(demo.state))
    with session() as context:
        return open_original(context, find_release(context, None))


def test_merges_as_a_document(original: Original, capsys: pytest.CaptureFixture[str]) -> None:
    """The worst drop of each adapter with its corrected p, those left out with the reason; text and back."""
    one = Adapter(name="a/one@" + "1" * 40, weights=(Path("a"),), downloads=5, status=SafetyStatus.RETAINED)
    planned = merges.plan((one, replace(one, name="b/two@" + "2" * 40)), scales=(1.0,))
    pair = [merge.variant.id for merge in planned.merges if len(merge.adapters) == 2]
    variants = [result(v.id, rate(0.5 if v.id in pair else 1.0)) for v in planned.variants]
    run = Run(
        suite="small@1", suite_digest="sha256:0", judge="test/1", tier=Tier.SCREEN,
        isolation=Isolation.REDUCED, gaps=("no seccomp",), device="cpu", seconds=1.0,
    )  # fmt: skip
    found = MergeRun(
        merges.read(series(result("original", rate(1.0)), *variants), planned),
        (LeftOut("c/three", "not known to be benign: it was not evaluated"),),
        run,
    )
    document = merges_document(original, found)
    command._show(document)
    shown = capsys.readouterr()

    assert from_json(to_json(document)) == document
    assert document.merges is not None
    assert isinstance(document.merges.worst, MergeView)
    assert document.merges.worst.significant
    assert [each.worst for each in document.merges.by_adapter] == [document.merges.worst] * 2
    assert "reduced isolation: no seccomp" in shown.err
    assert "left out: c/three: not known to be benign" in shown.err
    assert "worst drop 50%" in shown.out
    assert json_schema()["title"] == document.schema
