"""A signed statement is read back as it was signed, by us and by others' readers, or not at all."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from detector.errors import InvalidAttestationError, PrivateKeyError, PublicKeyError
from detector.provenance.attest import Statement, Subject, open_attestation, sign_statement
from detector.provenance.container import MAX_BUNDLE_BYTES
from detector.provenance.dsse import seal
from detector.provenance.keys import SigningKey, load_public_key, load_signing_key, new_signing_key, pae

TYPE = "urn:example:1"
PREDICATE = '{"a": ["\\u00e9", 1.5, null]}'
STATEMENT = Statement(
    (Subject("org/fork@1", "gitCommit", "a" * 40), Subject("org/fork@1/model.gguf", "sha256", "b" * 64)),
    TYPE,
    PREDICATE,
)
KEY = new_signing_key()
OTHER = new_signing_key()
BUNDLE = sign_statement(STATEMENT, KEY)
CURVES = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())


def reopen(bundle: bytes, key: SigningKey = KEY) -> Statement:
    return open_attestation(bundle, TYPE, [key.public]).statement


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_round_trip(curve: ec.EllipticCurve) -> None:
    """What was signed is read again, and signing it again gives the same bytes."""
    key = SigningKey(ec.generate_private_key(curve))
    bundle = sign_statement(STATEMENT, key)
    assert sign_statement(STATEMENT, key) == bundle
    opened = open_attestation(bundle, TYPE, [OTHER.public, key.public])
    assert opened.statement == STATEMENT
    assert opened.key.fingerprint == key.public.fingerprint


def test_keys_survive_their_files() -> None:
    """PEM leads back to the same key, with and without a password."""
    assert load_signing_key(KEY.pem).pem == KEY.pem
    assert load_public_key(KEY.public.pem) == KEY.public
    locked = KEY.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))
    assert load_signing_key(locked, b"word").pem == KEY.pem
    for wrong in (None, b"other"):
        with pytest.raises(PrivateKeyError):
            load_signing_key(locked, wrong)


def test_other_kinds_of_key() -> None:
    """RSA, other curves and texts are refused before anything is signed."""
    curve = ec.generate_private_key(ec.SECP256K1())
    for key in (rsa.generate_private_key(65537, 2048), curve):
        with pytest.raises(PrivateKeyError):
            load_signing_key(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = curve.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for pem in (public, b"no key"):
        with pytest.raises(PublicKeyError):
            load_public_key(pem)


def test_readers_of_others() -> None:
    """in-toto's own types, sigstore's and securesystemslib's verifier read the bundle."""
    from google.protobuf import json_format
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement as InToto
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey
    from sigstore_models.bundle.v1 import Bundle

    parsed = Bundle.from_json(BUNDLE)
    assert parsed.verification_material.public_key is not None
    assert parsed.verification_material.public_key.hint == KEY.public.fingerprint

    envelope = json.loads(BUNDLE)["dsseEnvelope"]
    statement = json_format.Parse(base64.b64decode(envelope["payload"]), statement_pb2.Statement())
    InToto.copy_from_pb(statement).validate()
    assert [subject.name for subject in statement.subject] == [each.name for each in STATEMENT.subjects]
    assert statement.predicate_type == TYPE

    theirs = SSlibKey.from_crypto(KEY.public.key, keyid=KEY.public.fingerprint)
    assert list(Envelope.from_dict(envelope).verify([theirs], 1)) == [KEY.public.fingerprint]


def changed(change: Callable[[dict[str, Any]], object], bundle: bytes = BUNDLE) -> bytes:
    fields = json.loads(bundle)
    change(fields)
    return json.dumps(fields).encode()


def payload_with(old: bytes, new: bytes) -> Callable[[dict[str, Any]], object]:
    def change(fields: dict[str, Any]) -> None:
        payload = base64.b64decode(fields["dsseEnvelope"]["payload"])
        assert old in payload
        fields["dsseEnvelope"]["payload"] = base64.b64encode(payload.replace(old, new)).decode()

    return change


def envelope_with(**fields: object) -> Callable[[dict[str, Any]], object]:
    return lambda bundle: bundle["dsseEnvelope"].update(fields)


