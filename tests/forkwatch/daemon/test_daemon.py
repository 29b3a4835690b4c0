"""The daemon as a real process: ready, asked, stopped, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

SETTINGS = """
[daemon]
port = {port}
crawl_workers = 0
read_workers = 1
eval_workers = 0
publish_workers = 0
grace_seconds = 5
"""


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """One daemon on a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        folder.mkdir()
        (folder / "forkwatch.toml").write_text(SETTINGS.format(port=self.port))
        self.log = (folder / "daemon.log").open("wb")
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "FORKWATCH_STATE_DIR": str(self.folder),
            "FORKWATCH_CONFIG": str(self.folder / "forkwatch.toml"),
        }
        command = [sys.executable, "-m", "forkwatch", "daemon"]
        return subprocess.Popen(
            command, env=environment, stdout=self.log, stderr=self.log, start_new_session=True
        )

    def get(self, path: str) -> httpx2.Response | None:
        try:
            return httpx2.get(f"http://127.0.0.1:{self.port}{path}", timeout=5)
        except httpx2.HTTPError:
            return None

    def said(self, words: bytes) -> int:
        """How often the log has some words."""
        return (self.folder / "daemon.log").read_bytes().count(words)

    def is_ready(self) -> bool:
        answer = self.get("/readyz")
        return answer is not None and answer.status_code == 200

    def workers(self) -> list[int]:
        """Processes of this daemon's workers."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"--parent" in words and str(self.process.pid).encode() in words:
                    found.append(int(entry.name))
        return found


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path / "state")
    until(running.is_ready)
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait()
    running.log.close()


def test_a_daemon_answers_keeps_its_workers_and_stops(daemon: Running) -> None:
    live = daemon.get("/healthz")
    assert live is not None
    assert live.text == "ok\n"
    metrics = daemon.get("/metrics")
    assert metrics is not None
    assert 'forkwatch_worker_up{worker="read-0"} 1.0' in metrics.text
    assert daemon.get("/etc/passwd").status_code == 404  # type: ignore[union-attr]

    second = subprocess.run(
        [sys.executable, "-m", "forkwatch", "daemon"],
        env={**os.environ, "FORKWATCH_STATE_DIR": str(daemon.folder)},
        capture_output=True,
        check=False,
    )
    assert second.returncode == 5
    assert b"is running on" in second.stderr

    until(lambda: len(daemon.workers()) == 1)
    (first,) = daemon.workers()
    os.kill(first, signal.SIGKILL)
    until(lambda: daemon.workers() not in ([], [first]))

    daemon.process.terminate()
    assert daemon.process.wait(30) == 0
    until(lambda: not daemon.workers())


def test_workers_do_not_outlive_a_killed_daemon_and_the_next_one_starts(daemon: Running) -> None:
    until(lambda: len(daemon.workers()) == 1)
    daemon.process.kill()
    daemon.process.wait()
    until(lambda: not daemon.workers())
    before = daemon.said(b'"event": "working"')
    daemon.process = daemon.start()
    until(daemon.is_ready)
    until(lambda: daemon.said(b'"event": "working"') > before)
    began = daemon.said(b'"event": "working"')
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: daemon.said(b'"event": "working"') == began + 1)  # a worker with the settings read again
    until(daemon.is_ready)
    (daemon.folder / "forkwatch.toml").write_text("[daemon\n")
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: daemon.said(b"not read again") == 1)
    nobody = f'{SETTINGS.format(port=daemon.port)}ray_address = "127.0.0.1:1"\n'
    (daemon.folder / "forkwatch.toml").write_text(nobody)
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: daemon.said(b"not read again") == 2)
    assert daemon.is_ready()
    (old,) = daemon.workers()
    os.kill(old, signal.SIGKILL)  # the next one has the daemon's settings, not the file's
    until(lambda: daemon.workers() not in ([], [old]))
    until(lambda: daemon.said(b'"event": "working"') == began + 2)
    until(daemon.is_ready)
    daemon.process.terminate()
    assert daemon.process.wait(30) == 0
