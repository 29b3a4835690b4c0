"""The files of a folder against what was signed: each is read once, several at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from detector.provenance.checked import Basis, CheckedFile, FileState
from detector.provenance.coverage import is_loaded
from detector.provenance.folder import Folder, RefusedFileError
from detector.provenance.hash_cache import FileIdentity, HashCache, now_ns
from detector.provenance.hashing import sha256_of
from detector.provenance.interface import SignedFiles


class Progress(Protocol):
    """Told about bytes as they are read."""

    def __call__(self, done: int, total: int, /) -> None: ...


def ignore_progress(done: int, total: int) -> None:
    """A `Progress` for nobody."""


@dataclass(frozen=True, slots=True)
class FolderCheck:
    """A folder compared with what was signed."""

    folder: Path
    """Without links."""
    files: tuple[CheckedFile, ...]
    """Signed files and uncovered ones, by path."""
    unsigned: tuple[str, ...]
    """Files that are neither signed nor used by a loader: not checked. Hostile text."""
    identities: tuple[tuple[str, FileIdentity], ...]
    """Of the files that were compared, as they were then."""
    bytes_read: int
    signature: str
    """Name of the bundle, which cannot sign itself."""


def compare_folder(
    place: Folder,
    signed: SignedFiles,
    *,
    signature: str,
    hashes: HashCache,
    progress: Progress = ignore_progress,
) -> FolderCheck:
    """Compare every signed file, and look for files that a loader would use and nobody signed.

    Args:
        place: the folder.
        signed: what its files must be.
        signature: name of the bundle, which cannot sign itself.
        hashes: digests of unchanged files; it learns the new ones, and is not saved.
        progress: told `(bytes done, bytes in all)`.

    Raises:
        OSError: a folder cannot be listed. A file that cannot be read is `UNKNOWN`.
    """
    present = place.files()
    wanted = dict(signed.digests)
    loaded = {path for path, refused in present.items() if refused or is_loaded(path)} - {signature}
    reading = _Reading(place, hashes, progress)
    results = reading.run([path for path in wanted if path in present and not present[path]])
    absent = _Result(state=FileState.MISSING)
    files = [results.get(path, absent).against(path, sha256) for path, sha256 in wanted.items()]
    files += [CheckedFile(path, FileState.UNCOVERED, note=present[path]) for path in loaded - wanted.keys()]
    return FolderCheck(
        place.root,
        tuple(sorted(files, key=lambda file: file.path)),
        tuple(path for path in present if path not in loaded and path not in wanted and path != signature),
        tuple((path, result.identity) for path, result in results.items() if result.identity is not None),
        reading.done,
        signature,
    )


def touched(place: Folder, found: FolderCheck) -> tuple[str, ...]:
    """Files that were changed, added or removed since they were compared, as far as names and times tell.

    Raises:
        OSError: a folder cannot be listed.
    """
    present = place.files()
    before = dict(found.identities)
    known = {*before, *found.unsigned, found.signature}
    added = [path for path, refused in present.items() if (refused or is_loaded(path)) and path not in known]
    changed = [path for path, identity in before.items() if _identity(place, path) != identity]
    return tuple(sorted({*added, *changed}))


def _identity(place: Folder, path: str) -> FileIdentity | None:
    try:
        descriptor = place.open(path)
    except OSError:
        return None
    try:
        return FileIdentity.of(os.fstat(descriptor))
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _Result:
    """What came of reading one file: a digest, or the state that it is in without one."""

    identity: FileIdentity | None = None
    sha256: str | None = None
    basis: Basis = Basis.NONE
    began_ns: int | None = None
    """When reading began; None when the digest was known."""
    state: FileState = FileState.UNKNOWN
    note: str = ""

    def against(self, path: str, sha256: str) -> CheckedFile:
        """The file, judged by what was signed."""
        size = None if self.identity is None else self.identity.size
        if self.sha256 is None:
            return CheckedFile(path, self.state, size=size, note=self.note)
        state = FileState.MATCHED if self.sha256 == sha256 else FileState.DIFFERS
        return CheckedFile(path, state, self.basis, size)


class _Stopped(Exception):  # noqa: N818 - no error: the reader is told to give up
    """Another thread failed, or the program was interrupted."""


class _Reading:
    """Reads files in threads, the largest first so that none is left alone at the end."""

    def __init__(self, place: Folder, hashes: HashCache, progress: Progress) -> None:
        self.done = 0
        self._total = 0
        self._place, self._hashes, self._progress = place, hashes, progress
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def run(self, paths: Iterable[str]) -> dict[str, _Result]:
        """Every path with what came of it. Files whose digest is known are not read."""
        results = {path: self._opened(path, self._known) for path in paths}
        sizes = {
            path: result.identity.size
            for path, result in results.items()
            if result.identity is not None and result.sha256 is None
        }
        self._total = sum(sizes.values())
        order = sorted(sizes, key=lambda path: (-sizes[path], path))
        with ThreadPoolExecutor(max(1, min(len(order), _threads()))) as pool:
            try:
                results.update(zip(order, pool.map(self._read, order), strict=True))
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        for result in results.values():
            if result.began_ns is not None and result.identity is not None and result.sha256 is not None:
                self._hashes.remember(result.identity, result.sha256, result.began_ns)
        return results

    def _opened(self, path: str, use: Callable[[int, FileIdentity], _Result]) -> _Result:
        try:
            descriptor = self._place.open(path)
        except RefusedFileError as error:
            return _Result(state=FileState.DIFFERS, note=str(error))
        except FileNotFoundError:
            return _Result(state=FileState.MISSING)
        except OSError as error:
            return _Result(note=type(error).__name__)
        try:
            return use(descriptor, FileIdentity.of(os.fstat(descriptor)))
        except OSError as error:
            return _Result(note=type(error).__name__)
        finally:
            os.close(descriptor)

    def _known(self, _descriptor: int, identity: FileIdentity) -> _Result:
        sha256, basis = self._hashes.find(identity) or (None, Basis.NONE)
        return _Result(identity, sha256, basis)

    def _read(self, path: str) -> _Result:
        return self._opened(path, self._hashed)

    def _hashed(self, descriptor: int, identity: FileIdentity) -> _Result:
        began = now_ns()
        sha256 = sha256_of(descriptor, self._advance)
        if FileIdentity.of(os.fstat(descriptor)) != identity:
            return _Result(identity, state=FileState.DIFFERS, note="changed while it was read")
        return _Result(identity, sha256, Basis.READ, began)

    def _advance(self, count: int) -> None:
        if self._stop.is_set():
            raise _Stopped
        with self._lock:
            self.done += count
            self._progress(self.done, self._total)


def _threads() -> int:
    """As many as this process may run on; more than eight would wait for any disk."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
