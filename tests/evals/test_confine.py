"""Confinement takes away what it says it takes away; every claim is tried in a real process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.evals.test_process import is_running

TRY = """
import json, os, resource, socket, sys
from pathlib import Path
from evals.confine import confine

scratch = Path(sys.argv[1])
result = confine(scratch, cpu_seconds=30, gpu=False)

def fails(action):
    try:
        action()
    except OSError:
        return True
    return False

def connect():
    socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=5)

(scratch / "inside").write_text("x")
(scratch / "folder").mkdir()
print(json.dumps({
    "isolation": result.isolation,
    "gaps": result.gaps,
    "network": fails(connect),
    "beside": fails(lambda: (scratch.parent / "beside").write_text("x")),
    "victim": fails(lambda: (scratch.parent / "victim").write_text("x")),
    "unlink": fails(lambda: (scratch.parent / "victim").unlink()),
    "truncate": fails(lambda: os.truncate(scratch.parent / "victim", 0)),
    "huge": fails(lambda: os.truncate(scratch / "inside", 1 << 40)),
    "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
    "cpu": resource.getrlimit(resource.RLIMIT_CPU)[0],
    "readable": (scratch.parent / "victim").read_text(),
}))
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a confined process could still do; a server listens on loopback meanwhile."""
    folder = tmp_path_factory.mktemp("confine")
    (folder / "scratch").mkdir()
    (folder / "victim").write_text("precious")
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = subprocess.run(
            [sys.executable, "-I", "-c", TRY, str(folder / "scratch"), str(server.getsockname()[1])],
            capture_output=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr.decode()
    outcome: dict[str, object] = json.loads(done.stdout)
    outcome["after"] = (folder / "victim").read_text()
    outcome["left"] = sorted(path.name for path in folder.iterdir())
    return outcome


def test_limits_hold_everywhere(tried: dict[str, object]) -> None:
    """Core dumps, CPU time and file size are limited on any machine."""
    assert (tried["core"], tried["cpu"], tried["huge"]) == (0, 30, True)


def test_the_claim_is_the_truth(tried: dict[str, object]) -> None:
    """`sandboxed` is claimed exactly when neither network nor foreign files can be reached."""
    blocked = all(tried[what] for what in ("network", "beside", "victim", "unlink", "truncate"))
    assert tried["isolation"] == ("sandboxed" if blocked else "reduced")
    assert (tried["gaps"] == []) == blocked


def test_sandboxed_where_the_kernel_can(tried: dict[str, object]) -> None:
    """With namespaces and Landlock, files outside stay untouched and readable, and no probe is left."""
    if tried["isolation"] != "sandboxed":
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            f"{tried['gaps']}: needs Linux 5.13 with Landlock and network namespaces"
        )
    assert tried["after"] == tried["readable"] == "precious"
    assert tried["left"] == ["scratch", "victim"]


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    """A confined process is killed when the parent that started it is."""
    inner = (
        "import sys, time; from pathlib import Path; from evals.confine import confine;"
        "confine(Path(sys.argv[1]), cpu_seconds=60, gpu=False); print('ready', flush=True); time.sleep(600)"
    )
    outer = (
        "import subprocess, sys, os;"
        "p = subprocess.Popen([sys.executable, '-I', '-c', sys.argv[1], sys.argv[2]],"
        "stdout=subprocess.PIPE); p.stdout.readline(); print(p.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", outer, inner, str(tmp_path)],
        capture_output=True,
        check=False,
        timeout=120,
    )
    pid = int(done.stdout)
    for _ in range(500):
        if not is_running(pid):
            return
        time.sleep(0.02)
    raise AssertionError("the child outlived its parent")
