"""A private Sigstore in one process: certificate authority, certificate transparency log, and Rekor.

It signs what it is told to, for whom and when it is told to; verifying is the real library's.
Formats: RFC 6962 (SCT), sigstore bundle 0.3 and trusted root 0.1, Rekor's dsse 0.0.1 entries in a log of one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.detector.provenance.bundles import pae
from tests.detector.provenance.pki import Issued, issue, usage

SIGNED_AT = datetime(2025, 6, 1, 12, tzinfo=UTC)
WHO, ISSUER = "release@example.com", "https://issuer.example.com"

_ISSUER_OIDS = ("1.3.6.1.4.1.57264.1.1", "1.3.6.1.4.1.57264.1.8")
_SCT_OID = "1.3.6.1.4.1.11129.2.4.2"
_LOG_NAME = "rekor.example.com"


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def ecdsa(key: ec.EllipticCurvePrivateKey, content: bytes) -> bytes:
    return key.sign(content, ec.ECDSA(hashes.SHA256()))


@dataclass(frozen=True, slots=True)
class PrivateSigstore:
    """Keys of the three services."""

    authority: Issued
    transparency: ec.EllipticCurvePrivateKey
    rekor: ec.EllipticCurvePrivateKey

    def trusted_root(self) -> bytes:
        """What `KeylessTrust.trusted_root` takes."""
        always = {"start": "2020-01-01T00:00:00Z"}
        certificate = self.authority.certificate.public_bytes(Encoding.DER)
        authority = {
            "subject": {"organization": "example", "commonName": "example"},
            "certChain": {"certificates": [{"rawBytes": encoded(certificate)}]},
            "validFor": always,
        }
        logs = {}
        for name, key in (("tlogs", self.rekor), ("ctlogs", self.transparency)):
            public = {
                "rawBytes": encoded(spki(key)),
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "validFor": always,
            }
            log_id = {"keyId": encoded(hashlib.sha256(spki(key)).digest())}
            base = f"https://{_LOG_NAME}"
            logs[name] = [
                {"baseUrl": base, "hashAlgorithm": "SHA2_256", "publicKey": public, "logId": log_id}
            ]
        media = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
        return json.dumps({"mediaType": media, "certificateAuthorities": [authority], **logs}).encode()

    def sign(
        self, payload: bytes, *, who: str = WHO, issuer: str = ISSUER, logged: datetime = SIGNED_AT
    ) -> bytes:
        """A bundle over any payload; the certificate is valid for ten minutes from `SIGNED_AT`."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certificate(key, who, issuer)
        signature = ecdsa(key, pae(payload))
        pem = certificate.public_bytes(Encoding.PEM)
        body = {
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": {"algorithm": "sha256", "value": "0" * 64},
                "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
                "signatures": [{"signature": encoded(signature), "verifier": encoded(pem)}],
            },
        }
        envelope = {
            "payload": encoded(payload),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": encoded(signature)}],
        }
        material = {
            "certificate": {"rawBytes": encoded(certificate.public_bytes(Encoding.DER))},
            "tlogEntries": [self._entry(json.dumps(body).encode(), logged)],
        }
        media = "application/vnd.dev.sigstore.bundle.v0.3+json"
        return json.dumps(
            {"mediaType": media, "verificationMaterial": material, "dsseEnvelope": envelope}
        ).encode()

    def _certificate(self, key: ec.EllipticCurvePrivateKey, who: str, issuer: str) -> x509.Certificate:
        authority = self.authority.certificate
        builder = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(authority.subject)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(SIGNED_AT).not_valid_after(SIGNED_AT + timedelta(minutes=10))
        builder = builder.add_extension(usage(sign=True), critical=True)
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False
        )
        by = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())  # type: ignore[arg-type]  # EC
        builder = builder.add_extension(by, critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.RFC822Name(who)]), critical=True)
        text = issuer.encode()
        for oid, value in zip(_ISSUER_OIDS, (text, bytes([0x0C, len(text)]) + text), strict=True):
            extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
            builder = builder.add_extension(extension, critical=False)
        precertificate = builder.sign(self.authority.key, hashes.SHA256()).tbs_certificate_bytes
        sct = x509.UnrecognizedExtension(x509.ObjectIdentifier(_SCT_OID), self._sct(precertificate))
        return builder.add_extension(sct, critical=False).sign(self.authority.key, hashes.SHA256())

    def _sct(self, precertificate: bytes) -> bytes:
        """A list of one signed certificate timestamp, in the octet string that the extension wants."""
        milliseconds = int(SIGNED_AT.timestamp() * 1000)
        authority_key = self.authority.certificate.public_key()
        issuer = hashlib.sha256(authority_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        head = struct.pack("!BBQH", 0, 0, milliseconds, 1) + issuer.digest()
        signed = head + len(precertificate).to_bytes(3, "big") + precertificate + b"\0\0"
        signature = ecdsa(self.transparency, signed)
        log_id = hashlib.sha256(spki(self.transparency)).digest()
        stamp = b"\0" + log_id + struct.pack("!QHBBH", milliseconds, 0, 4, 3, len(signature)) + signature
        listed = struct.pack("!HH", len(stamp) + 2, len(stamp)) + stamp
        return bytes([0x04, len(listed)]) + listed

    def _entry(self, body: bytes, logged: datetime) -> dict[str, object]:
        """The only entry of a log: its hash is the root."""
        log_id = hashlib.sha256(spki(self.rekor)).digest()
        root = encoded(hashlib.sha256(b"\0" + body).digest())
        note = f"{_LOG_NAME} - 1\n1\n{root}\n"
        signed_note = encoded(log_id[:4] + ecdsa(self.rekor, note.encode()))
        seconds = int(logged.timestamp())
        promised = {
            "body": encoded(body),
            "integratedTime": seconds,
            "logID": log_id.hex(),
            "logIndex": 0,
        }
        canonical = json.dumps(promised, sort_keys=True, separators=(",", ":")).encode()
        return {
            "logIndex": "0",
            "logId": {"keyId": encoded(log_id)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(seconds),
            "inclusionPromise": {"signedEntryTimestamp": encoded(ecdsa(self.rekor, canonical))},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": root,
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n\u2014 {_LOG_NAME} {signed_note}\n"},
            },
            "canonicalizedBody": encoded(body),
        }


def private_sigstore() -> PrivateSigstore:
    """Fresh keys; another call makes another instance, which trusts nothing of the first."""
    authority = issue("CN=example,O=example", ca=True, key_usage=usage(issue=True))
    return PrivateSigstore(
        authority, ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    )
