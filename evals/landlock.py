"""Landlock: which files this process may read and write, for the rest of its life.

Source: userspace-api/landlock.rst of the kernel. System calls this new have one number on every architecture.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
from collections.abc import Sequence
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_FOLDER = (1 << bit for bit in range(4))
_CHANGE_FOLDER = sum(1 << bit for bit in range(4, 13))
"""Remove and make entries of any type."""
_REFER, _TRUNCATE, _IOCTL_DEVICE = (1 << bit for bit in (13, 14, 15))


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("access", ctypes.c_uint64), ("parent", ctypes.c_int32))


def restrict(libc: ctypes.CDLL, readable: Sequence[Path], writable: Sequence[Path]) -> None:
    """Deny opening everything else, executing anything, TCP, foreign signals and abstract sockets.

    The process must have given up new privileges. What is open already stays open.

    Args:
        libc: The C library, with `errno`.
        readable: Files, and folders with all below them. Missing ones are left out.
        writable: The same; a folder here may be changed in any way, a file only in its content.

    Raises:
        OSError: the kernel has no Landlock.
    """
    if platform.system() != "Linux":
        raise OSError(errno.ENOSYS, "Landlock is Linux's")
    version = _call(libc, _CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    written = _WRITE_FILE | (_TRUNCATE if version >= 3 else 0) | (_IOCTL_DEVICE if version >= 5 else 0)
    changed = written | _CHANGE_FOLDER | (_REFER if version >= 2 else 0)
    read = _READ_FILE | _READ_FOLDER
    rules = _Ruleset(changed | read | _EXECUTE, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 * (1 + (version >= 4) + (version >= 6))
    ruleset = _call(libc, _CREATE, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for path in readable:
            _allow(libc, ruleset, path, read)
        for path in writable:
            _allow(libc, ruleset, path, read | changed)
        _call(libc, _RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, access: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return
    try:
        if not stat.S_ISDIR(os.fstat(parent).st_mode):
            access &= _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE
        rule = _PathRule(access, parent)
        _call(libc, _ADD, ctypes.c_int(ruleset), ctypes.c_int(1), ctypes.byref(rule), ctypes.c_uint32(0))
    finally:
        os.close(parent)


def _call(libc: ctypes.CDLL, number: int, *arguments: object) -> int:
    result = int(libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
