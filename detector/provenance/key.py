"""A bundle that is signed with an EC key, and the DSSE signature itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from detector.errors import InvalidBundleError
from detector.provenance.container import PAYLOAD_TYPE, Container, Mode
from detector.provenance.interface import KeyTrust
from detector.provenance.keys import CURVES, PublicKey, load_public_key, pae
from detector.provenance.trusted import Verified

if TYPE_CHECKING:
    from model_signing import verifying


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """An EC public key, loaded once so that every check uses the same bytes."""

    key: PublicKey

    @property
    def mode(self) -> Mode:
        return Mode.KEY

    def verify(self, bundle: Container, *, at: datetime, legacy: bool) -> Verified:  # noqa: ARG002 - a key has no end
        """Check the signature, and the hint if there is one."""
        if bundle.hint not in ("", self.key.fingerprint):
            raise InvalidBundleError("signed with another key than the one configured")
        verify_signature(self.key.key, bundle, legacy=legacy)
        return Verified(f"ecdsa-sha256:{self.key.fingerprint}", None)

    def arm(self, library: verifying.Config, private: Path) -> None:
        """Tell the library to trust this key only."""
        path = private / "release.pub"
        path.write_bytes(self.key.pem)
        library.use_elliptic_key_verifier(public_key=path)


def load_key(trust: KeyTrust) -> TrustedKey:
    """Read an EC public key in PEM form.

    Raises:
        PublicKeyError: not PEM, or not on a curve the OMS spec allows.
    """
    return TrustedKey(load_public_key(trust.public_key))


def verify_signature(key: object, bundle: Container, *, legacy: bool) -> None:
    """Check a bundle's one signature with an EC public key.

    Args:
        key: of any type; only one on P-256, P-384 or P-521 can verify.
        bundle: what is signed.
        legacy: also accept how release 0.2 of the library encoded what it signed.

    Raises:
        InvalidBundleError: it does not verify.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise InvalidBundleError("not signed with an EC key on P-256, P-384 or P-521")
    refused: InvalidSignature | None = None
    for encoded, algorithm in _encodings(bundle.payload, CURVES[key.curve.name], legacy=legacy):
        try:
            key.verify(bundle.signature, encoded, ec.ECDSA(algorithm()))
        except InvalidSignature as error:
            refused = error
        else:
            return
    raise InvalidBundleError("the signature does not match the payload (InvalidSignature)") from refused


def _encodings(
    payload: bytes, algorithm: type[hashes.HashAlgorithm], *, legacy: bool
) -> Iterator[tuple[bytes, type[hashes.HashAlgorithm]]]:
    """What may have been signed, with the hash: DSSE's pre-authentication encoding, or release 0.2's."""
    yield pae(PAYLOAD_TYPE, payload), algorithm
    if legacy:
        # Release 0.2 printed the bytes as Python does, and used SHA-256 with certificates on any curve.
        old = f"DSSEV1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} {payload!r}".encode()
        yield old, algorithm
        yield old, hashes.SHA256
