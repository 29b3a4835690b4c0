"""Is this folder the release its publisher signed? Checked with OpenSSF model-signing before any comparison.

Covered: EC keys, certificates under a private root with a pin, and sigstore identities; method `files` with
SHA-256 (OMS spec 1.0). A VERIFIED release has every file it can be loaded from in its manifest, byte for
byte.

Not covered: who owns a key (pin it), when it was signed (only keyless bundles carry a time), revocation, and
whether a newer release exists (an older signed release verifies too). A signature says nothing about safety
or licence.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from detector.errors import DetectorError, InvalidBundleError, TrustError, UnknownSignerError
from detector.provenance.bundle import find_signer, load_trust
from detector.provenance.container import MAX_BUNDLE_BYTES
from detector.provenance.coverage import files_below, is_loaded
from detector.provenance.interface import (
    Manifest,
    ManifestFile,
    SignatureCheck,
    SignatureStatus,
    SignedFiles,
    Trust,
)
from detector.provenance.library import verify_with_library
from detector.provenance.refusal import printable, reason_of


def verify_release(
    folder: Path,
    trust: Trust,
    *,
    at: datetime,
    signature: str = "model.sig",
) -> SignatureCheck:
    """Check a release folder against its bundle; a bad signature is a result, never an exception.

    (0): without a bundle the release is UNSIGNED.
    (1): the bundle is read once and verified strictly (`open_bundle`); if it is well formed and the trust
    names nobody, the release is CLAIMED, and its files are not compared with the claim.
    (2): the library verifies the same bytes and has the folder hashed; links and unsigned extra files fail.
    (3): every file the release can be loaded from is covered.
    (4): sizes and git ids are of the same reading, so the manifest describes bytes that were seen to match.
    The caller MUST use only files of the manifest.

    Args:
        folder: the release.
        trust: who may have signed it.
        at: the time at which certificates must be valid.
        signature: path of the bundle within the folder.

    Raises:
        TrustError: what we were told to trust, which is ours and not the release's, cannot be used.
    """
    folder = folder.resolve()
    signers = load_trust(trust)
    # (0): no bundle.
    if not os.path.lexists(folder / signature):
        return SignatureCheck(SignatureStatus.UNSIGNED, "", None, f"there is no {signature}")
    try:
        # (1): bundle.
        bundle = _read_bounded(folder / signature)
        opened, signer = find_signer(bundle, signers, at=at, legacy=trust.legacy)
        # (2): library.
        seen = verify_with_library(folder, bundle, signer, signature=signature)
        # (3): coverage.
        _check_coverage(folder, opened.signed, signature)
        # (4): manifest.
        files = tuple(_matched(seen, path, digest) for path, digest in opened.signed.digests)
    except TrustError:
        raise
    except UnknownSignerError as error:
        return SignatureCheck(SignatureStatus.CLAIMED, "", None, reason_of(error))
    except (DetectorError, OSError) as error:
        return SignatureCheck(SignatureStatus.INVALID, "", None, reason_of(error))
    manifest = Manifest(opened.signed.root_digest, files)
    return SignatureCheck(SignatureStatus.VERIFIED, opened.signer, manifest, signed_at=opened.signed_at)


def _read_bounded(path: Path) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise InvalidBundleError(f"{path.name} is not a regular file")
    with path.open("rb") as file:
        return file.read(MAX_BUNDLE_BYTES + 1)


def _check_coverage(folder: Path, signed: SignedFiles, signature: str) -> None:
    """Refuse a release whose signature leaves out (`ignore_paths`) a file that changes the model."""
    covered = {path for path, _ in signed.digests}
    loaded = {path for path in files_below(folder) if path != signature and is_loaded(path)}
    missing = sorted(loaded - covered)
    if missing:
        raise InvalidBundleError(f"not covered: {printable(', '.join(missing[:10]))}")


def _matched(seen: Mapping[str, ManifestFile], path: str, sha256: str) -> ManifestFile:
    """The library agreed already; what it was told is compared with what was signed all the same."""
    file = seen.get(path)
    if file is None or file.sha256 != sha256:
        raise InvalidBundleError(f"{path!a} is not what was signed")
    return file
