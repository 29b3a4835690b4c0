"""SHA-256 digests of files that were read before, so that a file that has not changed is not read again.

A file counts as unchanged when device, inode, size, and the times of its last modification and last status
change are those that it had when it was read. The last of them cannot be set by programs: putting the old
modification time back moves it.

What is trusted by that: the kernel's clock and file system, and this cache's file. Whoever may set the clock,
write to the block device, write through a memory mapping that was made writable before the file was read, or
write the cache itself, can make a changed file look unchanged. Against them only a full read helps.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from detector.provenance.checked import Basis

_SCHEMA = "forkwatch.hashes/1"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_ENTRIES = 50_000
_MAX_BYTES = 16 << 20
_SETTLED_NS = 2_000_000_000
"""Two writes within one tick of a file system's clock leave the same times behind. The coarsest clock in use
ticks every two seconds (FAT); a file that was touched less than that before it was read is not remembered."""


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What of a file changes when its content does."""

    device: int
    inode: int
    size: int
    """Bytes."""
    modified_ns: int
    changed_ns: int
    """Of the last status change (`ctime`)."""

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        """From `fstat` of the open file."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def settled(self, now_ns: int) -> bool:
        """Whether a write from `now_ns` on must leave other times behind."""
        return max(self.modified_ns, self.changed_ns) + _SETTLED_NS < now_ns


@dataclass(slots=True)
class HashCache:
    """Digests by file identity. One thread at a time; several processes may share the file."""

    path: Path | None
    """None: remember for as long as this object lives."""
    _known: dict[FileIdentity, str] = field(default_factory=dict)
    """From the file."""
    _read: dict[FileIdentity, str] = field(default_factory=dict)
    """Read while this object lives."""
    _new: dict[FileIdentity, str] = field(default_factory=dict)
    """What of that may be kept."""

    @classmethod
    def open(cls, path: Path | None, *, full: bool = False) -> HashCache:
        """What the file holds; nothing, if it is missing, damaged, a link, or could be written by others.

        Args:
            path: the file.
            full: believe nothing of it, but keep in it what is read now.
        """
        return cls(path, dict(_load(path)) if path is not None and not full else {})

    def find(self, identity: FileIdentity) -> tuple[str, Basis] | None:
        """The digest of the file that has this identity, and whether it was read just now or before."""
        if identity in self._read:
            return self._read[identity], Basis.READ
        return (self._known[identity], Basis.REMEMBERED) if identity in self._known else None

    def remember(self, identity: FileIdentity, sha256: str, began_ns: int) -> None:
        """Keep the digest of a file whose identity was the same before and after it was read.

        Args:
            identity: of the file.
            sha256: hex.
            began_ns: wall clock when reading began.
        """
        self._read[identity] = sha256
        if identity.settled(began_ns):
            self._new[identity] = sha256

    def save(self) -> bool:
        """Write what is new beside what others wrote meanwhile; False when it could not be kept.

        Two processes that save at once may lose what one of them learnt; that is read again next time.
        """
        if self.path is None or not self._new:
            return True
        merged = {**_load(self.path), **self._new}
        rows = [
            [*(getattr(identity, name) for name in FileIdentity.__slots__), sha256]
            for identity, sha256 in list(merged.items())[-_MAX_ENTRIES:]
        ]
        text = json.dumps({"schema": _SCHEMA, "files": rows}, separators=(",", ":"))
        try:
            _replace(self.path, text.encode())
        except OSError:
            return False
        self._new.clear()
        return True


def now_ns() -> int:
    """The clock that file times are compared with."""
    return time.time_ns()


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, readable and writable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _load(path: Path) -> Mapping[FileIdentity, str]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            private = stat.S_ISREG(status.st_mode) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if not private or status.st_uid != os.geteuid() or status.st_size > _MAX_BYTES:
                return {}
            text = os.read(descriptor, _MAX_BYTES)
        finally:
            os.close(descriptor)
        return _parse(json.loads(text))
    except (OSError, ValueError, RecursionError):
        return {}


def _parse(document: object) -> Mapping[FileIdentity, str]:
    """All rows, or none when one of them is not what we write."""
    if not isinstance(document, dict) or document.get("schema") != _SCHEMA:
        return {}
    rows = document.get("files")
    found: dict[FileIdentity, str] = {}
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, list) or len(row) != 6:
            return {}
        *numbers, sha256 = row
        whole = all(type(number) is int for number in numbers)
        if not whole or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            return {}
        found[FileIdentity(*numbers)] = sha256
    return found
