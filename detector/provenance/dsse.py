"""Sign bytes with an EC key as a DSSE envelope in a sigstore bundle, and open such a bundle strictly.

The same key, message and version give the same bytes: ECDSA takes its nonce from the message (RFC 6979), so
that what was published is not published anew without a change. Formats: DSSE 1.0 protocol; sigstore bundle
v0.3 with a public key, which names the key by SHA-256 of its PEM as OpenSSF model-signing does.

`securesystemslib.dsse` (1.6) is not used: it pads broken base64, takes an envelope by its first signature
that fits, and its signers draw a random nonce.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from detector.errors import InvalidAttestationError, InvalidBundleError
from detector.provenance.container import MEDIA_TYPE, PAYLOAD_TYPE, Mode, read_container
from detector.provenance.keys import CURVES, PublicKey, SigningKey, pae


@dataclass(frozen=True, slots=True)
class Opened:
    """The payload that a key has signed."""

    payload: bytes
    key: PublicKey


def seal(payload: bytes, key: SigningKey) -> bytes:
    """A bundle with the signed payload, as JSON on one line."""
    scheme = ec.ECDSA(CURVES[key.key.curve.name](), deterministic_signing=True)
    signature = key.key.sign(pae(PAYLOAD_TYPE, payload), scheme)
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": key.public.fingerprint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": key.public.fingerprint}],
        },
    }
    return json.dumps(bundle, separators=(",", ":")).encode() + b"\n"


def open_sealed(bundle: bytes, keys: Sequence[PublicKey]) -> Opened:
    """The payload, when one of the keys has signed exactly it.

    Key ids in a bundle are hints that anybody can write, so that every key is tried.

    Raises:
        InvalidAttestationError: malformed, not an in-toto payload, or signed with none of the keys.
    """
    try:
        container = read_container(bundle)
    except InvalidBundleError as error:
        raise InvalidAttestationError(str(error)) from error
    if container.mode is not Mode.KEY:
        raise InvalidAttestationError("it is not signed with a key")
    payload, signature = container.payload, container.signature
    message = pae(PAYLOAD_TYPE, payload)
    signer = next((key for key in keys if _signed_by(key, signature, message)), None)
    if signer is None:
        raise InvalidAttestationError("the signature is not by the given key over this content")
    return Opened(payload, signer)


def _signed_by(key: PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.key.verify(signature, message, ec.ECDSA(CURVES[key.key.curve.name]()))
    except InvalidSignature:
        return False
    return True
