"""Who holds a lease, so that others on the same machine can tell whether it lives."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> str:
    """This machine as far as process numbers mean something: host name and process namespace.

    Containers may share a host name, and have numbers of their own.
    """
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        namespace = 0
    return f"{platform.node()}:{namespace}"


def owner() -> str:
    """This process."""
    return f"{machine()}:{os.getpid()}"


def is_dead(name: str) -> bool:
    """Whether an owner is a process of this machine that is gone. Of others nothing is known: False."""
    place, _, number = name.rpartition(":")
    if place != machine() or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
