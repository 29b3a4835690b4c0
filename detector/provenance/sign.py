"""Sign a release with OpenSSF model-signing."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

_UNSIGNED_BY_CUSTOM = ("README.md",)
"""Publishers edit the card after the release, so signers leave it out."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Paths of an EC P-256 key pair in PEM form."""

    private: Path
    public: Path


def sign_release(folder: Path, private_key: Path, *, signature: str = "model.sig") -> Path:
    """Sign every file of `folder` except the card and git's own, and return the bundle's path.

    ECDSA draws a random number: two signatures of a folder differ in bytes, but not in their root digest.
    """
    from model_signing import hashing, signing

    bundle = folder / signature
    config = hashing.Config().use_file_serialization(hashing_algorithm="sha256")
    config.set_ignored_paths(paths=[signature, *_UNSIGNED_BY_CUSTOM], ignore_git_paths=True)
    signer = signing.Config().set_hashing_config(config).use_elliptic_key_signer(private_key=private_key)
    with contextlib.redirect_stdout(sys.stderr):
        signer.sign(folder, bundle)
    return bundle


def generate_key(folder: Path) -> KeyPair:
    """Create `release.key` (0600) and `release.pub` in `folder`.

    Raises:
        FileExistsError: there is a key already; it is never overwritten.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    pair = KeyPair(folder / "release.key", folder / "release.pub")
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    folder.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(pair.private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(private)
    pair.public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return pair
