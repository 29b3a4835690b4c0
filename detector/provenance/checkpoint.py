"""Is this folder what its publisher signed? For an application, to be asked before it loads the weights.

    from detector.provenance.checkpoint import verify_checkpoint
    from detector.provenance.interface import KeyTrust, Trust

    trust = Trust((KeyTrust(Path("publisher.pub").read_bytes()),))
    checkpoint = verify_checkpoint(folder, trust)    # raises NotAuthenticError
    model = load(checkpoint.folder)
    checkpoint.recheck()                             # nothing was exchanged meanwhile

Importing it needs the standard library and `cryptography`. (1) The bundle is verified against the trust;
(2) every signed file is hashed, several at a time; (3) every file that a loader would use must be signed.
A file that no loader uses, such as a picture, may be unsigned: it is listed, and not checked.

Not covered: what happens to the files later. Between this check and the loader's reading, whoever can
write to the folder can exchange a file; `recheck` after loading notices, unless the file was written twice
within one tick of the file system's clock, or in a way that `hash_cache` names. Where others may write to
the folder, copy it first and verify the copy. Nor is it said when the files were signed, whether there is a
newer release, or whether the model is safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from os import PathLike
from pathlib import Path

from detector.errors import DetectorError, InvalidBundleError
from detector.provenance.bundle import open_bundle
from detector.provenance.checked import CheckedFile, FileState, paths_in
from detector.provenance.compare import FolderCheck, Progress, compare_folder, ignore_progress, touched
from detector.provenance.container import MAX_BUNDLE_BYTES
from detector.provenance.folder import Folder, RefusedFileError
from detector.provenance.hash_cache import HashCache
from detector.provenance.interface import Trust
from detector.provenance.refusal import printable


class CheckpointStatus(StrEnum):
    """Outcome of checking a folder."""

    AUTHENTIC = "authentic"
    ALTERED = "altered"
    """Signed, but a file differs, is missing, or is used and not signed."""
    INVALID = "invalid-signature"
    UNSIGNED = "unsigned"
    UNREADABLE = "unreadable"
    """A folder or file could not be read, so nothing can be said."""


@dataclass(frozen=True, slots=True)
class CheckpointCheck:
    """What a check found."""

    status: CheckpointStatus
    reason: str = ""
    """Why it is not authentic: one line of printable text; empty when it is."""
    signer: str = ""
    """As `SignatureCheck.signer`; empty unless the signature verifies."""
    root_digest: str = ""
    """Of the files that were signed; empty unless the signature verifies."""
    found: FolderCheck | None = None
    """None when it did not come to comparing files."""


class NotAuthenticError(DetectorError):
    """The folder is not what a trusted signer signed, or that could not be established. Do not load it."""

    tip = "Do not load these files. Get them again from the publisher."

    def __init__(self, check: CheckpointCheck) -> None:
        super().__init__(f"{check.status}: {check.reason}")
        self.check = check


@dataclass(frozen=True, slots=True)
class VerifiedCheckpoint:
    """A folder whose every file that a loader would use is signed by a trusted signer, byte for byte."""

    signer: str
    root_digest: str
    found: FolderCheck

    @property
    def folder(self) -> Path:
        """The folder that was read, without links. Load from here: a link may have been turned since."""
        return self.found.folder

    @property
    def files(self) -> tuple[CheckedFile, ...]:
        """The signed files."""
        return self.found.files

    def recheck(self) -> None:
        """See that nothing was exchanged since; reads names and times, no content.

        Raises:
            NotAuthenticError: a file was touched, even if only its permissions, or one was added.
        """
        try:
            changed = touched(Folder.at(self.folder), self.found)
        except OSError as error:
            raise NotAuthenticError(_unreadable(error)) from error
        if changed:
            reason = f"touched since it was verified: {printable(', '.join(changed[:10]))}"
            raise NotAuthenticError(CheckpointCheck(CheckpointStatus.ALTERED, reason))


def verify_checkpoint(  # noqa: PLR0913 - keyword-only, and the defaults are safe
    folder: str | PathLike[str],
    trust: Trust,
    *,
    at: datetime | None = None,
    signature: str = "model.sig",
    cache: str | PathLike[str] | None = None,
    full: bool = False,
    progress: Progress = ignore_progress,
) -> VerifiedCheckpoint:
    """Verify a checkpoint folder, or raise.

    Args:
        folder: a folder of real files, or a snapshot folder of the Hub client's cache.
        trust: who may have signed it. With no signer, nothing is authentic.
        at: when certificates must be valid; now by default.
        signature: name of the bundle in the folder.
        cache: file that remembers digests, so that unchanged files are not read again (see `hash_cache` for
            what that trusts). None: everything is read.
        full: read everything although there is a cache.
        progress: told `(bytes done, bytes in all)`, from one thread at a time.

    Raises:
        NotAuthenticError: in every case but success; `.check` says what was found.
        TrustError: the trust itself cannot be used, which is the caller's mistake.
    """
    hashes = HashCache.open(None if cache is None else Path(cache), full=full)
    check = check_checkpoint(
        Path(folder), trust, at=at, signature=signature, hashes=hashes, progress=progress
    )
    hashes.save()
    if check.status is not CheckpointStatus.AUTHENTIC or check.found is None:
        raise NotAuthenticError(check)
    return VerifiedCheckpoint(check.signer, check.root_digest, check.found)


def check_checkpoint(  # noqa: PLR0913 - as verify_checkpoint
    folder: Path,
    trust: Trust,
    *,
    hashes: HashCache,
    at: datetime | None = None,
    signature: str = "model.sig",
    progress: Progress = ignore_progress,
) -> CheckpointCheck:
    """As `verify_checkpoint`, but whatever is found is a result.

    Raises:
        TrustError: the trust itself cannot be used.
    """
    try:
        place = Folder.at(folder)
        bundle = read_bundle(place, signature)
        if bundle is None:
            return CheckpointCheck(CheckpointStatus.UNSIGNED, f"there is no {signature}")
        if not trust.signers:
            return CheckpointCheck(CheckpointStatus.INVALID, "the trust names no signer")
        opened = open_bundle(bundle, trust, at=at or datetime.now(UTC))
        found = compare_folder(place, opened.signed, signature=signature, hashes=hashes, progress=progress)
    except InvalidBundleError as error:
        return CheckpointCheck(CheckpointStatus.INVALID, printable(str(error)))
    except OSError as error:
        return _unreadable(error)
    status, reason = judge_files(found.files)
    return CheckpointCheck(status, reason, opened.signer, opened.signed.root_digest, found)


def read_bundle(place: Folder, signature: str) -> bytes | None:
    """The bundle of a folder; None if there is none.

    Raises:
        InvalidBundleError: it is not a regular file.
        OSError: it cannot be read.
    """
    if not (place.root / signature).is_symlink() and not (place.root / signature).exists():
        return None
    try:
        descriptor = place.open(signature)
    except RefusedFileError as error:
        raise InvalidBundleError(f"{signature} is {error}") from error
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor has no path
        return file.read(MAX_BUNDLE_BYTES + 1)


def judge_files(files: Sequence[CheckedFile]) -> tuple[CheckpointStatus, str]:
    """What checked files amount to, and why. Where nothing matched, nothing is authentic."""
    for state in (FileState.DIFFERS, FileState.MISSING, FileState.UNCOVERED):
        if paths := paths_in(files, state):
            more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
            said = "not signed, and a loader would use it" if state is FileState.UNCOVERED else state.value
            return CheckpointStatus.ALTERED, f"{said}: {printable(', '.join(paths[:5]))}{more}"
    if unknown := paths_in(files, FileState.UNKNOWN):
        return CheckpointStatus.UNREADABLE, f"unknown content: {printable(', '.join(unknown[:5]))}"
    if not paths_in(files, FileState.MATCHED):
        return CheckpointStatus.UNREADABLE, "there is no file to check"
    return CheckpointStatus.AUTHENTIC, ""


def _unreadable(error: OSError) -> CheckpointCheck:
    return CheckpointCheck(CheckpointStatus.UNREADABLE, printable(f"{type(error).__name__}: {error}"))
