"""Working folders: gone with their block, and after a kill -9 with the next one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from crawler.interface import Progress, Snapshot
from forkwatch.pipeline.originals import fetch_folder
from forkwatch.pipeline.scratch import scratch_folder
from forkwatch.state import StateDir
from tests.forkwatch.samples import SNAPSHOT

KILLED = """
import os, pathlib, signal, sys, types
from forkwatch.pipeline.scratch import scratch_folder
from forkwatch.state import StateDir
with scratch_folder(types.SimpleNamespace(state=StateDir(pathlib.Path(sys.argv[1])))) as folder:
    (folder / "answers.json").write_text("raw")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_goes_and_what_is_held_stays(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    state.create()
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in state.scratch.glob("*/*")] == ["answers.json"]
    context = SimpleNamespace(state=state)
    with scratch_folder(context) as first:  # type: ignore[arg-type]  # of a context it needs the state folder
        assert list(state.scratch.iterdir()) == [first]
        with scratch_folder(context) as second:  # type: ignore[arg-type]
            assert sorted(state.scratch.iterdir()) == sorted([first, second])
    assert list(state.scratch.iterdir()) == []


def test_an_original_that_is_being_fetched_is_no_leftover(tmp_path: Path) -> None:
    """Another process makes working folders during the hours that it takes."""
    state, content = StateDir(tmp_path / "state"), tmp_path / "content"
    state.create()
    content.write_text("x")

    def download(_snapshot: Snapshot, _path: str, _progress: Progress) -> Path:
        with scratch_folder(context):  # type: ignore[arg-type]
            return content

    talk = SimpleNamespace(progress=None)
    context = SimpleNamespace(state=state, hub=SimpleNamespace(download=download), talk=talk)
    folder = fetch_folder(context, SNAPSHOT)  # type: ignore[arg-type]
    assert len(SNAPSHOT.files) > 1
    assert {path.name for path in folder.iterdir()} == {file.path for file in SNAPSHOT.files}
    assert list(state.scratch.iterdir()) == []
