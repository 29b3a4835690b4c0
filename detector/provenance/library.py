"""The second opinion: `model_signing` verifies the same folder against the same bytes."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import warnings
from pathlib import Path

from detector.provenance.coverage import CLIENT_CACHE
from detector.provenance.refusal import refusing
from detector.provenance.trusted import TrustedSigner


def verify_with_library(folder: Path, bundle: bytes, signer: TrustedSigner, *, signature: str) -> None:
    """Let model-signing 1.1.1 verify `folder` against exactly these bytes of bundle and trust.

    Raises:
        InvalidBundleError: it refuses, with its exception as the cause.
    """
    from model_signing import hashing, verifying

    # Explicit, so that a bundle cannot choose another hash, sharding, or to follow symbolic links.
    config = hashing.Config().use_file_serialization(hashing_algorithm="sha256", allow_symlinks=False)
    config.set_ignored_paths(paths=[signature, str(CLIENT_CACHE)], ignore_git_paths=True)
    with (
        tempfile.TemporaryDirectory(prefix="forkwatch-verify-") as private,
        # The library prints warnings to stdout, which is data in our programs, and logs through a deprecated
        # method, which a strict interpreter would turn into a refusal.
        contextlib.redirect_stdout(sys.stderr),
        warnings.catch_warnings(action="ignore", category=DeprecationWarning),
        refusing(),
    ):
        copy = Path(private, "model.sig")
        copy.write_bytes(bundle)
        library = verifying.Config().set_hashing_config(config)
        signer.arm(library, Path(private))
        library.verify(folder, copy)