ENVELOPE = json.loads(BUNDLE)["dsseEnvelope"]
TAMPERED: Mapping[str, bytes] = {
    "predicate edited": changed(payload_with(b"1.5", b"2.5")),
    "subject edited": changed(payload_with(b"b" * 64, b"c" * 64)),
    "predicate type edited": changed(payload_with(b"urn:example:1", b"urn:example:2")),
    "space added to the payload": changed(payload_with(b'"_type":', b'"_type": ')),
    "signature of another payload": changed(
        envelope_with(signatures=json.loads(seal(b"{}", KEY))["dsseEnvelope"]["signatures"])
    ),
    "other payload type": changed(envelope_with(payloadType="text/plain")),
    "no signature": changed(envelope_with(signatures=[])),
    "two signatures": changed(envelope_with(signatures=ENVELOPE["signatures"] * 2)),
    "signature is no base64": changed(envelope_with(signatures=[{"sig": "A"}])),
    "signature is text": changed(envelope_with(signatures=[{"sig": 5}])),
    "payload is no base64": changed(envelope_with(payload=ENVELOPE["payload"] + "\n ")),
    "other media type": changed(lambda bundle: bundle.update(mediaType="application/json")),
    "no key": changed(lambda bundle: bundle["verificationMaterial"].pop("publicKey")),
    "empty": b"",
    "array": b"[]",
    "a key twice": BUNDLE.replace(b'"mediaType"', b'"mediaType": "", "mediaType"'),
    "nested deeply": b"[" * 99999,
    "huge": b" " * (MAX_BUNDLE_BYTES + 1),
    "not a number": b'{"mediaType": NaN}',
}


@pytest.mark.parametrize("case", TAMPERED)
def test_tampered(case: str) -> None:
    """A bundle that was changed in any respect is refused."""
    with pytest.raises(InvalidAttestationError):
        reopen(TAMPERED[case])


def test_key_ids_are_hints() -> None:
    """A wrong id changes nothing, and a right one lends nothing to another key's signature."""
    renamed = changed(lambda bundle: bundle["dsseEnvelope"]["signatures"][0].update(keyid="x"))
    assert reopen(renamed) == STATEMENT
    with pytest.raises(InvalidAttestationError, match="not by the given key"):
        reopen(sign_statement(STATEMENT, OTHER))
    with pytest.raises(InvalidAttestationError, match="not by the given key"):
        open_attestation(BUNDLE, TYPE, [])


def test_pre_authentication_encoding() -> None:
    """The example of the DSSE protocol; a signature over the bare payload does not count."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    payload = base64.b64decode(ENVELOPE["payload"])
    bare = base64.b64encode(KEY.key.sign(payload, ec.ECDSA(hashes.SHA256()))).decode()
    with pytest.raises(InvalidAttestationError, match="not by the given key"):
        reopen(changed(envelope_with(signatures=[{"sig": bare}])))


def sealed(**changes: object) -> bytes:
    """A statement with changes, signed with the real key: what a broken or malicious operator makes."""
    fields = json.loads(base64.b64decode(ENVELOPE["payload"]))
    return seal(json.dumps({**fields, **changes}).encode(), KEY)


def about(**digest: str) -> dict[str, object]:
    return {"name": "m", "digest": digest}


MALFORMED: Mapping[str, bytes] = {
    "other predicate type": sealed(predicateType="urn:example:2"),
    "other statement": sealed(_type="https://in-toto.io/Statement/v0.1"),
    "no subject": sealed(subject=[]),
    "subject is text": sealed(subject="m"),
    "a name twice": sealed(subject=[about(sha256="b" * 64)] * 2),
    "no name": sealed(subject=[{"digest": {"sha256": "b" * 64}}]),
    "no digest": sealed(subject=[about()]),
    "two digests": sealed(subject=[about(sha256="b" * 64, gitBlob="c" * 40)]),
    "unknown digest": sealed(subject=[about(md5="b" * 32)]),
    "short digest": sealed(subject=[about(sha256="b" * 63)]),
    "upper-case digest": sealed(subject=[about(sha256="B" * 64)]),
    "predicate is a list": sealed(predicate=[]),
    "not JSON": seal(b"{", KEY),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_but_signed(case: str) -> None:
    """A statement that breaks the format is refused although its signature is good."""
    with pytest.raises(InvalidAttestationError, match=r"malformed|not JSON"):
        reopen(MALFORMED[case])


def test_nothing_malformed_is_signed() -> None:
    """A statement that could not be read back is not signed in the first place."""
    with pytest.raises(InvalidAttestationError):
        sign_statement(Statement((), TYPE, "{}"), KEY)


@given(st.integers(0, len(BUNDLE) - 2), st.binary(min_size=1, max_size=3))
def test_a_changed_bundle_never_says_something_else(place: int, noise: bytes) -> None:
    """Whatever bytes are replaced, the result is an error or the very statement that was signed."""
    broken = BUNDLE[:place] + noise + BUNDLE[place + len(noise) :]
    with contextlib.suppress(InvalidAttestationError):
        assert reopen(broken) == STATEMENT
