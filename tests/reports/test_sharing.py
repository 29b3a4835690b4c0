"""Tasks that two processes share: each is done once, and neither process outlives the other's end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reports.sharing import MOST, shared

ROOT = Path(__file__).parents[2]

ORPHANED = """
import os, sys, time
from pathlib import Path
from reports.sharing import shared
parent, seen = os.getpid(), Path(sys.argv[1])
def do(number):
    (seen / f"{os.getpid()}").touch()
    if os.getpid() == parent:
        print("ready", flush=True)
        time.sleep(600)
    time.sleep(0.05)
shared(range(4_000), do)
"""


class OddError(Exception):
    """One that pickle cannot make again."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def test_each_task_is_done_once_and_by_both():
    """The results are those of one process, in whatever order, and two have worked."""
    done = shared(range(MOST), lambda number: (number, os.getpid()) if time.sleep(0.0001) is None else None)
    assert sorted(number for number, _ in done) == list(range(MOST))
    assert len({process for _, process in done}) == 2
    assert os.getpid() in {process for _, process in done}


def test_more_tasks_than_a_pipe_holds_are_refused():
    """Else this process would wait for itself."""
    with pytest.raises(ValueError, match="more than"):
        shared(range(MOST + 1), str)


@pytest.mark.parametrize("here", [True, False])
def test_an_error_on_either_side_is_raised_and_nothing_is_left(here):
    """By its type where that can be told, and the fork is gone when it is raised."""
    parent = os.getpid()

    def do(number: int) -> int:
        if (os.getpid() == parent) is here:
            raise FileNotFoundError(2, "no such file", f"/{number}")
        time.sleep(0.01)
        return number

    with pytest.raises(FileNotFoundError, match="no such file"):
        shared(range(100), do)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_an_error_that_cannot_be_pickled_is_told_in_words():
    """Nothing is lost but its type."""
    parent = os.getpid()

    def do(_number: int) -> None:
        if os.getpid() != parent:
            raise OddError(1, 2)
        time.sleep(0.01)

    with pytest.raises(RuntimeError, match="OddError: 1 and 2"):
        shared(range(100), do)


def test_a_fork_that_is_killed_is_an_error_and_no_smaller_result():
    """What it had taken is nowhere, so that the whole may not be used."""
    parent = os.getpid()

    def do(number: int) -> int:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        return number

    with pytest.raises(ChildProcessError, match="killed"):
        shared(range(100), do)


def test_the_last_of_the_fork_is_called_there(tmp_path):
    """Once, after its tasks."""
    parent = os.getpid()

    def leave_a_name() -> None:
        (tmp_path / f"{os.getpid()}").touch()

    shared(range(3), str, leave_a_name)
    (made,) = tmp_path.iterdir()
    assert made.name != str(parent)


def test_a_fork_ends_soon_after_its_process_is_killed(tmp_path):
    """It holds the lock of the site's folder, which the next builder waits for."""
    command = [sys.executable, "-c", ORPHANED, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        child.kill()
        assert child.stdout.read() == b""  # ends with the last process that could write
