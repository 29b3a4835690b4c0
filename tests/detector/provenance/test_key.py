"""Key mode, and what is done to a folder: VERIFIED only when signature and every covered byte hold."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from detector.errors import InvalidBundleError, PublicKeyError
from detector.provenance.bundle import open_bundle
from detector.provenance.container import MAX_BUNDLE_BYTES
from detector.provenance.interface import KeyTrust, SignatureCheck, SignatureStatus, Trust
from detector.provenance.sign import KeyPair, generate_key
from detector.provenance.verify import verify_release
from tests.detector.provenance.bundles import FILES, NOW, minimal, seal, seal_shape, statement_of


def check(folder: Path, keys: KeyPair) -> SignatureCheck:
    return verify_release(folder, trusting(keys.public), at=NOW)


def signed_by(bundle: bytes, public_key: Path) -> dict[str, str]:
    return dict(open_bundle(bundle, trusting(public_key), at=NOW).signed.digests)


def trusting(public_key: Path) -> Trust:
    return Trust((KeyTrust(public_key.read_bytes()),))


def test_signed_release(release: Path, keys: KeyPair) -> None:
    """A release signed by the library verifies; its manifest holds sizes, hashes and git's own object ids."""
    result = check(release, keys)
    assert (result.status, result.reason) == (SignatureStatus.VERIFIED, "")
    assert result.signer == f"ecdsa-sha256:{hashlib.sha256(keys.public.read_bytes()).hexdigest()}"
    assert result.manifest is not None
    assert {file.path for file in result.manifest.files} == set(FILES) - {"README.md"}
    for file in result.manifest.files:
        content = FILES[file.path]
        assert (file.sha256, file.size) == (hashlib.sha256(content).hexdigest(), len(content))
        git = subprocess.run(
            ["git", "hash-object", release / file.path], capture_output=True, check=True, text=True
        )
        assert file.git_oid == git.stdout.strip()
    bundle = json.loads((release / "model.sig").read_bytes())
    signed_root = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))["subject"][0]["digest"][
        "sha256"
    ]
    assert result.manifest.root_digest == f"sha256:{signed_root}"


def test_bundle_alone(release: Path, keys: KeyPair) -> None:
    """The bundle by itself names every file and its SHA-256, so a download can be judged beforehand."""
    digests = signed_by((release / "model.sig").read_bytes(), keys.public)
    assert digests == {
        name: hashlib.sha256(content).hexdigest() for name, content in FILES.items() if name != "README.md"
    }


def test_unsigned(release: Path, keys: KeyPair) -> None:
    """A folder without a bundle is unsigned, which is not the same as invalid."""
    (release / "model.sig").unlink()
    assert check(release, keys).status is SignatureStatus.UNSIGNED


def flip(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[2000] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def edit_payload(folder: Path) -> None:
    bundle = json.loads((folder / "model.sig").read_bytes())
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b"config.json", b"confih.json")
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    (folder / "model.sig").write_text(json.dumps(bundle))


def link_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "elsewhere")
    (folder / "model.safetensors").symlink_to(folder.parent / "elsewhere")


def link_bundle(folder: Path) -> None:
    (folder / "model.sig").rename(folder.parent / "elsewhere")
    (folder / "model.sig").symlink_to(folder.parent / "elsewhere")


TAMPERING: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "byte flipped": (flip, "ValueError"),
    "file added": (lambda folder: (folder / "evil.safetensors").write_bytes(b"x"), "ValueError"),
    "file removed": (lambda folder: (folder / "config.json").unlink(), "ValueError"),
    "weights are a link": (link_weights, "ValueError"),
    "bundle is a link": (link_bundle, "InvalidBundleError"),
    "payload edited": (edit_payload, "InvalidSignature"),
    "bundle is empty": (lambda folder: (folder / "model.sig").write_bytes(b""), "JSONDecodeError"),
    "bundle is an object": (lambda folder: (folder / "model.sig").write_bytes(b"{}"), "InvalidBundleError"),
    "bundle nests deeply": (
        lambda folder: (folder / "model.sig").write_bytes(b"[" * 99999),
        "RecursionError",
    ),
}


@pytest.mark.parametrize("tampering", TAMPERING)
def test_tampering(tampering: str, release: Path, keys: KeyPair) -> None:
    """Whatever is done to the folder or the bundle, the result is INVALID and says which class refused it."""
    damage, raised = TAMPERING[tampering]
    damage(release)
    result = check(release, keys)
    assert (result.status, result.manifest, result.signer) == (SignatureStatus.INVALID, None, "")
    assert result.reason.startswith(raised), result.reason


