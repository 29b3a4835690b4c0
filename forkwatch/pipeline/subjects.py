"""What `forkwatch verify` can look at: a folder on this machine, or a repository on the Hub at one commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from crawler.interface import Cost, Hub, RepoId, Snapshot
from detector.errors import InvalidBundleError
from detector.provenance.checked import CheckedFile
from detector.provenance.checkpoint import read_bundle
from detector.provenance.compare import compare_folder
from detector.provenance.container import MAX_BUNDLE_BYTES
from detector.provenance.folder import Folder
from detector.provenance.hash_cache import HashCache
from detector.provenance.interface import SignedFiles
from detector.provenance.refusal import printable
from detector.provenance.remote import check_listing
from forkwatch.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Compared:
    """Files compared with what was signed."""

    files: tuple[CheckedFile, ...]
    unsigned: tuple[str, ...]
    """Neither signed nor used by a loader: not checked. Hostile text."""
    bytes_read: int
    """From the disk, for this comparison and those before it, or fetched from the Hub for this one."""


class Subject(Protocol):
    """Something that may be a copy of a release."""

    @property
    def name(self) -> str:
        """Path, or `org/name@commit`."""
        ...

    @property
    def remote(self) -> bool:
        """On the Hub: what is known of its files is mostly what the Hub reports."""
        ...

    @property
    def cost(self) -> Cost:
        """Spent on the Hub so far."""
        ...

    def bundle(self, signature: str) -> bytes | None:
        """The content of the bundle; None if there is none.

        Raises:
            InvalidBundleError: it is too large, or no regular file.
        """
        ...

    def compare(self, signed: SignedFiles, signature: str, known: Mapping[str, str]) -> Compared:
        """Its files against what was signed; `known` are git blob ids of trusted content, by SHA-256."""
        ...


class LocalSubject:
    """A folder. What was read once is not read again for another comparison."""

    remote = False
    cost = Cost()

    def __init__(self, path: Path, hashes: HashCache, progress: Callable[[int, int], None]) -> None:
        """Look where it is.

        Raises:
            SettingsError: there is no such folder, or it cannot be read.
        """
        try:
            self._place = Folder.at(path)
        except OSError as error:
            raise SettingsError(
                f"cannot read {path}: {error.strerror or error}", tip="Name the folder of a checkpoint."
            ) from error
        self.name = str(path)
        self._hashes, self._progress = hashes, progress
        self._read = 0

    def bundle(self, signature: str) -> bytes | None:
        """As `Subject.bundle`."""
        try:
            return read_bundle(self._place, signature)
        except OSError as error:
            raise InvalidBundleError(printable(f"{signature} cannot be read: {error.strerror}")) from error

    def compare(self, signed: SignedFiles, signature: str, _known: Mapping[str, str]) -> Compared:
        """As `Subject.compare`.

        Raises:
            SettingsError: a folder below cannot be listed.
        """
        try:
            found = compare_folder(
                self._place,
                signed,
                signature=signature,
                hashes=self._hashes,
                progress=self._progress,
            )
        except OSError as error:
            raise SettingsError(f"cannot list {self.name}: {error.strerror}", tip="") from error
        self._read += found.bytes_read
        return Compared(found.files, found.unsigned, self._read)


class RemoteSubject:
    """A repository, pinned to a commit: one call, and the small files of which the Hub reports no SHA-256."""

    remote = True

    def __init__(self, hub: Hub, repo: RepoId, revision: str | None) -> None:
        """Pin it.

        Raises:
            CrawlerError: it could not be asked for.
        """
        self._hub = hub
        self._snapshot: Snapshot = hub.snapshot(repo, revision)
        self.name = f"{self._snapshot.repo}@{self._snapshot.commit}"
        self._small: dict[str, bytes] = {}

    @property
    def cost(self) -> Cost:
        """Spent on the Hub so far."""
        return self._hub.cost

    def bundle(self, signature: str) -> bytes | None:
        """As `Subject.bundle`.

        Raises:
            CrawlerError: it could not be fetched.
        """
        file = self._snapshot.file(signature)
        if file is None:
            return None
        if file.size > MAX_BUNDLE_BYTES:
            raise InvalidBundleError(f"the bundle is larger than {MAX_BUNDLE_BYTES} bytes")
        return self._fetch(signature, file.size)

    def compare(self, signed: SignedFiles, signature: str, known: Mapping[str, str]) -> Compared:
        """As `Subject.compare`.

        Raises:
            CrawlerError: a small file could not be fetched.
        """
        listed = self._snapshot
        found = check_listing(
            signed, listed.files, self._fetch, signature=signature, known=known, refused=listed.refused
        )
        return Compared(found.files, found.unsigned, found.fetched)

    def _fetch(self, path: str, size: int) -> bytes:
        """A small file, once however many releases it is compared with."""
        if path not in self._small:
            self._small[path] = self._hub.open(self._snapshot, path).read(0, size)
        return self._small[path]
