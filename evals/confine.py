"""What the evaluation child takes from itself before it reads a byte of a fork, and the proof that it worked.

The same inside bubblewrap and without it. Covered: network, reading and writing of files that the plan does
not name, starting processes, reaching other processes, memory, CPU time, file size, open files, core dumps,
outliving the parent. Not covered: the GPU driver's interface, device memory, names and sizes of files outside
(without bubblewrap), and the number of threads (for root).
Linux only; elsewhere only what exists is used, and `confine` says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import mmap
import os
import resource
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from evals import landlock, seccomp
from evals.interface import Isolation
from evals.plan import PACKAGES, Plan, kernel_paths

FILE_BYTES = 256 << 20
"""Largest file the child may write; transcripts are kilobytes."""

OPEN_FILES = 1024
STACK_BYTES = 64 << 20
SPARE_ADDRESSES = 256 << 30
"""Bytes of address space beyond four times the memory: page tables take a 500th of what is mapped and are
counted by no other limit. The GPU's driver maps more than that."""
THREADS = 2048
"""For a user other than root. 128 cores need some hundreds."""

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITIES = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3: two words a set."""
_OUTSIDE = Path("/etc/passwd")
"""A file that everybody may read, and that no plan names."""
_NETWORKS = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True, slots=True)
class Confinement:
    """What was achieved; `gaps` says in words what was not."""

    isolation: Isolation
    gaps: tuple[str, ...]


def confine(plan: Plan) -> Confinement:
    """Confine this process for the rest of its life. Call while it has one thread, before importing torch."""
    for package in PACKAGES:
        importlib.import_module(package)  # the folder they lie in cannot be listed afterwards
    tempfile.tempdir = str(plan.scratch)  # torch asks for it when imported, and looking for one would write
    libc = ctypes.CDLL(None, use_errno=True)
    failures: dict[str, str] = {}
    steps: dict[str, Callable[[], None]] = {
        "lifetime": lambda: _prctl(libc, _PR_SET_PDEATHSIG, signal.SIGKILL),
        "memory": lambda: _limit_resources(plan),
        "network": lambda: _enter_namespaces(libc, plan),
        "privileges": lambda: _give_up_privileges(libc),
        "files": lambda: landlock.restrict(libc, _readable(plan), _writable(plan)),
        "processes": lambda: seccomp.install(libc, gpu=plan.gpu),
    }
    for name, step in steps.items():
        try:
            step()
        except (OSError, AttributeError, ValueError) as error:
            failures[name] = str(error.strerror if isinstance(error, OSError) else error)
    gaps = tuple(_gaps(plan, failures))
    return Confinement(Isolation.REDUCED if gaps else Isolation.SANDBOXED, gaps)


def _readable(plan: Plan) -> tuple[Path, ...]:
    return (*plan.readable, *kernel_paths(), *((Path("/proc"),) if plan.gpu else ()))


def _writable(plan: Plan) -> tuple[Path, ...]:
    """The CUDA driver writes the names of its own threads to /proc, and opens its devices for writing.

    Not all of /dev and /proc: root without capabilities still owns disks and `kernel/core_pattern`.
    """
    driver = (*plan.devices, Path("/proc/self")) if plan.gpu else ()
    return (*plan.writable, *driver, Path(os.devnull))


def _gaps(plan: Plan, failures: dict[str, str]) -> Iterator[str]:
    """What can still be done, by trying; why, where a step has failed."""
    proofs: dict[str, tuple[str, Callable[[], bool]]] = {
        "network": ("the network can be reached", lambda: _network_is_gone(plan)),
        "files": ("files of the user can be read or written", lambda: _files_are_out_of_reach(plan)),
        "processes": ("processes can be started", lambda: _denied(_start_process)),
        "signals": ("other processes can be reached", lambda: _denied(lambda: os.kill(os.getppid(), 0))),
        "sockets": ("other programs' sockets can be reached", lambda: _sockets_are_out_of_reach(plan)),
        "memory": ("memory is not limited", lambda: _denied(lambda: _allocate(plan.memory_bytes))),
        "privileges": ("privileges are kept", _unprivileged),
    }
    for name, (what, holds) in proofs.items():
        if not holds():
            why = failures.get({"signals": "processes", "sockets": "processes"}.get(name, name))
            yield f"{what} ({why})" if why else what


# --- taking away -------------------------------------------------------------------------------


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _limit_resources(plan: Plan) -> None:
    wanted = {
        resource.RLIMIT_CPU: plan.cpu_seconds,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_DATA: plan.memory_bytes,
        resource.RLIMIT_STACK: STACK_BYTES,
    }
    if not plan.gpu:
        wanted[resource.RLIMIT_AS] = 4 * plan.memory_bytes + SPARE_ADDRESSES
    for kind, limit in wanted.items():
        _limit(kind, limit)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")  # first to go, not the daemon


def _limit(kind: int, limit: int) -> None:
    hard = resource.getrlimit(kind)[1]
    allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (allowed, allowed))


def _enter_namespaces(libc: ctypes.CDLL, plan: Plan) -> None:
    """Enter a network namespace whose only interface is a loopback that is down.

    On a GPU no user namespace is made: the driver refuses to start in a bare one.
    """
    if plan.boxed:
        _limit(resource.RLIMIT_NPROC, THREADS)
        return
    if libc.unshare(_CLONE_NEWNET) == 0:
        return
    if plan.gpu:
        raise OSError(errno.EPERM, "a network namespace needs privileges on a GPU")
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    _limit(resource.RLIMIT_NPROC, THREADS)  # counts this namespace's threads only, not all of the user's


def _give_up_privileges(libc: ctypes.CDLL) -> None:
    """No capability now, and none by executing a file."""
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


# --- proofs ------------------------------------------------------------------------------------


def _denied(action: Callable[[], object]) -> bool:
    """Whether the kernel refuses."""
    try:
        action()
    except OSError:
        return True
    return False


def _network_is_gone(plan: Plan) -> bool:
    """No such socket can be made; or the namespace is another one than the parent's, and empty."""
    if all(_denied(partial(_open_socket, family)) for family in _NETWORKS):
        return True
    try:
        own = Path("/proc/self/ns/net").stat().st_ino
    except OSError:
        return False
    interfaces = [name for _, name in socket.if_nameindex() if name != "lo"]
    return bool(plan.network) and own != plan.network and not interfaces


def _files_are_out_of_reach(plan: Plan) -> bool:
    """A file that everybody may read cannot be read, and no file made, not even in the scratch folder."""
    probe = plan.scratch / f".confine-{os.getpid()}"
    if not _denied(lambda: os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))):
        with contextlib.suppress(OSError):
            probe.unlink()
        return False
    return _denied(lambda: os.close(os.open(_OUTSIDE, os.O_RDONLY)))


def _start_process() -> None:
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _open_socket(family: int) -> None:
    socket.socket(family).close()


def _sockets_are_out_of_reach(plan: Plan) -> bool:
    """Sockets with a place in the file system are beyond Landlock; in bubblewrap they are not there."""
    return plan.boxed or _denied(partial(_open_socket, socket.AF_UNIX))


def _allocate(size: int) -> None:
    mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()


def _unprivileged() -> bool:
    """No effective or permitted capability, and none to come."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    words = dict(line.split(":", 1) for line in lines)
    sets = [int(words[name], 16) for name in ("CapEff", "CapPrm")]
    return not any(sets) and words.get("NoNewPrivs", "").strip() == "1"
