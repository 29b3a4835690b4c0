"""Signing a release folder: look at what is in it, sign, and verify what was signed before it counts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from crawler.interface import Access, Commit, RepoFile, RepoId, Snapshot
from crawler.local import LocalFile
from detector.errors import SigningError
from detector.files import inspect_files
from detector.formats import is_weight_file
from detector.interface import Manifest
from detector.provenance.coverage import is_loaded
from detector.provenance.interface import SignatureCheck, SignatureStatus, Trust
from detector.provenance.sign import ReleaseSigner, sign_folder
from detector.provenance.verify import verify_release
from forkwatch.pipeline.cards import check_card
from forkwatch.text import plain

_REFUSED = frozenset({"hostile-name", "pickle-file", "unread-pickle", "unsafe-pickle"})
"""What a verifier, a download or a loader refuses, or should. Other findings are said and signed."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A release that was signed and verified."""

    bundle: Path
    root_digest: str
    signer: str
    files: tuple[str, ...]
    """What the signature covers, sorted."""
    left_out: tuple[str, ...]
    """What is in the folder and not covered, sorted."""
    warnings: tuple[str, ...]


def sign(folder: Path, signer: ReleaseSigner, *, signature: str, force: bool, at: datetime) -> Signed:
    """Sign a release folder and verify it with our own strict verifier.

    An existing signature is replaced only with `force`, and stays when the new one does not verify.

    Raises:
        SigningError: what is in the folder must not be signed, or was signed and does not verify.
        InvalidCardError: there is a release card that nobody would believe.
        SigningServiceError: keyless, and Sigstore could not be reached.
    """
    folder, bundle = folder.resolve(), folder.resolve() / signature
    if os.path.lexists(bundle) and not force:
        raise SigningError(f"there is a {signature} already; --force replaces it")
    warnings = _look(folder, signature)
    trust = Trust((signer.trust,))
    old = bundle.read_bytes() if bundle.is_file() else None
    try:
        sign_folder(folder, signer, signature=signature)
        manifest, name = _verified(verify_release(folder, trust, at=at, signature=signature))
        check_card(manifest, folder)
    except BaseException:
        _restore(bundle, old)
        raise
    covered = tuple(sorted(file.path for file in manifest.files))
    left_out = tuple(sorted(set(_files(folder)) - {*covered, signature}))
    loaded = (path for path in left_out if is_loaded(path))
    warnings += tuple(f"{plain(path)} is left out, and a loader could use it" for path in loaded)
    return Signed(bundle, manifest.root_digest, name, covered, left_out, warnings)


def _verified(check: SignatureCheck) -> tuple[Manifest, str]:
    if check.status is not SignatureStatus.VERIFIED or check.manifest is None:
        raise SigningError(f"what was signed does not verify: {check.reason}")
    return check.manifest, check.signer


def _look(folder: Path, signature: str) -> tuple[str, ...]:
    """Refuse what must not be signed; say what should be known.

    Raises:
        SigningError: a link, an unsafe name, a pickle, or nothing to sign.
    """
    files = tuple(path for path in _files(folder) if path != signature and not path.startswith(".git/"))
    if not any(is_weight_file(path) for path in files):
        raise SigningError(f"{folder} holds no weight file, so it is not a release")
    snapshot = _snapshot(folder, files)
    findings = inspect_files(snapshot, lambda path: LocalFile(folder / path))
    for finding in findings:
        if finding.id in _REFUSED:
            raise SigningError(f"{plain(finding.path)}: {finding.id}: {finding.note}")
    return tuple(f"{plain(finding.path)}: {finding.id}: {plain(finding.note)}" for finding in findings)


def _files(folder: Path) -> Iterator[str]:
    """Relative paths of all files; links and what is neither file nor folder are refused."""
    for root, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(root, name)
            shown = path.relative_to(folder).as_posix()
            if path.is_symlink():
                raise SigningError(f"{plain(shown)} is a symbolic link; a release holds the files themselves")
            if name in names:
                if not path.is_file():
                    raise SigningError(f"{plain(shown)} is not a regular file")
                yield shown


def _snapshot(folder: Path, files: tuple[str, ...]) -> Snapshot:
    """The folder as the scanner of files sees a repository."""
    return Snapshot(
        repo=RepoId("local/release"),
        commit=Commit("0" * 40),
        files=tuple(RepoFile(path, (folder / path).stat().st_size, "0" * 40, None) for path in files),
        tags=(),
        claims=(),
        license=None,
        access=Access.OPEN,
        created_at=None,
        last_modified=None,
        downloads=0,
        likes=0,
    )


def _restore(bundle: Path, old: bytes | None) -> None:
    if old is None:
        bundle.unlink(missing_ok=True)
    else:
        bundle.write_bytes(old)
