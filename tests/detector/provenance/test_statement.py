"""A payload that breaks the specification is refused although its signature is good, in each mode."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from detector.errors import InvalidBundleError
from detector.provenance.bundle import open_bundle
from detector.provenance.interface import KeylessTrust, KeyTrust, SignedFiles, Signer, Trust, root_digest
from detector.provenance.sign import KeyPair
from tests.detector.provenance.bundles import NOW, A, B, minimal, pae, seal
from tests.detector.provenance.pki import intermediate, signer, trusting_root
from tests.detector.provenance.sigstore import ISSUER, WHO, private_sigstore

Opener = Callable[..., SignedFiles]
INSTANCE = private_sigstore()


@pytest.fixture(params=["key", "certificate", "keyless"])
def open_payload(
    request: pytest.FixtureRequest, keys: KeyPair, private_key: ec.EllipticCurvePrivateKey
) -> Opener:
    """Seal a payload in one of the modes, and open what comes out."""

    def open_sealed(
        payload: bytes, *, legacy: bool = False, encode: Callable[[bytes], bytes] = pae
    ) -> SignedFiles:
        if request.param == "key":
            signers: tuple[Signer, ...] = (KeyTrust(keys.public.read_bytes()),)
            bundle = seal(payload, private_key, encode=encode)
        elif request.param == "certificate":
            signers = trusting_root().signers
            chain = (signer().certificate, intermediate().certificate)
            bundle = seal(payload, signer().key, chain=chain, encode=encode)
        else:
            signers = (KeylessTrust(WHO, ISSUER, INSTANCE.trusted_root()),)
            bundle = INSTANCE.sign(payload)
        return open_bundle(bundle, Trust(signers, legacy=legacy), at=NOW).signed

    return open_sealed


SIGNED_BY_HAND = pytest.mark.parametrize("open_payload", ["key", "certificate"], indirect=True)
"""Sigstore never used the old encoding."""


def old(*, algorithm: str = "file-sha256", names: tuple[str, ...] = ("a", "b")) -> bytes:
    """A statement as release 0.2 of the library made it."""
    return json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "predicateType": "https://model_signing/Digests/v0.1",
            "predicate": {"unused": "Unused, just passed due to API requirements"},
            "subject": [
                {
                    "name": name,
                    "digest": {"sha256": name[-1] * 64},
                    "annotations": {"actual_hash_algorithm": algorithm},
                }
                for name in names
            ],
        }
    ).encode()


def old_encoding(payload: bytes) -> bytes:
    return f"DSSEV1 28 application/vnd.in-toto+json {len(payload)} {payload!r}".encode()


REFUSED: Mapping[str, tuple[bytes, str]] = {
    "other statement": (minimal(statement_type="https://in-toto.io/Statement/v0.1"), "_type is"),
    "other predicate": (minimal(predicate_type="https://slsa.dev/provenance/v1"), "predicateType is"),
    "predicate v0.1": (old(), "Digests/v0.1"),
    "predicate v0.1 in name": (minimal(predicate_type="https://model_signing/Digests/v0.1"), "Digests/v0.1"),
    "shards": (minimal(serialization={"method": "shards", "hash_type": "sha256"}), "'shards'"),
    "blake3": (minimal(serialization={"method": "files", "hash_type": "blake3"}), "'blake3'"),
    "other hash in one entry": (minimal(resources=({**A, "algorithm": "blake3"},)), "algorithm"),
    "no file": (minimal(resources=()), "no file"),
    "wrong root": (minimal(root="0" * 64), "sha256 is '0000"),
    "no subject": (minimal(subjects=0), "one subject"),
    "two subjects": (minimal(subjects=2), "one subject"),
    "repeated name": (minimal(resources=(A, A)), "repeated"),
    "out of order": (minimal(resources=(B, A)), "out of order"),
    "parent folder": (minimal(resources=({**A, "name": "../a"},)), "relative path"),
    "absolute": (minimal(resources=({**A, "name": "/a"},)), "relative path"),
    "single file": (minimal(resources=({**A, "name": "."},)), "single file"),
    "empty name": (minimal(resources=({**A, "name": ""},)), "relative path"),
    "not normalised": (minimal(resources=({**A, "name": "a//b"},)), "relative path"),
    "bidi name": (minimal(resources=({**A, "name": "a\u202egpj.exe"},)), "relative path"),
    "upper-case digest": (minimal(resources=({**A, "digest": "A" * 64},)), "not a SHA-256"),
    "short digest": (minimal(resources=({**A, "digest": "aa"},)), "not a SHA-256"),
    "repeated key": (minimal().replace(b'"resources"', b'"resources": [], "resources"'), "key is repeated"),
    "resources are an object": (minimal().replace(b'"resources": [', b'"resources": {}, "x": ['), "no array"),
    "not JSON": (b"[", "not JSON"),
    "nested deeply": (b"[" * 99999, "RecursionError"),
    "an array": (b"[]", "no object"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_malformed_but_signed(case: str, open_payload: Opener) -> None:
    """Each of these is signed by the right person, and refused for what it says."""
    payload, reason = REFUSED[case]
    with pytest.raises(InvalidBundleError, match=reason):
        open_payload(payload)


def test_minimal_is_accepted(open_payload: Opener) -> None:
    """The refused payloads above differ from an accepted one in a single respect."""
    assert open_payload(minimal()).digests == (("a", "a" * 64), ("b", "b" * 64))


@SIGNED_BY_HAND
def test_old_encoding(open_payload: Opener) -> None:
    """The library accepts how its release 0.2 encoded what it signed; we do for legacy releases only."""
    with pytest.raises(InvalidBundleError, match="InvalidSignature"):
        open_payload(minimal(), encode=old_encoding)
    assert open_payload(minimal(), encode=old_encoding, legacy=True) == open_payload(minimal())


@SIGNED_BY_HAND
def test_old_predicate(open_payload: Opener) -> None:
    """A legacy release's files are read from the subjects; nobody signed a root, so it is computed."""
    signed = open_payload(old(), encode=old_encoding, legacy=True)
    assert signed.digests == (("a", "a" * 64), ("b", "b" * 64))
    assert signed.root_digest == root_digest(signed.digests)
    assert open_payload(minimal(), legacy=True) == signed


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (old(algorithm="file-sha256-1000"), "actual_hash_algorithm"),
        (old(names=()), "no file"),
        (old(names=("a", "a")), "repeated"),
        (old(names=("../a",)), "relative path"),
        (old().replace(b'"annotations"', b'"x"'), "annotations"),
        (minimal(predicate_type="https://model_signing/Digests/v0.1"), "annotations"),
    ],
    ids=["shards", "no file", "repeated", "parent folder", "no algorithm", "new body"],
)
def test_malformed_old_predicate(payload: bytes, reason: str, open_payload: Opener) -> None:
    """A legacy release is read as strictly."""
    with pytest.raises(InvalidBundleError, match=reason):
        open_payload(payload, legacy=True)
