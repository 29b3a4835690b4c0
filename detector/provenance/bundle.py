"""What an OMS bundle signs, from the bundle alone: checked before a single byte of weights is downloaded.

`model_signing` 1.1.1 offers this only through private modules, and those accept what we refuse: the
signature encoding of its release 0.2, predicate v0.1, repeated file names and several signatures. The format
is small (DSSE envelope, in-toto statement, ECDSA), so it is read here strictly; `provenance.verify_release`
still demands that the library agrees. Format: OpenSSF model-signing-spec 1.0; DSSE 1.0 protocol.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from detector.errors import InvalidBundleError, PublicKeyError
from detector.provenance.interface import KeyTrust, OpenedBundle, SignedFiles, Trust, root_digest

MAX_BUNDLE_BYTES = 32 << 20
"""About 100 000 signed files; the real bundles at hand are below 10 kB."""

_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CURVES: Mapping[str, type[hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An EC public key, loaded once so that every check uses the same bytes."""

    key: ec.EllipticCurvePublicKey
    pem: bytes
    """Canonical PEM; its SHA-256 is the `hint` of an OMS bundle."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical PEM, hex."""
        return hashlib.sha256(self.pem).hexdigest()


def load_public_key(pem: bytes) -> PublicKey:
    """Read an EC public key in PEM form.

    Raises:
        PublicKeyError: not PEM, or not on a curve the OMS spec allows.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PublicKeyError(f"cannot read the public key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise PublicKeyError("it is not an EC key on P-256, P-384 or P-521")
    return PublicKey(key, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def open_bundle(bundle: bytes, trust: Trust, *, at: datetime) -> OpenedBundle:  # noqa: ARG001 - certificates are next
    """Verify a bundle and read its manifest from the very payload that was verified.

    Without the files: what it names is what a download must match.

    Args:
        bundle: the content of `model.sig`.
        trust: who may have signed it.
        at: the time at which certificates must be valid; bundles in key and certificate mode carry none.

    Raises:
        InvalidBundleError: with the step that failed.
        PublicKeyError: what we were told to trust cannot be used.
    """
    pem = next(signer for signer in trust.signers if isinstance(signer, KeyTrust)).public_key
    key = load_public_key(pem)
    return OpenedBundle(_read_statement(_verified_payload(bundle, key)), f"ecdsa-sha256:{key.fingerprint}")


def _verified_payload(bundle: bytes, key: PublicKey) -> bytes:
    if len(bundle) > MAX_BUNDLE_BYTES:
        raise InvalidBundleError(f"the bundle is larger than {MAX_BUNDLE_BYTES} bytes")
    # (1): the container. A key bundle names its key only by an optional hint.
    root = _object(_strict_json(bundle, "bundle"), "bundle")
    _expect(root, "mediaType", _MEDIA_TYPE)
    material = _object(root.get("verificationMaterial"), "verificationMaterial")
    if "publicKey" not in material:
        raise InvalidBundleError("signed with a certificate or keyless; forkwatch checks EC keys only")
    hint = _object(material["publicKey"], "publicKey").get("hint")
    if hint and hint != key.fingerprint:
        raise InvalidBundleError("signed with another key than the one configured")
    # (2): one envelope, one signature over the DSSE pre-authentication encoding.
    envelope = _object(root.get("dsseEnvelope"), "dsseEnvelope")
    _expect(envelope, "payloadType", _PAYLOAD_TYPE)
    signatures = _array(envelope.get("signatures"), "signatures")
    if len(signatures) != 1:
        raise InvalidBundleError(f"expected one signature, found {len(signatures)}")
    payload = _base64(envelope.get("payload"), "payload")
    signature = _base64(_object(signatures[0], "signature").get("sig"), "sig")
    encoded = b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)
    try:
        key.key.verify(signature, encoded, ec.ECDSA(_CURVES[key.key.curve.name]()))
    except InvalidSignature as error:
        raise InvalidBundleError("the signature does not match the payload (InvalidSignature)") from error
    return payload


def _read_statement(payload: bytes) -> SignedFiles:
    # (3): the statement and the only serialisation whose digests the Hub reports too.
    statement = _object(_strict_json(payload, "payload"), "payload")
    _expect(statement, "_type", _STATEMENT)
    _expect(statement, "predicateType", _PREDICATE)
    predicate = _object(statement.get("predicate"), "predicate")
    serialization = _object(predicate.get("serialization"), "serialization")
    scheme = (serialization.get("method"), serialization.get("hash_type"))
    if scheme != ("files", "sha256"):
        raise InvalidBundleError(
            f"the bundle hashes {scheme[0]!a} with {scheme[1]!a}; forkwatch needs whole files with SHA-256, "
            "which is what the Hub reports"
        )
    # (4): the files, and the root digest over them.
    digests = tuple(_resource(entry) for entry in _array(predicate.get("resources"), "resources"))
    names = [name for name, _ in digests]
    if not names:
        raise InvalidBundleError("the bundle signs no file")
    # The library sorts by path component, the spec by name; they differ for `a-b` beside `a/b`.
    if names not in (sorted(set(names)), sorted(set(names), key=PurePosixPath)):
        raise InvalidBundleError("the signed names are repeated or out of order")
    root = root_digest(digests)
    subjects = _array(statement.get("subject"), "subject")
    if len(subjects) != 1:
        raise InvalidBundleError(f"expected one subject, found {len(subjects)}")
    _expect(
        _object(_object(subjects[0], "subject").get("digest"), "digest"),
        "sha256",
        root.removeprefix("sha256:"),
    )
    return SignedFiles(root, tuple(sorted(digests)))


def _resource(entry: object) -> tuple[str, str]:
    fields = _object(entry, "resource")
    _expect(fields, "algorithm", "sha256")
    name, digest = fields.get("name"), fields.get("digest")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise InvalidBundleError(f"{digest!a} is not a SHA-256")
    if not isinstance(name, str) or not _is_safe_name(name):
        raise InvalidBundleError(f"{ascii(name)[:200]} is not the relative path of a file")
    return name, digest


def _is_safe_name(name: str) -> bool:
    """A normalised relative POSIX path without control, format or surrogate characters."""
    path = PurePosixPath(name)
    plain = not any(unicodedata.category(character)[0] == "C" for character in name)
    return plain and name == str(path) != "." and not path.is_absolute() and ".." not in path.parts


def _strict_json(text: bytes, where: str) -> object:
    """JSON without repeated keys, so that no two parsers can read it differently."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise InvalidBundleError(f"the {where} repeats a key")
        return found

    try:
        parsed: object = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise InvalidBundleError(f"the {where} is not JSON ({type(error).__name__})") from error
    return parsed


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidBundleError(f"the bundle has no object at {where}")
    return value


def _array(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise InvalidBundleError(f"the bundle has no array at {where}")
    return value


def _expect(fields: Mapping[str, object], key: str, wanted: str) -> None:
    if fields.get(key) != wanted:
        raise InvalidBundleError(f"{key} is {ascii(fields.get(key))[:200]}, expected {wanted}")


def _base64(value: object, where: str) -> bytes:
    if not isinstance(value, str):
        raise InvalidBundleError(f"the bundle has no text at {where}")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise InvalidBundleError(f"{where} is not base64") from error
