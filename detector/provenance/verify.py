"""Is this folder the release its publisher signed? Checked with OpenSSF model-signing before any comparison.

Covered: EC key mode, method `files` with SHA-256 (OMS spec 1.0). A VERIFIED release has every file it can be
loaded from in its manifest, byte for byte.

Not covered: who owns the key (pin it), when it was signed (key mode carries no time), and whether a newer
release exists (an older signed release verifies too). A signature says nothing about safety or licence.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from detector.errors import DetectorError, InvalidBundleError
from detector.provenance.bundle import MAX_BUNDLE_BYTES, PublicKey, load_public_key, open_bundle
from detector.provenance.coverage import CLIENT_CACHE, files_below, is_loaded
from detector.provenance.hashing import hash_file
from detector.provenance.interface import (
    KeyTrust,
    Manifest,
    ManifestFile,
    SignatureCheck,
    SignatureStatus,
    SignedFiles,
    Trust,
)


def verify_release(
    folder: Path,
    trust: Trust,
    *,
    at: datetime,
    signature: str = "model.sig",
) -> SignatureCheck:
    """Check a release folder against its bundle; a bad signature is a result, never an exception.

    (0): without a bundle the release is UNSIGNED.
    (1): the bundle is read once and verified strictly (`open_bundle`).
    (2): the library verifies the same bytes and hashes the folder; links and unsigned extra files fail here.
    (3): every file the release can be loaded from is covered.
    (4): sizes and git ids are taken while each file is hashed once more, so the manifest describes bytes that
    were seen to match. The caller MUST use only files of the manifest.

    Raises:
        PublicKeyError: the key, which is ours and not the release's, cannot be used.
    """
    folder = folder.resolve()
    signer_key = next(signer for signer in trust.signers if isinstance(signer, KeyTrust))
    key = load_public_key(signer_key.public_key)
    # (0): no bundle.
    if not os.path.lexists(folder / signature):
        return SignatureCheck(SignatureStatus.UNSIGNED, "", None, f"there is no {signature}")
    try:
        # (1): bundle.
        bundle = _read_bounded(folder / signature)
        opened = open_bundle(bundle, trust, at=at)
        # (2): library.
        _verify_with_library(folder, bundle, key, signature)
        # (3): coverage.
        _check_coverage(folder, opened.signed, signature)
        # (4): manifest.
        files = tuple(_hashed(folder, path, digest) for path, digest in opened.signed.digests)
    except (DetectorError, OSError) as error:
        reason = f"{type(error.__cause__ or error).__name__}: {error}"
        return SignatureCheck(SignatureStatus.INVALID, "", None, reason[:600])
    return SignatureCheck(SignatureStatus.VERIFIED, opened.signer, Manifest(opened.signed.root_digest, files))


def _read_bounded(path: Path) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise InvalidBundleError(f"{path.name} is not a regular file")
    with path.open("rb") as file:
        return file.read(MAX_BUNDLE_BYTES + 1)


def _verify_with_library(folder: Path, bundle: bytes, key: PublicKey, signature: str) -> None:
    """Let model-signing 1.1.1 verify `folder` against exactly these bytes of bundle and key."""
    from model_signing import hashing, verifying

    # Explicit, so that a bundle cannot choose another hash, sharding, or to follow symbolic links.
    config = hashing.Config().use_file_serialization(hashing_algorithm="sha256", allow_symlinks=False)
    config.set_ignored_paths(paths=[signature, str(CLIENT_CACHE)], ignore_git_paths=True)
    with tempfile.TemporaryDirectory(prefix="forkwatch-verify-") as private:
        bundle_copy, key_copy = Path(private, "model.sig"), Path(private, "release.pub")
        bundle_copy.write_bytes(bundle)
        key_copy.write_bytes(key.pem)
        try:
            # The library prints warnings to stdout, which is data in our programs.
            with contextlib.redirect_stdout(sys.stderr):
                verifier = verifying.Config().set_hashing_config(config)
                verifier.use_elliptic_key_verifier(public_key=key_copy).verify(folder, bundle_copy)
        except Exception as error:  # eight classes seen for bad input; each means "not verified"
            raise InvalidBundleError(_printable(str(error))) from error


def _check_coverage(folder: Path, signed: SignedFiles, signature: str) -> None:
    """Refuse a release whose signature leaves out (`ignore_paths`) a file that changes the model."""
    covered = {path for path, _ in signed.digests}
    loaded = {path for path in files_below(folder) if path != signature and is_loaded(path)}
    missing = sorted(loaded - covered)
    if missing:
        raise InvalidBundleError(f"not covered: {_printable(', '.join(missing[:10]))}")


def _printable(text: str) -> str:
    """At most 500 characters of printable ASCII: file names and the library's messages may hold anything."""
    return "".join(char if " " <= char <= "~" else ascii(char)[1:-1] for char in text[:500])[:500]


def _hashed(folder: Path, path: str, sha256: str) -> ManifestFile:
    file = hash_file(folder, path)
    if file.sha256 != sha256:
        raise InvalidBundleError(f"{path!a} changed while it was verified")
    return file
