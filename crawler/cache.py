"""Downloaded files, each named by the hash of its content; and the downloads that fill it.

`<root>/sha256/<aa>/<hash>` for large files, `<root>/git/<aa>/<oid>` for small ones, `*.part` while a download
is on its way. A name without `.part` always holds exactly the bytes that its hash says: it only appears by
the atomic rename of a file that was hashed while written. POSIX only (`flock`).

What holds under a quota, with any number of processes:

(1) The cache outgrows its quota by at most 64 MiB for each download that runs at that moment.
(2) A path that was handed out keeps its content until another 127 were, or until this same client needs the
    room and everything else was used longer ago. Other clients and processes never remove it.
(3) A file that is open stays readable whatever is removed (POSIX); `LocalFile` opens at once.
(4) Whoever finds that a path has gone asks for it again: `find` never returns a path that is not there.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from crawler.interface import HubUnavailableError, NoSpaceError, RepoFile
from crawler.room import Pins, make_room, still_named

_CHUNK = 1 << 20
_LOOK_EVERY = 64 << 20
"""Bytes between two looks at the room that is left."""
_POLL = 0.1
"""Seconds between two looks at a download that another process is doing."""


class ContentCache:
    """The cache folder."""

    def __init__(self, root: Path, *, floor: int, patience: float, quota: int | None = None) -> None:
        """Name the folder; it is made when something is put into it.

        Args:
            root: the folder; nothing else writes there.
            floor: bytes of free disk space that are never used.
            patience: seconds to wait for another process's download of the same content that does not grow.
            quota: bytes that the cache may hold; what was used longest ago makes room. None: it only grows.
        """
        self._root = root
        self._floor = floor
        self._patience = patience
        self._quota = quota
        self._pins = Pins()

    def close(self) -> None:
        """Let others remove what was handed out."""
        self._pins.close()

    def path(self, file: RepoFile) -> Path:
        """Where the content is, or will be."""
        kind, name = ("sha256", file.sha256) if file.sha256 is not None else ("git", file.git_oid)
        return self._root / kind / name[:2] / name

    def find(self, file: RepoFile) -> Path | None:
        """The content, if it is here: then it counts as used now, and others leave it alone."""
        path = self.path(file)
        return path if self._pins.take(path, file.size) else None

    def adopt(self, path: Path, descriptor: int) -> bool:
        """Leave a file that has just been finished, and is still locked, to nobody else; False: too late."""
        return self._pins.adopt(path, descriptor)

    def require_room(self, size: int) -> None:
        """Make room for `size` more bytes. For none, workers ask each second: then no file is looked at.

        Raises:
            NoSpaceError: the floor or the quota would be crossed.
        """
        with space_errors(self._root):
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            if size or shutil.disk_usage(self._root).free < self._floor:
                make_room(self._root, size, floor=self._floor, quota=self._quota, pins=self._pins)

    def part(self, file: RepoFile) -> Part:
        """The partial download of a file, locked: one process at a time writes it. Use it as a context.

        Raises:
            HubUnavailableError: another process has it and makes no progress.
            NoSpaceError: the disk is full.
        """
        final = self.path(file)
        with space_errors(self._root):
            final.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.require_room(0)
            path = final.with_name(final.name + ".part")
            return Part(self, file, path, self._lock(path))

    def _lock(self, path: Path) -> FileIO:
        seen, since = -1, time.monotonic()
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            stream = FileIO(descriptor, "r+b")  # no buffer whose last bytes fail on closing
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                size = os.fstat(descriptor).st_size
                stream.close()
                if size != seen:
                    seen, since = size, time.monotonic()
                elif time.monotonic() - since > self._patience:
                    raise HubUnavailableError(
                        f"{path} is held by another process that makes no progress"
                    ) from None
                time.sleep(_POLL)
                continue
            if still_named(path, descriptor):
                return stream
            stream.close()  # it was renamed or removed between opening and locking


class Part:
    """A download on its way: the bytes that are here, and their running hash."""

    def __init__(self, cache: ContentCache, file: RepoFile, path: Path, stream: FileIO) -> None:
        self._cache = cache
        self._file = file
        self._path = path
        self._stream = stream
        self._unchecked = 0
        self.received = 0
        self._hash = _hasher(file)

    def __enter__(self) -> Self:
        self._adopt()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.received == 0 and still_named(self._path, self._stream.fileno()):
            self._path.unlink()
        self._stream.close()

    @property
    def missing(self) -> int:
        """Bytes still to come; negative when the server sent too many."""
        return self._file.size - self.received

    def write(self, chunk: bytes) -> None:
        """Append.

        Raises:
            NoSpaceError: the disk is full, or about to be.
        """
        self._unchecked += len(chunk)
        with space_errors(self._path.parent):
            if self._unchecked >= _LOOK_EVERY:
                self._unchecked = 0
                self._cache.require_room(self.missing)
            left = memoryview(chunk)
            while left:
                left = left[self._stream.write(left) :]
        self._hash.update(chunk)
        self.received += len(chunk)

    def restart(self) -> None:
        """Drop what is here."""
        self._stream.seek(0)
        self._stream.truncate()
        self.received = 0
        self._hash = _hasher(self._file)

    def complete(self) -> bool:
        """Whether these are the bytes the Hub announced, all of them and no others."""
        announced = self._file.sha256 or self._file.git_oid
        return self.missing == 0 and self._hash.hexdigest() == announced

    def commit(self) -> Path | None:
        """Give a complete download its final name; read-only, so that nobody edits it through that name.

        It is pinned before its lock ends, else it could be evicted before anybody has read it. None when it
        was all the same.
        """
        final = self._cache.path(self._file)
        with space_errors(self._path.parent):
            os.fsync(self._stream.fileno())
        os.fchmod(self._stream.fileno(), 0o400)
        self._path.replace(final)
        return final if self._cache.adopt(final, self._stream.fileno()) else None

    def _adopt(self) -> None:
        """Hash what an earlier attempt left."""
        if os.fstat(self._stream.fileno()).st_size > self._file.size:
            self.restart()
            return
        while chunk := self._stream.read(_CHUNK):
            self._hash.update(chunk)
            self.received += len(chunk)


@contextmanager
def space_errors(where: Path) -> Iterator[None]:
    """Turn a full disk or quota, or a limit on the size of files, into a `NoSpaceError`."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise NoSpaceError(f"no space left in {where}") from error
        raise


def _hasher(file: RepoFile) -> hashlib._Hash:
    """SHA-256 of the content, or git's blob id: SHA-1 of `blob`, a space, the size, NUL, the content."""
    if file.sha256 is not None:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
