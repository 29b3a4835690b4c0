"""Bundles that others made: the library's own releases 0.2.0 to 1.1.0, and the specification's vectors."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from detector.errors import InvalidBundleError, UnknownSignerError
from detector.provenance.bundle import open_bundle
from detector.provenance.interface import CertificateTrust, KeylessTrust, KeyTrust, SignatureStatus, Trust
from detector.provenance.verify import verify_release
from tests.detector.provenance.bundles import NOW, REAL, copy_real

KEY = KeyTrust((REAL / "signing-key-pub.pem").read_bytes())
CERTIFICATE = CertificateTrust(
    ((REAL / "ca-cert.pem").read_bytes(),),
    spki=("c1e49d63327f85c7e2971aefd30b5a0d1c6b9b5e1a892e7f5fba995adace816d",),
)
KEYLESS = KeylessTrust("stefanb@us.ibm.com", "https://sigstore.verify.ibm.com/oauth2")
TRUST = Trust((KEY, CERTIFICATE, KEYLESS))
LEGACY = replace(TRUST, legacy=True)

VERIFIED = SignatureStatus.VERIFIED
INVALID = SignatureStatus.INVALID
EXPECTED: Mapping[str, tuple[SignatureStatus, str]] = {
    "v0.2.0-certificate": (INVALID, "InvalidSignature"),
    "v0.3.1-certificate": (VERIFIED, "x509:CN=intermediate-ca"),
    "v0.3.1-elliptic-key": (INVALID, "single file"),
    "v0.3.1-sigstore": (VERIFIED, "2025-05-03T01:10:02"),
    "v1.0.0-certificate": (VERIFIED, "x509:CN=intermediate-ca"),
    "v1.0.0-elliptic-key": (INVALID, "single file"),
    "v1.0.0-sigstore": (VERIFIED, "2025-05-03T01:34:46"),
    "v1.0.1-certificate": (INVALID, "Extra files"),
    "v1.0.1-elliptic-key": (INVALID, "Extra files"),
    "v1.0.1-sigstore": (INVALID, "Extra files"),
    "v1.1.0-certificate": (INVALID, "not covered: ignore-me"),
    "v1.1.0-elliptic-key": (INVALID, "not covered: ignore-me"),
    "v1.1.0-sigstore": (INVALID, "not covered: ignore-me"),
}
"""Part of the reason of a refusal, else who signed, or when if that is proved."""
SIGNED_FILES = {"signme-1", "signme-2"}
ROOT = {
    "certificate": "sha256:61d4849d9d90076d6215f4d525f13d6574af8e3f67aef3e6f36fc40a14fdd226",
    "sigstore": "sha256:61d4849d9d90076d6215f4d525f13d6574af8e3f67aef3e6f36fc40a14fdd226",
    "elliptic-key": "sha256:92745110b1ab4368471cbe31664e10174e954b113a3df333db860317b2c6dec4",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_real_bundle(name: str, tmp_path: Path) -> None:
    """One trust that names all three signers gives each bundle its expected result."""
    status, said = EXPECTED[name]
    result = verify_release(shutil.copytree(REAL / name, tmp_path / "m"), TRUST, at=NOW)
    assert result.status is status, result.reason
    assert said in f"{result.reason} {result.signer} {result.signed_at and result.signed_at.isoformat()}"
    if result.manifest is not None:
        assert {file.path for file in result.manifest.files} == SIGNED_FILES
        assert result.manifest.root_digest == ROOT[name.partition("-")[2]]


def test_all_bundles_are_expected() -> None:
    """Every bundle of the assets is in the table."""
    assert set(EXPECTED) == {path.name for path in REAL.glob("v*")}


@pytest.mark.parametrize("name", EXPECTED)
def test_legacy(name: str, tmp_path: Path) -> None:
    """Allowing the old predicate changes the result of the bundle that has it, and of no other."""
    result = verify_release(shutil.copytree(REAL / name, tmp_path / "m"), LEGACY, at=NOW)
    assert result.status is (VERIFIED if name.startswith("v0.2.0") else EXPECTED[name][0]), result.reason


SAID = {
    "certificate": "x509:CN=intermediate-ca",
    "elliptic-key": "ecdsa-sha256:e8450dec",
    "sigstore": "sigstore:",
}


@pytest.mark.parametrize("mode", SAID)
@pytest.mark.parametrize("version", ["v1.0.1", "v1.1.0"])
def test_unsigned_extra_file(version: str, mode: str, tmp_path: Path) -> None:
    """Release 1.0.1 did not record what it ignored, 1.1.0 does; without that file their bundles verify."""
    result = verify_release(copy_real(f"{version}-{mode}", tmp_path / "m"), TRUST, at=NOW)
    assert (result.status, result.reason) == (VERIFIED, "")
    assert result.signer.startswith(SAID[mode])
    assert result.manifest is not None
    assert result.manifest.root_digest == ROOT[mode]


@pytest.mark.parametrize("name", [name for name, (status, _) in EXPECTED.items() if status is VERIFIED])
def test_files_differ(name: str, tmp_path: Path) -> None:
    """A verified bundle does not vouch for other bytes."""
    folder = shutil.copytree(REAL / name, tmp_path / "m")
    (folder / "signme-2").write_bytes(b"other")
    assert "Signature mismatch" in verify_release(folder, TRUST, at=NOW).reason


@pytest.mark.parametrize("vector", sorted(REAL.glob("spec/valid/*.json")), ids=lambda path: path.stem)
def test_valid_vector(vector: Path) -> None:
    """The specification's valid bundles are signed by the same; without a trust they are claims."""
    assert {
        name for name, _ in open_bundle(vector.read_bytes(), TRUST, at=NOW).signed.digests
    } == SIGNED_FILES
    with pytest.raises(UnknownSignerError):
        open_bundle(vector.read_bytes(), Trust(), at=NOW)


@pytest.mark.parametrize("vector", sorted(REAL.glob("spec/invalid*/*.json")), ids=lambda path: path.stem)
def test_invalid_vector(vector: Path) -> None:
    """Its invalid ones are not even a claim."""
    with pytest.raises(InvalidBundleError) as refused:
        open_bundle(vector.read_bytes(), Trust(), at=NOW)
    assert not isinstance(refused.value, UnknownSignerError)


def test_vectors_are_there() -> None:
    """Three valid and five invalid vectors."""
    assert len(list(REAL.glob("spec/*/*.bundle.json"))) == 8