def test_hostile_file_name(release: Path, keys: KeyPair) -> None:
    """A file name in a reason is printable ASCII, whatever the folder holds."""
    (release / "a\x1b[2J\u202e.json").write_bytes(b"{}")
    reason = check(release, keys).reason
    assert "a\\x1b[2J\\u202e.json" in reason
    assert reason.isascii()
    assert reason.isprintable()


def test_other_key(
    release: Path, tmp_path: Path, keys: KeyPair, private_key: ec.EllipticCurvePrivateKey
) -> None:
    """A good signature by another key is invalid, with and without the bundle's hint."""
    other = generate_key(tmp_path / "other")
    assert "another key" in check(release, other).reason
    (release / "model.sig").write_bytes(seal(statement_of(release), private_key))
    assert check(release, keys).status is SignatureStatus.VERIFIED
    assert check(release, other).reason.startswith("InvalidSignature")


def test_stdout_is_data(
    release: Path, keys: KeyPair, private_key: ec.EllipticCurvePrivateKey, capsys: pytest.CaptureFixture[str]
) -> None:
    """The library's warning about a bundle without a hint goes to stderr."""
    (release / "model.sig").write_bytes(seal(statement_of(release), private_key))
    check(release, keys)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "WARNING" in captured.err


@pytest.mark.parametrize(
    "bundle",
    [
        b"[]",
        b" " * (MAX_BUNDLE_BYTES + 1),
        seal_shape({"signatures": {}}),
        seal_shape({"payload": 5}),
        seal_shape({"payload": "not base64!"}),
        seal_shape({"payloadType": "text/plain"}),
        seal_shape({}, {}),
        seal_shape({}, {"publicKey": {}, "certificate": {}}),
        seal_shape({}, {"publicKey": {"hint": 5}}),
        seal_shape({}, {"x509CertificateChain": {"certificates": []}}),
        seal_shape({}, {"certificate": {"rawBytes": "AAAA"}, "tlogEntries": []}),
        seal_shape({}, {"certificate": {"rawBytes": "AAAA"}, "tlogEntries": [{}, {}]}),
        seal_shape(
            {}, {"certificate": {}, "tlogEntries": [{"integratedTime": "1e9", "inclusionPromise": {}}]}
        ),
    ],
    ids=[
        *(
            "array",
            "huge",
            "signatures",
            "payload",
            "base64",
            "type",
            "no mode",
            "two modes",
            "hint is a number",
        ),
        *("no certificate", "no log entry", "two log entries", "time is no number"),
    ],
)
def test_other_shapes(bundle: bytes, keys: KeyPair) -> None:
    """A bundle of another shape is refused before anything in it is used."""
    with pytest.raises(InvalidBundleError):
        signed_by(bundle, keys.public)


def test_hint(keys: KeyPair, private_key: ec.EllipticCurvePrivateKey) -> None:
    """The hint may be missing, but must not be another key's; it alone proves nothing."""
    right = hashlib.sha256(keys.public.read_bytes()).hexdigest()
    for hint in (None, right):
        assert signed_by(seal(minimal(), private_key, hint=hint), keys.public)
    with pytest.raises(InvalidBundleError, match="another key"):
        signed_by(seal(minimal(), private_key, hint="0" * 64), keys.public)
    with pytest.raises(InvalidBundleError, match="InvalidSignature"):
        signed_by(seal(minimal(), ec.generate_private_key(ec.SECP256R1()), hint=right), keys.public)


def test_two_signatures(release: Path, keys: KeyPair) -> None:
    """A bundle with a second signature is refused: the library would look at the first alone."""
    bundle = json.loads((release / "model.sig").read_bytes())
    bundle["dsseEnvelope"]["signatures"] *= 2
    with pytest.raises(InvalidBundleError, match="found 2"):
        signed_by(json.dumps(bundle).encode(), keys.public)


def test_unusable_key(release: Path, tmp_path: Path, keys: KeyPair) -> None:
    """An unreadable, private or foreign key is our own mistake: it raises and blames no release."""
    (tmp_path / "text.pem").write_text("no key")
    koblitz = ec.generate_private_key(ec.SECP256K1()).public_key()
    (tmp_path / "koblitz.pem").write_bytes(
        koblitz.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    for path in (tmp_path / "text.pem", tmp_path / "koblitz.pem", keys.private):
        with pytest.raises(PublicKeyError):
            verify_release(release, trusting(path), at=NOW)


def test_key_is_private_and_never_overwritten(tmp_path: Path) -> None:
    """The private key is readable by its owner only, and a second call refuses."""
    pair = generate_key(tmp_path)
    assert pair.private.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        generate_key(tmp_path)
