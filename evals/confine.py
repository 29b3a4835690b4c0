"""What the evaluation child takes from itself before it reads a byte of a fork, and the proof that it worked.

Covered: network, writing outside the scratch folder, file size, open files, CPU time, core dumps, outliving
the parent. Not covered: the GPU driver's interface, device memory, and reading files that the user may read.
Linux only; elsewhere only what exists is used, and `confine` says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evals.interface import Isolation

FILE_BYTES = 256 << 20
"""Largest file the child may write; transcripts are kilobytes."""

OPEN_FILES = 1024

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38

# Landlock (userspace-api/landlock.rst of the kernel); system calls this new have one number everywhere.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
_CHANGE_DIRECTORY = sum(1 << bit for bit in range(4, 13))
"""Remove and make entries of any type."""
_REFER = 1 << 13


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("access", ctypes.c_uint64), ("parent", ctypes.c_int32))


@dataclass(frozen=True, slots=True)
class Confinement:
    """What was achieved; `gaps` says in words what was not."""

    isolation: Isolation
    gaps: tuple[str, ...]


def confine(scratch: Path, *, cpu_seconds: int, gpu: bool) -> Confinement:
    """Confine this process for the rest of its life. Call while it has one thread, before importing torch.

    Args:
        scratch: The only folder that stays writable.
        cpu_seconds: CPU time after which the kernel ends the process.
        gpu: The process will use CUDA: device files and /proc stay writable (the driver needs both), and no
            user namespace is made, because the driver refuses to start in one.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _limit_resources(cpu_seconds)
    gaps = [*_attempt("network", lambda: _leave_network(libc, user_namespace=not gpu), _network_is_gone)]
    writable = [scratch, *([Path("/dev"), Path("/proc")] if gpu else [Path(os.devnull)])]
    gaps += _attempt("files", lambda: _landlock(libc, writable), lambda: _writing_is_denied(scratch.parent))
    return Confinement(Isolation.REDUCED if gaps else Isolation.SANDBOXED, tuple(gaps))


def _attempt(name: str, act: Callable[[], None], proof: Callable[[], bool]) -> Iterator[str]:
    """Nothing when `act` works and `proof` agrees; else what is missing."""
    try:
        act()
    except OSError as error:
        yield f"reduced isolation: {name} not confined ({error.strerror})"
        return
    if not proof():
        yield f"reduced isolation: {name} not confined (the test of it failed)"


def _limit_resources(cpu_seconds: int) -> None:
    wanted = {
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    for kind, limit in wanted.items():
        hard = resource.getrlimit(kind)[1]
        allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (allowed, allowed))


def _leave_network(libc: ctypes.CDLL, *, user_namespace: bool) -> None:
    """Enter a network namespace whose only interface is a loopback that is down."""
    if libc.unshare(_CLONE_NEWNET) == 0:
        return
    if not user_namespace:
        raise OSError(errno.EPERM, "a network namespace needs privileges on a GPU")
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")


def _network_is_gone() -> bool:
    """Only `lo` is there, and not even it can be reached. Connecting UDP sends nothing."""
    if [name for _, name in socket.if_nameindex() if name != "lo"]:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return all(probe.connect_ex((host, 9)) == errno.ENETUNREACH for host in ("127.0.0.1", "192.0.2.1"))


def _landlock(libc: ctypes.CDLL, writable: Sequence[Path]) -> None:
    """Deny every change to the file system outside `writable`, and TCP and foreign signals where known."""

    def call(number: int, *arguments: object) -> int:
        result = int(libc.syscall(ctypes.c_long(number), *arguments))
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    version = call(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    files = _WRITE_FILE | (_TRUNCATE if version >= 3 else 0)
    folders = files | _CHANGE_DIRECTORY | (_REFER if version >= 2 else 0)
    rules = _Ruleset(folders, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 * (1 + (version >= 4) + (version >= 6))
    ruleset = call(_LANDLOCK_CREATE, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for path in writable:
            parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                rule = _PathRule(folders if path.is_dir() else files, parent)
                call(
                    _LANDLOCK_ADD,
                    ctypes.c_int(ruleset),
                    ctypes.c_int(1),
                    ctypes.byref(rule),
                    ctypes.c_uint32(0),
                )
            finally:
                os.close(parent)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(errno.EPERM, "privileges cannot be dropped")
        call(_LANDLOCK_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _writing_is_denied(folder: Path) -> bool:
    """A new file beside the scratch folder cannot be made (a probe that can be is removed)."""
    probe = folder / f".confine-{os.getpid()}"
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except PermissionError:
        return True
    except OSError:
        return False
    with contextlib.suppress(OSError):
        probe.unlink()
    return False
