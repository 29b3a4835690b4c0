"""What leaves the cache when something new needs room, and what stays because somebody uses it.

`Pins` marks the files that this client handed out lately: it keeps them open under a shared lock, which ends
with the process, however that ends. `make_room` removes the files that were used longest ago, each under an
exclusive lock, so never one that another client or process has pinned or is writing. A pin of our own only
moves a file to the end of the queue: a process that downloads one fork after another must not choke on what
it read before.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from crawler.interface import NoSpaceError

_MAX_PINS = 128
"""Open files: an eighth of the usual limit of a process."""
_LOCK_TRIES = 20
_LOCK_PAUSE = 0.1
"""Seconds. Exclusive locks on finished files last for one `unlink`."""


class Pins:
    """The files that were handed out last, kept open and locked against eviction by others. Thread-safe."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, int] = OrderedDict()
        self._lock = Lock()
        weakref.finalize(self, _close_all, self._open)

    def __contains__(self, path: Path) -> bool:
        return path in self._open

    def take(self, path: Path, size: int) -> bool:
        """Pin a regular file of that size, and note that it was used; False when there is none."""
        with self._lock:
            self._drop(path)
            descriptor = _open_locked(path, size)
            if descriptor is None:
                return False
            with contextlib.suppress(PermissionError):  # another user's file, in a shared cache
                os.utime(descriptor)  # the time of use: access times are often switched off
            self._hold(path, descriptor)
            return True

    def adopt(self, path: Path, descriptor: int) -> bool:
        """Pin a file that the caller has open and locked exclusively, so that nobody comes in between.

        False when somebody did: a lock is not turned into a shared one in one step (flock(2)).
        """
        with self._lock:
            self._drop(path)
            shared = os.dup(descriptor)  # one lock for both descriptors
            fcntl.flock(shared, fcntl.LOCK_SH)
            if not still_named(path, shared):
                os.close(shared)
                return False
            self._hold(path, shared)
            return True

    def drop(self, path: Path) -> None:
        """Let a file go."""
        with self._lock:
            self._drop(path)

    def close(self) -> None:
        """Let all files go."""
        with self._lock:
            _close_all(self._open)

    def _hold(self, path: Path, descriptor: int) -> None:
        self._open[path] = descriptor
        if len(self._open) > _MAX_PINS:
            os.close(self._open.popitem(last=False)[1])

    def _drop(self, path: Path) -> None:
        if (descriptor := self._open.pop(path, None)) is not None:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    size: int
    used: int
    """Nanoseconds since the epoch."""


def make_room(root: Path, size: int, *, floor: int, quota: int | None, pins: Pins) -> None:
    """See that `size` more bytes fit into the cache.

    Args:
        root: the cache's folder.
        size: bytes that are about to be written.
        floor: bytes of the disk that stay free.
        quota: bytes that the cache may hold; None: any number, and nothing is ever removed.
        pins: ours.

    Raises:
        NoSpaceError: they do not fit, whatever is removed; says what is missing.
    """
    free = shutil.disk_usage(root).free
    short = floor + size - free
    entries: list[_Entry] = []
    if quota is not None:
        entries = list(_entries(root))
        short = max(short, sum(entry.size for entry in entries) + size - quota)
    if short > 0 and short <= sum(entry.size for entry in entries):
        for entry in sorted(entries, key=lambda entry: (entry.path in pins, entry.used)):
            if short <= 0:
                break
            pins.drop(entry.path)
            short -= entry.size if _remove(entry.path) else 0
    if short > 0:
        limit = "" if quota is None else f", of {quota:,} for the cache"
        raise NoSpaceError(
            f"{size:,} bytes are needed, {free:,} are free, {floor:,} must remain{limit} ({root})"
        )


def still_named(path: Path, descriptor: int) -> bool:
    """Whether an open file is the one that a name leads to."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _entries(root: Path) -> Iterator[_Entry]:
    """Finished and partial files; what vanishes meanwhile is left out."""
    for path in root.glob("*/*/*"):
        with contextlib.suppress(FileNotFoundError):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode):
                yield _Entry(path, found.st_size, found.st_mtime_ns)


def _open_locked(path: Path, size: int) -> int | None:
    """A descriptor with a shared lock. Where the lock cannot be had the file is as good, only unprotected."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # absent, a symbolic link, or not ours to read: as good as absent
        return None
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_size == size:
        for _ in range(_LOCK_TRIES):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            time.sleep(_LOCK_PAUSE)
        if still_named(path, descriptor):
            return descriptor
    os.close(descriptor)
    return None


def _remove(path: Path) -> bool:
    """Unlink a file that nobody has locked."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # somebody was faster
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not still_named(path, descriptor):
            return False
        path.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _close_all(descriptors: OrderedDict[Path, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])
