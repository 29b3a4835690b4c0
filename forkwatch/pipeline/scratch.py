"""Working folders in the state folder: gone with their block, or, after a kill -9, when the next one is made.

They hold raw answers and weights, and would fill the disk of a machine that runs for months.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from forkwatch.pipeline.context import Context


@contextmanager
def scratch_folder(context: Context) -> Iterator[Path]:
    """A folder for one piece of work, locked while it lasts: one that nobody holds was left by the dead.

    Nothing else may put a folder there: it would be swept away.
    """
    folder, handle = _make(context.state.scratch)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _make(root: Path) -> tuple[Path, int]:
    """A new folder and its lock; others neither look nor make one meanwhile."""
    above = _open(root)
    try:
        with suppress(OSError):  # a network file system without such locks: nothing is removed there
            fcntl.flock(above, fcntl.LOCK_EX)
            _sweep(root)
        folder = Path(tempfile.mkdtemp(dir=root))
        handle = _open(folder)
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        return folder, handle
    finally:
        os.close(above)


def _sweep(root: Path) -> None:
    for folder in root.iterdir():
        with suppress(OSError):  # it is held, or is no folder
            handle = _open(folder)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
