"""Replace a folder by another in one step, so that a reader (and a crash) meets the old content or the new.

Linux exchanges the two names atomically (renameat2). Where the system or the file system cannot, the folders
are renamed one after the other; a crash in between is put right by the next `prepare`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}


@contextmanager
def sole_builder(out: Path) -> Iterator[None]:
    """Hold the lock of the folder that contains `out`: two builds at once wait for each other."""
    out.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(out.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def prepare(out: Path) -> Path:
    """An empty folder beside `out` to build in; what a crashed build left behind is cleared first."""
    new, old = _siblings(out)
    if old.exists() and not out.exists():
        old.rename(out)
    for leftover in (new, old):
        if leftover.exists():
            shutil.rmtree(leftover)
    new.mkdir()
    return new


def replace(out: Path) -> None:
    """Make the folder that `prepare` gave out the content of `out`, and delete the former content."""
    new, old = _siblings(out)
    if not out.exists():
        new.rename(out)
        return
    if _exchange(new, out):
        new.rename(old)
    else:
        _in_two_steps(new, out, old)
    shutil.rmtree(old)


def _siblings(out: Path) -> tuple[Path, Path]:
    return out.with_name(f".{out.name}.forkwatch-new"), out.with_name(f".{out.name}.forkwatch-old")


def _in_two_steps(new: Path, out: Path, old: Path) -> None:
    out.rename(old)
    new.rename(out)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names atomically; False where that is not possible."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    names = (os.fsencode(first), os.fsencode(second))
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(second))
