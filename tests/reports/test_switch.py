"""Replacing a site: a reader or a crash meets the old one or the new one, whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reports import switch
from reports.build import build_site
from tests.reports import samples
from tests.reports.html_tools import tree

BUILDER = """
import sys
from pathlib import Path
import reports.build
from reports.build import build_site
from tests.reports import samples
views = samples.view(), samples.view(samples.Fork("new/fork", "inconclusive", (), "Nothing yet.", reason="x"))
reports.build.SHARED_FROM, reports.build.can_share = 1, lambda: sys.argv[2] == "2"
print("ready", flush=True)
for turn in range(1, 10_000):
    build_site(views[turn % 2], Path(sys.argv[1]), before_fork=lambda: None)
"""


def test_a_reader_always_finds_the_folder(tmp_path):
    """While two contents take turns, the index is never missing and never half."""
    out = tmp_path / "site"
    seen: set[str] = set()
    stop = threading.Event()

    def put(text: str) -> None:
        new = switch.spare(out)
        new.mkdir(exist_ok=True)
        (new / "index.html").unlink(missing_ok=True)  # never written to: a reader may hold it
        (new / "index.html").write_text(text)
        switch.replace(out)

    def read() -> None:
        while not stop.is_set():
            seen.add((out / "index.html").read_text())

    put("a" * 1000)
    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(200):
        put("ba"[turn % 2] * 1000)
    stop.set()
    reader.join()
    assert seen <= {"a" * 1000, "b" * 1000}
    assert {path.name for path in tmp_path.iterdir()} == {"site", switch.spare(out).name}


@pytest.mark.parametrize("processes", ["1", "2"])
def test_kill_leaves_a_whole_site_and_the_next_build_recovers(tmp_path, processes):
    """A builder killed at any moment leaves one of the two sites, byte for byte, and no obstacle."""
    out = tmp_path / "public" / "site"
    build_site(samples.view(), out)
    build_site(
        samples.view(samples.Fork("new/fork", "inconclusive", (), "Nothing yet.", reason="x")), tmp_path / "b"
    )
    whole = [tree(out), tree(tmp_path / "b")]
    root = Path(__file__).parents[2]
    for delay in (0.01, 0.13, 0.31):
        child = subprocess.Popen(
            [sys.executable, "-c", BUILDER, str(out), processes],
            stdout=subprocess.PIPE,
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root)},
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert tree(out) in whole
    build_site(samples.view(), out)
    assert tree(out) == whole[0]
    assert [path.name for path in out.parent.iterdir()] == ["site"]


@pytest.mark.parametrize("renames", [1, 2])
def test_a_crash_between_renames_is_put_right(tmp_path, renames):
    """Where folders cannot be exchanged in one step, a whole site is there again before the next build."""
    out, spare = tmp_path / "site", switch.spare(tmp_path / "site")
    for folder in (out, spare):
        folder.mkdir()
        (folder / "index.html").write_text(folder.name)
    aside = switch._aside(out)
    out.rename(aside)
    if renames == 2:
        spare.rename(out)
    switch.recover(out)
    assert (out / "index.html").read_text() == ("site" if renames == 1 else spare.name)
    assert sorted(tmp_path.iterdir()) == sorted((out, spare))


def test_three_renames_serve_where_there_is_no_exchange(tmp_path):
    """The fallback ends in the same place as the exchange."""
    for name in ("new", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").write_text(name)
    switch._in_three_steps(tmp_path / "new", tmp_path / "out", tmp_path / "aside")
    assert tree(tmp_path) == {"out/index.html": b"new", "new/index.html": b"out"}


def test_an_exchange_that_fails_is_an_error(tmp_path):
    """A missing folder is reported, not taken for a file system that cannot exchange."""
    (tmp_path / "new").mkdir()
    with pytest.raises(FileNotFoundError):
        switch._exchange(tmp_path / "new", tmp_path / "missing")


def test_the_first_site_needs_no_predecessor(tmp_path):
    """A folder that does not exist yet appears complete."""
    out = tmp_path / "deep" / "site"
    with switch.sole_builder(out):
        switch.spare(out).mkdir()
        (switch.spare(out) / "index.html").write_text("new")
        switch.replace(out)
    assert (out / "index.html").read_text() == "new"
