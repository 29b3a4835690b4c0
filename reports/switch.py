"""Replace a folder by another in one step, so that a reader (and a crash) meets the old content or the new.

Linux exchanges the two names atomically (renameat2). Where the system or the file system cannot, the folders
are renamed one after the other; a crash in between is put right by `recover`.

The former content stays beside the new one, hidden, as the `spare`: the next build brings it up to date,
which for a large site with few changes is far cheaper than 100,000 new links, and than deleting as many.
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


def spare(out: Path) -> Path:
    """The folder beside `out` to build in. After `replace` it holds the former content."""
    return out.with_name(f".{out.name}.forkwatch-spare")


def recover(out: Path) -> None:
    """Put right what a crash between two renames left: `out` is there again if it ever was."""
    aside = _aside(out)
    if not aside.exists():
        return
    if not out.exists():
        aside.rename(out)
    elif not spare(out).exists():
        aside.rename(spare(out))
    else:
        shutil.rmtree(aside)


def replace(out: Path) -> None:
    """Make the spare the content of `out`, and the former content the spare."""
    new = spare(out)
    if not out.exists():
        new.rename(out)
    elif not _exchange(new, out):
        _in_three_steps(new, out, _aside(out))


def _aside(out: Path) -> Path:
    return out.with_name(f".{out.name}.forkwatch-old")


def _in_three_steps(new: Path, out: Path, aside: Path) -> None:
    out.rename(aside)
    new.rename(out)
    aside.rename(new)


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
