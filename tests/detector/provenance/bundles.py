"""Bundles around any payload, signed with a real key: what a malicious or broken signer makes."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import Encoding

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REAL = Path(__file__).parents[2] / "assets" / "oms"
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"\x00" * 4096,
    "tokenizer/merges.txt": b"a b\n",
    "tokenizer-extra.json": b"[]",
    "README.md": b"# card",
}
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def copy_real(name: str, target: Path) -> Path:
    """A folder that others signed, without the file that they left out."""
    return shutil.copytree(REAL / name, target, ignore=shutil.ignore_patterns("ignore-me"))


def write_files(folder: Path, files: Mapping[str, bytes] = FILES) -> Path:
    """A release folder, not signed yet."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def pae(payload: bytes) -> bytes:
    return b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload)


def seal(
    payload: bytes,
    key: PrivateKey,
    *,
    chain: tuple[x509.Certificate, ...] = (),
    encode: Callable[[bytes], bytes] = pae,
    hint: str | None = None,
) -> bytes:
    """A bundle in key mode, or in certificate mode with a chain."""
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(encode(payload), PKCS1v15(), hashes.SHA256())
    else:
        signature = key.sign(encode(payload), ec.ECDSA(hashes.SHA256()))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
    }
    ders = [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode() for certificate in chain]
    material: dict[str, object] = {"publicKey": {"hint": hint} if hint else {}}
    if chain:
        material = {"x509CertificateChain": {"certificates": [{"rawBytes": der} for der in ders]}}
    return json.dumps(
        {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {**material, "tlogEntries": []},
            "dsseEnvelope": envelope,
        }
    ).encode()


def seal_shape(envelope: Mapping[str, object], material: Mapping[str, object] | None = None) -> bytes:
    """A bundle that is well formed but for what the arguments replace; its signature is never reached."""
    whole = {
        "payloadType": "application/vnd.in-toto+json",
        "payload": "e30=",
        "signatures": [{"sig": "AAAA"}],
    }
    media = "application/vnd.dev.sigstore.bundle.v0.3+json"
    parts = {
        "verificationMaterial": {"publicKey": {}} if material is None else material,
        "dsseEnvelope": {**whole, **envelope},
    }
    return json.dumps({"mediaType": media, **parts}).encode()


def root_of(resources: list[dict[str, str]]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(entry["digest"]) for entry in resources)).hexdigest()


def statement_of(folder: Path, *, ignored: tuple[str, ...] = ("README.md", "model.sig")) -> bytes:
    """What a well-behaved signer of `folder` would sign."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    resources = [
        {
            "name": name,
            "algorithm": "sha256",
            "digest": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
        for name in names
        if name not in ignored
    ]
    serialization = {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": list(ignored),
    }
    return minimal(resources=tuple(resources), serialization=serialization)


A, B = ({"name": name, "algorithm": "sha256", "digest": name * 64} for name in "ab")


def minimal(
    *,
    statement_type: str = "https://in-toto.io/Statement/v1",
    predicate_type: str = "https://model_signing/signature/v1.0",
    resources: tuple[dict[str, str], ...] = (A, B),
    root: str | None = None,
    serialization: Mapping[str, object] | None = None,
    subjects: int = 1,
) -> bytes:
    """A statement over two files, right in every respect but those that the arguments replace."""
    listed = list(resources)
    digest = root or root_of([entry for entry in listed if "digest" in entry])
    return json.dumps(
        {
            "_type": statement_type,
            "subject": [{"name": "m", "digest": {"sha256": digest}}] * subjects,
            "predicateType": predicate_type,
            "predicate": {
                "serialization": serialization
                or {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
                "resources": listed,
            },
        }
    ).encode()
