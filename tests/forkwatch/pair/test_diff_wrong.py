"""`forkwatch diff` when something is wrong: a side, its files, the disk, the reader, or a kill in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forkwatch.demo.hub import Fault, LoopbackHub
from forkwatch.pipeline.context import Silent
from forkwatch.pipeline.pair import PairDepth, compare_checkpoints
from forkwatch.pipeline.sides import LocalSide, open_local
from forkwatch.state import StateDir
from tests.detector import zoo
from tests.forkwatch.pair.command import complaints, document_of, run_diff
from tests.forkwatch.pair.conftest import FORK

BAD = {
    "": 2,
    "no/such/folder": 2,
    "./missing": 2,
    "missing.safetensors": 2,
    "https://huggingface.co/lab/base": 2,
    "~no-such-user/model": 2,
    "lab/base@": 2,
    "lab/base:": 2,
    "x" * 5000: 2,
    "nul\0byte": 2,
    "lab/nothing-there": 4,
    "lab/base@no-such-branch": 4,
    "lab/base:no/such.safetensors": 4,
}


@pytest.mark.parametrize("side", BAD, ids=lambda side: ascii(side[:40]))
def test_bad_sides(hub: LoopbackHub, models: Path, tmp_path: Path, side: str) -> None:
    """Whatever cannot be a checkpoint is one clear line and a row of the table, on either side."""
    for pair in ((models / "base", side), (side, models / "base")):
        done = run_diff(tmp_path / "state", *pair, endpoint=hub.endpoint)

        assert done.exit_code == BAD[side], done.stderr
        assert len(complaints(done)) == 1
        assert done.stdout == ""


def _spoiled(folder: Path, kind: str) -> Path:
    """A path that exists and holds no weights."""
    folder.mkdir()
    whole = zoo.safetensors_bytes(zoo.base(1))
    contents = {
        "empty": {},
        "pickle": {"pytorch_model.bin": b"\x80\x04."},
        "pointer": {
            "model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
        },
        "truncated": {"model.safetensors": whole[:-100]},
        "no bytes": {"model.safetensors": b""},
        "lone config": {"adapter_model.safetensors": whole},
        "index only": {"model.safetensors.index.json": b'{"weight_map": {}}'},
    }[kind]
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    "kind", ["empty", "pickle", "pointer", "truncated", "no bytes", "lone config", "index only"]
)
def test_folders_without_weights(models: Path, tmp_path: Path, kind: str) -> None:
    """A folder that holds no readable weights is one line that names it, and nothing to examine."""
    done = run_diff(tmp_path / "state", models / "base", _spoiled(tmp_path / "side", kind))

    assert done.exit_code == 3, done.stderr
    assert len(complaints(done)) == 1
    assert str(tmp_path / "side") in done.stderr


def test_side_that_is_no_file(models: Path, tmp_path: Path) -> None:
    """A pipe with the name of a weight file is refused, not waited for."""
    os.mkfifo(tmp_path / "pipe.safetensors")

    assert run_diff(tmp_path, models / "base", tmp_path / "pipe.safetensors").exit_code == 2


def test_picture_that_cannot_be_written(models: Path, tmp_path: Path) -> None:
    """A place that cannot hold the SVG is refused before anything is compared."""
    for target in (tmp_path, tmp_path / "missing" / "x.svg"):
        done = run_diff(tmp_path, models / "base", models / "abliterated", "--svg", target)

        assert done.exit_code == 2
        assert done.stdout == ""


def test_interrupt(hub: LoopbackHub, models: Path, tmp_path: Path) -> None:
    """Ctrl-C ends with 130 and says how to go on, in one line and without a traceback."""
    hub.inject(Fault("info", "stall", times=-1))
    command = [sys.executable, "-m", "forkwatch", "diff", str(models / "base"), FORK]
    environment = {
        **os.environ,
        "FORKWATCH_STATE_DIR": str(tmp_path),
        "FORKWATCH_HUB__ENDPOINT": hub.endpoint,
        "HF_TOKEN": "",
    }
    child = subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has them, and their children, ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one thread forks
    )
    try:
        deadline = time.monotonic() + 60
        while not hub.requests and time.monotonic() < deadline:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        _, stderr = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()

    assert child.returncode == 130
    assert [line for line in stderr.splitlines() if "interrupted" in line and "same command" in line]
    assert "Traceback" not in stderr


class _Impatient(Silent):
    """Somebody who presses Ctrl-C after a few tensors."""

    def __init__(self, patience: int) -> None:
        self.left = patience

    def progress(self, what: str, done: int, total: int) -> None:
        self.left -= 1
        if self.left <= 0:
            raise KeyboardInterrupt


def test_interrupted_diff_goes_on(models: Path, tmp_path: Path) -> None:
    """The same command takes up what an interrupted one had compared, ends with the same document, and leaves
    no journal behind; another fork under the same headers takes up nothing."""
    state, base = StateDir(tmp_path / "state"), models / "base"
    sides = open_local(LocalSide("a", base)), open_local(LocalSide("b", models / "abliterated"))
    with pytest.raises(KeyboardInterrupt):
        compare_checkpoints(sides, PairDepth.FULL, state, _Impatient(12))
    assert len(list(state.journals.iterdir())) == 1

    other = run_diff(state.root, base, models / "tuned", "--json")
    again = run_diff(state.root, base, models / "abliterated", "--json")
    fresh = run_diff(tmp_path / "fresh", base, models / "abliterated", "--json")

    assert "known from an interrupted run" not in other.stderr
    assert [edit["kind"] for edit in document_of(other)["edits"]] == ["full-finetune"]
    assert "known from an interrupted run" in again.stderr
    assert document_of(again) | {"cost": 0} == document_of(fresh) | {"cost": 0}
    assert not state.journals.exists()


def test_state_folder_that_cannot_be_written(models: Path, tmp_path: Path) -> None:
    """Without a place for a journal the comparison is made all the same, and that is said."""
    (tmp_path / "file").write_text("")

    done = run_diff(tmp_path / "file", models / "base", models / "abliterated", "--json")

    assert done.exit_code == 0
    assert "an interrupted comparison starts again" in done.stderr


def test_reader_who_goes_away(models: Path, tmp_path: Path) -> None:
    """`| head` is neither a finding nor a bug of ours: 141, and silence."""
    for command in (["diff", str(models / "base"), str(models / "base")], ["status", "--json"]):
        child = subprocess.Popen(
            [sys.executable, "-m", "forkwatch", *command],
            env={**os.environ, "FORKWATCH_STATE_DIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        child.stdout.close()
        assert child.stderr is not None
        stderr = child.stderr.read()
        child.stderr.close()

        assert (child.wait(timeout=60), stderr) == (141, "")
