"""Is this repository what its publisher signed? Answered from the Hub's own listing, without its weights.

The Hub reports the SHA-256 of every file in its large-file storage, which is what the bundle signs. Small
files have no SHA-256 there: where their trusted content is known, its git blob id is compared, and else they
are fetched, within limits, and hashed. A match by a hash that the Hub reports is the Hub's word; `Basis`
keeps it apart from a match of bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from crawler.paths import MAX_PATH_BYTES, MAX_REFUSED
from detector.provenance.checked import Basis, CheckedFile, FileState
from detector.provenance.coverage import is_bookkeeping, is_loaded
from detector.provenance.interface import SignedFiles


class ListedFile(Protocol):
    """One file of a repository, as the Hub reports it."""

    @property
    def path(self) -> str: ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def git_oid(self) -> str:
        """Git blob id: of the content, or of the pointer where there is a SHA-256."""
        ...

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the content, hex; None for a file outside the large-file storage."""
        ...


class LeftOutFile(Protocol):
    """One that the listing leaves out, because no disk could hold it as it is named."""

    @property
    def path(self) -> str:
        """Escaped to ASCII, perhaps cut."""
        ...

    @property
    def reason(self) -> str: ...


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What a repository may make us download. The Hub wants files above 10 MB in its large-file storage."""

    files: int = 64
    each: int = 16 << 20
    """Bytes of one file."""
    total: int = 64 << 20
    """Bytes of all."""


@dataclass(frozen=True, slots=True)
class RemoteCheck:
    """A repository's listing compared with what was signed."""

    files: tuple[CheckedFile, ...]
    """Signed files and uncovered ones, by path."""
    unsigned: tuple[str, ...]
    """Files that are neither signed nor used by a loader: not checked. Hostile text."""
    fetched: int
    """Bytes."""


def check_listing(  # noqa: PLR0913 - keyword-only, two with defaults
    signed: SignedFiles,
    listing: Iterable[ListedFile],
    fetch: Callable[[str, int], bytes],
    *,
    signature: str = "model.sig",
    known: Mapping[str, str] | None = None,
    refused: Collection[LeftOutFile] = (),
    limits: FetchLimits = FetchLimits(),
) -> RemoteCheck:
    """Compare a listing with what was signed.

    Args:
        signed: what the files must be.
        listing: all files of one commit; no path twice.
        fetch: the content of a small file, by path and size. What it raises is passed on.
        signature: path of the bundle, which cannot sign itself.
        known: git blob ids of trusted content, by its SHA-256.
        refused: what the listing leaves out: it is there, and nobody can look at it. One that a loader could
            use is `UNCOVERED`, or `UNKNOWN` where it seems to be one that is signed.
        limits: what may be fetched; a file beyond them is `UNKNOWN`.
    """
    present = {file.path: file for file in listing}
    wanted = dict(signed.digests)
    reader = _Reader(fetch, limits, known or {})
    odd, unseen = {file.path: file.reason for file in refused}, _unseen(refused)
    files = [
        reader.check(present[path], sha256) if path in present else _absent(path, odd.get(path))
        for path, sha256 in wanted.items()
    ]
    files += [CheckedFile(path, FileState.UNCOVERED, note=odd[path]) for path in unseen - wanted.keys()]
    others = [path for path in present if path not in wanted and path != signature]
    loaded = {path for path in others if is_loaded(path) and not is_bookkeeping(path)}
    files += [CheckedFile(path, FileState.UNCOVERED, size=present[path].size) for path in loaded]
    return RemoteCheck(
        tuple(sorted(files, key=lambda file: file.path)),
        tuple(sorted({*others, *odd} - loaded - unseen - wanted.keys())),
        reader.spent,
    )


@dataclass(slots=True)
class _Reader:
    fetch: Callable[[str, int], bytes]
    limits: FetchLimits
    known: Mapping[str, str]
    spent: int = 0
    files: int = 0

    def check(self, file: ListedFile, sha256: str) -> CheckedFile:
        """One file that is signed and listed."""
        if file.sha256 is not None:
            return _judged(file, Basis.HUB_SHA256, same=file.sha256 == sha256)
        if (oid := self.known.get(sha256)) is not None:
            return _judged(file, Basis.HUB_GIT_OID, same=file.git_oid == oid)
        if file.size > self.limits.each:
            note = f"the Hub reports no SHA-256, and {file.size} bytes are too many to fetch"
            return CheckedFile(file.path, FileState.UNKNOWN, size=file.size, note=note)
        if self.files >= self.limits.files or self.spent + file.size > self.limits.total:
            note = "the Hub reports no SHA-256, and enough was fetched of this repository"
            return CheckedFile(file.path, FileState.UNKNOWN, size=file.size, note=note)
        content = self.fetch(file.path, file.size)
        self.files, self.spent = self.files + 1, self.spent + len(content)
        return _judged(file, Basis.FETCHED, same=hashlib.sha256(content).hexdigest() == sha256)


def _unseen(refused: Collection[LeftOutFile]) -> set[str]:
    """Those that a loader could use. A name that was cut, or that others were dropped for, says nothing."""
    cut = len(refused) >= MAX_REFUSED
    return {file.path for file in refused if cut or len(file.path) >= MAX_PATH_BYTES or is_loaded(file.path)}


def _absent(path: str, refused: str | None) -> CheckedFile:
    if refused is None:
        return CheckedFile(path, FileState.MISSING)
    return CheckedFile(path, FileState.UNKNOWN, note=refused)


def _judged(file: ListedFile, basis: Basis, *, same: bool) -> CheckedFile:
    return CheckedFile(file.path, FileState.MATCHED if same else FileState.DIFFERS, basis, file.size)
