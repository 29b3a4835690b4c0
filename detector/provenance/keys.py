"""EC keys on the curves that OpenSSF model-signing allows, and what DSSE signs with them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from detector.errors import PrivateKeyError, PublicKeyError

CURVES: Mapping[str, type[hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}
"""P-256, P-384 and P-521, each with its hash (OMS spec 1.0)."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An EC public key on P-256, P-384 or P-521."""

    key: ec.EllipticCurvePublicKey

    @property
    def pem(self) -> bytes:
        """Canonical PEM."""
        return self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical PEM, hex: the id of the key."""
        return hashlib.sha256(self.pem).hexdigest()


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An EC private key on P-256, P-384 or P-521."""

    key: ec.EllipticCurvePrivateKey

    @property
    def public(self) -> PublicKey:
        """Its public half."""
        return PublicKey(self.key.public_key())

    @property
    def pem(self) -> bytes:
        """PKCS #8, not encrypted."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def new_signing_key() -> SigningKey:
    """A fresh key on P-256."""
    return SigningKey(ec.generate_private_key(ec.SECP256R1()))


def load_public_key(pem: bytes) -> PublicKey:
    """Read an EC public key in PEM form.

    Raises:
        PublicKeyError: not PEM, or another kind of key.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PublicKeyError(f"cannot read the public key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise PublicKeyError("it is not an EC key on P-256, P-384 or P-521")
    return PublicKey(key)


def load_signing_key(pem: bytes, password: bytes | None = None) -> SigningKey:
    """Read an EC private key in PEM form.

    Raises:
        PrivateKeyError: not PEM, another kind of key, or a missing, wrong or needless password.
    """
    try:
        key = load_pem_private_key(pem, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PrivateKeyError(f"cannot read the private key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise PrivateKeyError("the private key is not an EC key on P-256, P-384 or P-521")
    return SigningKey(key)


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed."""
    name = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(payload), payload)
