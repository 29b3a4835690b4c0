"""How a child is started: by a plan, in bubblewrap where that works; and what isolation that gives here."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evals.bubblewrap import prefix, usable
from evals.interface import EvaluationFailedError, Isolation, IsolationError, Limits
from evals.plan import Plan, dump_plan, gpu_devices, memory_limit, outermost, system_paths, with_targets
from evals.process import MAX_ANSWER, run_child
from evals.wire import load_confinement

CHILD = (sys.executable, "-I", "-m", "evals.child")
"""`-I`: no user site, no PYTHON* variables, no current folder on the path."""

CHECK = "check"
"""The task that only confines itself and says how well."""

_CHECK_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What a child needs, whatever it does."""

    scratch: Path
    inputs: tuple[Path, ...]
    """What it reads of ours."""
    outputs: tuple[str, ...]
    """Names of the files in the scratch folder that it leaves."""
    device: str
    limits: Limits
    timeout_seconds: float
    max_answer: int = MAX_ANSWER
    """Bytes of the one line that it answers with, at most."""


@dataclass(frozen=True, slots=True)
class Achieved:
    """What isolation children have on this machine."""

    isolation: Isolation
    gaps: tuple[str, ...]
    no_bubblewrap: str
    """Why bubblewrap is not used; empty when it is."""


def run(
    errand: Errand,
    command: Sequence[str],
    request: bytes,
    *,
    progress: Callable[[str], None],
) -> bytes:
    """Run one confined child.

    Args:
        errand: What it needs.
        command: The child; it reads the plan and the request, and must confine itself at once.
        request: What it is asked, after the plan.
        progress: Told what the child does.

    Returns:
        Its one line.

    Raises:
        EvaluationFailedError: it failed, or left something else than the files it may leave.
    """
    errand.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in errand.outputs:
        _create(errand.scratch / name)
    plan, before = launch(errand)
    line = run_child(
        [*before, *command],
        dump_plan(plan) + request,
        errand.scratch,
        timeout_seconds=errand.timeout_seconds,
        progress=progress,
        max_answer=errand.max_answer,
    )
    for name in errand.outputs:
        _check(errand.scratch / name)
    return line


def launch(errand: Errand) -> tuple[Plan, tuple[str, ...]]:
    """The plan of a child, and what its command begins with."""
    devices = gpu_devices(errand.device)
    box = usable(devices) if errand.limits.bubblewrap else None
    plan = Plan(
        scratch=errand.scratch,
        readable=outermost((*system_paths(gpu=bool(devices)), *with_targets(errand.inputs))),
        writable=tuple(errand.scratch / name for name in errand.outputs),
        memory_bytes=memory_limit(errand.limits.memory_gib),
        cpu_seconds=int(errand.timeout_seconds + 1) * (os.cpu_count() or 1),
        devices=devices,
        boxed=box is not None and box.binary is not None,
        network=_network(),
    )
    return plan, () if box is None or box.binary is None else prefix(box.binary, plan)


@functools.cache
def achieved(device: str, limits: Limits) -> Achieved:
    """Let a child confine itself, as one that runs a fork would, and say how well; remembered afterwards.

    Raises:
        EvaluationFailedError: no child can be started.
    """
    with tempfile.TemporaryDirectory() as scratch:
        errand = Errand(
            scratch=Path(scratch).resolve(),
            inputs=(),
            outputs=(),
            device=device,
            limits=limits,
            timeout_seconds=_CHECK_SECONDS,
        )
        line = run(errand, [*CHILD, CHECK], b"", progress=lambda _: None)
    isolation, gaps = load_confinement(line)
    why_not = usable(gpu_devices(device)).why_not if limits.bubblewrap else "bubblewrap is switched off"
    return Achieved(isolation, gaps, why_not)


def admit(device: str, limits: Limits) -> Achieved:
    """What isolation a child will have; asked before anything of a fork is run.

    A child says so itself as well, but once a fork has taken it over, it can say anything.

    Raises:
        IsolationError: full isolation is required, and this machine does not give it.
    """
    here = achieved(device, limits)
    if limits.require_isolation and here.isolation is not Isolation.SANDBOXED:
        why = [*here.gaps, *([here.no_bubblewrap] if here.no_bubblewrap else [])]
        raise IsolationError(f"forks would run with reduced isolation: {'; '.join(why)}")
    return here


def _create(path: Path) -> None:
    """A new empty file for the child to write into."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))


def _check(path: Path) -> None:
    """What lies there is still a file of its own: no link to a secret, no pipe to wait at.

    Raises:
        EvaluationFailedError: it is not.
    """
    with contextlib.suppress(OSError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            return
    raise EvaluationFailedError(f"the evaluation child left no file {path.name}")


def _network() -> int:
    """Inode of this process's network namespace; 0 where there are none."""
    try:
        return Path("/proc/self/ns/net").stat().st_ino
    except OSError:
        return 0
