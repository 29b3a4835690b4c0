"""One daemon a state folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forkwatch.errors import ForkwatchError


class AlreadyRunningError(ForkwatchError):
    """Another daemon holds the state folder."""

    tip = "`forkwatch health` asks it how it is; another FORKWATCH_STATE_DIR makes another one."


@contextmanager
def sole_daemon(root: Path) -> Iterator[None]:
    """Hold the lock; it ends with the process, however that ends.

    Raises:
        AlreadyRunningError: somebody else holds it.
    """
    path = root / "daemon.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "?"
            raise AlreadyRunningError(f"a daemon (process {pid}) is running on {root}") from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
