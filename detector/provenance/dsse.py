"""Sign bytes with an EC key as a DSSE envelope in a sigstore bundle, and open such a bundle strictly.

The same key, message and version give the same bytes: ECDSA takes its nonce from the message (RFC 6979), so
that what was published is not published anew without a change. Formats: DSSE 1.0 protocol; sigstore bundle
v0.3 with a public key, which names the key by SHA-256 of its PEM as OpenSSF model-signing does.

`securesystemslib.dsse` (1.6) is not used: it pads broken base64, takes an envelope by its first signature
that fits, and its signers draw a random nonce.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
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

from detector.errors import InvalidAttestationError, PrivateKeyError, PublicKeyError
from detector.provenance.strict import Strict

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
MAX_ENVELOPE_BYTES = 8 << 20
"""Of a bundle. A verdict with 50 findings on 200 files takes some 100 kB."""

_HASHES: Mapping[str, type[hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}
_STRICT = Strict("attestation", InvalidAttestationError)


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


@dataclass(frozen=True, slots=True)
class Opened:
    """The payload that a key has signed."""

    payload: bytes
    key: PublicKey


def new_signing_key() -> SigningKey:
    """A fresh key on P-256."""
    return SigningKey(ec.generate_private_key(ec.SECP256R1()))


def load_verifying_key(pem: bytes) -> PublicKey:
    """Read an EC public key in PEM form.

    Raises:
        PublicKeyError: not PEM, or another kind of key.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PublicKeyError(f"cannot read the public key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
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
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _HASHES:
        raise PrivateKeyError("the private key is not an EC key on P-256, P-384 or P-521")
    return SigningKey(key)


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed."""
    name = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(payload), payload)


def seal(payload: bytes, payload_type: str, key: SigningKey) -> bytes:
    """A bundle with the signed payload, as JSON on one line."""
    scheme = ec.ECDSA(_HASHES[key.key.curve.name](), deterministic_signing=True)
    signature = key.key.sign(pae(payload_type, payload), scheme)
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": key.public.fingerprint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": key.public.fingerprint}],
        },
    }
    return json.dumps(bundle, separators=(",", ":")).encode() + b"\n"


def open_sealed(bundle: bytes, payload_type: str, keys: Sequence[PublicKey]) -> Opened:
    """The payload, when one of the keys has signed exactly it.

    Key ids in a bundle are hints that anybody can write, so that every key is tried.

    Raises:
        InvalidAttestationError: malformed, of another payload type, or signed with none of the keys.
    """
    # (1): the container, and one envelope with one signature.
    root = _STRICT.parse(bundle, MAX_ENVELOPE_BYTES)
    _STRICT.expect(root, "mediaType", MEDIA_TYPE)
    material = _STRICT.mapping(root.get("verificationMaterial"), "verificationMaterial")
    _STRICT.mapping(material.get("publicKey"), "publicKey")
    envelope = _STRICT.mapping(root.get("dsseEnvelope"), "dsseEnvelope")
    _STRICT.expect(envelope, "payloadType", payload_type)
    signatures = _STRICT.array(envelope.get("signatures"), "signatures", most=1)
    if not signatures:
        _STRICT.refuse("there is no signature")
    # (2): the signature, over the very bytes that are returned.
    payload = _STRICT.base64(envelope.get("payload"), "payload")
    signature = _STRICT.base64(_STRICT.mapping(signatures[0], "signature").get("sig"), "sig")
    message = pae(payload_type, payload)
    signer = next((key for key in keys if _signed_by(key, signature, message)), None)
    if signer is None:
        raise InvalidAttestationError("the signature is not by the given key over this content")
    return Opened(payload, signer)


def _signed_by(key: PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.key.verify(signature, message, ec.ECDSA(_HASHES[key.key.curve.name]()))
    except InvalidSignature:
        return False
    return True
