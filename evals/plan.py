"""What an evaluation child may reach: decided by the parent, enforced by bubblewrap and by the child itself.

What is not named here is out of reach: home folder, state folder, database, token, other processes.
The child can create no file at all; it writes into files that the parent made, so it can neither fill the
disk nor leave a link behind for the parent to follow.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PACKAGES = ("evals", "detector", "crawler")
"""Ours, that the child imports."""

_SYSTEM = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives", "/sys/devices/system")
_PROC = ("cpuinfo", "meminfo", "stat", "self", "sys/vm", "sys/kernel")
_DEVICES = ("/dev/zero", "/dev/urandom", "/dev/random")

MEMORY_SHARE = 0.75
"""Of this machine's memory, for a child, unless the settings say how much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one child may reach and use."""

    scratch: Path
    """Its working folder."""
    readable: tuple[Path, ...]
    """Files, and folders with all below them."""
    writable: tuple[Path, ...]
    """Files that exist."""
    memory_bytes: int
    cpu_seconds: int
    devices: tuple[Path, ...] = ()
    """Of the GPU, when CUDA will be used; then /proc and /sys can be read as well."""
    boxed: bool = False
    """Bubblewrap starts the child."""
    network: int = 0
    """Inode of the parent's network namespace, which must not be the child's."""

    @property
    def gpu(self) -> bool:
        """Whether CUDA will be used."""
        return bool(self.devices)


def dump_plan(plan: Plan) -> bytes:
    """One line of JSON, which goes before the request."""
    return json.dumps(asdict(plan), default=str).encode() + b"\n"


def load_plan(line: bytes) -> Plan:
    """The plan as the parent sent it."""
    raw = json.loads(line)
    return Plan(
        scratch=Path(raw["scratch"]),
        readable=tuple(map(Path, raw["readable"])),
        writable=tuple(map(Path, raw["writable"])),
        memory_bytes=raw["memory_bytes"],
        cpu_seconds=raw["cpu_seconds"],
        devices=tuple(map(Path, raw["devices"])),
        boxed=raw["boxed"],
        network=raw["network"],
    )


def memory_limit(gib: float | None) -> int:
    """Bytes for a child: what the settings say, else a share of what this machine or container has."""
    if gib is not None:
        return int(gib * (1 << 30))
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        quota = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        quota = "max"
    return int(MEMORY_SHARE * (min(physical, int(quota)) if quota.isdecimal() else physical))


def with_targets(paths: Iterable[Path]) -> Iterator[Path]:
    """Each path, and the files that links at or directly below it lead to."""
    for path in paths:
        yield path
        below = sorted(path.iterdir()) if path.is_dir() else []
        yield from (link.resolve() for link in (path, *below) if link.is_symlink() and link.is_file())


def system_paths(*, gpu: bool) -> tuple[Path, ...]:
    """What this interpreter, its libraries and ours need to read; nothing of a user."""
    found = [Path(path) for path in _SYSTEM]
    for prefix in {sys.prefix, sys.base_prefix}:
        found += [Path(prefix, name) for name in ("bin", "lib", "lib64", "pyvenv.cfg")]
    found += [Path(path) for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        found += [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    found += library_folders(os.environ.get("LD_LIBRARY_PATH", ""))
    if gpu:
        found += [Path("/sys"), *Path("/etc").glob("nvidia*"), *Path("/etc").glob("OpenCL*")]
    return outermost(place for path in found for place in (path, path.resolve()) if place.exists())


def library_folders(variable: str) -> list[Path]:
    """Folders of LD_LIBRARY_PATH, but for relative ones and those that the home folder lies in."""
    home = Path.home().resolve()
    folders = map(Path, variable.split(os.pathsep))
    return [path for path in folders if path.is_absolute() and not home.is_relative_to(path.resolve())]


def kernel_paths() -> tuple[Path, ...]:
    """Parts of /proc and /dev that libraries read; bubblewrap makes its own."""
    return (*(Path("/proc", name) for name in _PROC), *map(Path, _DEVICES))


def outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Sorted and without those that lie below another."""
    every: Sequence[Path] = sorted({path.absolute() for path in paths})
    whole = set(every)
    return tuple(path for path in every if whole.isdisjoint(path.parents))


def gpu_devices(device: str) -> tuple[Path, ...]:
    """The device files that CUDA needs; none where there is no GPU, or where `device` is `cpu`."""
    if device == "cpu" or not any(Path("/dev").glob("nvidia[0-9]*")):
        return ()
    return tuple(sorted(Path("/dev").glob("nvidia*")))
