"""Certificate mode: the right person, under the right root, at the right time, for the right purpose."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from detector.errors import InvalidBundleError, TrustError
from detector.provenance.bundle import open_bundle
from detector.provenance.certificate import spki_sha256
from detector.provenance.interface import CertificateTrust, SignatureStatus, Trust
from detector.provenance.verify import verify_release
from tests.detector.provenance import pki
from tests.detector.provenance.bundles import NOW, minimal, seal, statement_of, write_files
from tests.detector.provenance.pki import (
    END,
    SIGNER,
    START,
    TLS,
    Issued,
    intermediate,
    issue,
    leaf,
    root,
    signer,
    trusting_root,
    usage,
)

DAY = timedelta(days=1)


def bundle_of(*chain: Issued, payload: bytes | None = None) -> bytes:
    certificates = tuple(issued.certificate for issued in chain)
    return seal(minimal() if payload is None else payload, chain[0].key, chain=certificates)


def sealed_release(folder: Path, *chain: Issued) -> Path:
    write_files(folder)
    (folder / "model.sig").write_bytes(bundle_of(*chain, payload=statement_of(folder)))
    return folder


@pytest.mark.parametrize(
    "trust",
    [
        trusting_root(),
        trusting_root(subjects=("CN=Example Issuing CA",)),
        trusting_root(subjects=("CN=Somebody Else", SIGNER)),
        trusting_root(subjects=(), spki=(spki_sha256(signer().certificate).upper(),)),
        trusting_root(subjects=(), spki=(spki_sha256(intermediate().certificate),)),
        Trust((CertificateTrust((root("CN=Another Root").pem, root().pem), (SIGNER,)),)),
        Trust((*trusting_root(subjects=("CN=Somebody Else",)).signers, *trusting_root().signers)),
    ],
    ids=["subject", "issuer", "one of two", "key", "issuer's key", "one of two roots", "one of two signers"],
)
def test_signed_release(trust: Trust, tmp_path: Path) -> None:
    """A release signed with a pinned certificate verifies, whichever pin says so; the library agrees."""
    folder = sealed_release(tmp_path, signer(), intermediate())
    result = verify_release(folder, trust, at=NOW)
    assert (result.status, result.reason) == (SignatureStatus.VERIFIED, "")
    assert result.signer == f"x509:{SIGNER}"
    assert result.signed_at is None


@pytest.mark.parametrize("at", [START, END])
def test_valid_to_the_second(at: datetime) -> None:
    """Both ends of the validity belong to it, the seconds beyond do not."""
    bundle = bundle_of(signer(), intermediate())
    assert open_bundle(bundle, trusting_root(), at=at).signer == f"x509:{SIGNER}"
    outside = at + timedelta(seconds=1 if at == END else -1)
    with pytest.raises(InvalidBundleError, match="not valid at validation time"):
        open_bundle(bundle, trusting_root(), at=outside)


def below(*, path_length: int | None = None, **wrong: object) -> tuple[Issued, Issued]:
    """A good leaf below an intermediate with something wrong."""
    options: dict[str, object] = {"ca": True, "key_usage": usage(issue=True), **wrong}
    issuer = issue("CN=Example Issuing CA", root(), path_length=path_length, **options)  # type: ignore[arg-type]  # a menu
    return leaf(issuer), issuer


def too_deep() -> tuple[Issued, ...]:
    """The first authority may issue to people only, and issues to a second authority."""
    first = issue("CN=First CA", root(), ca=True, path_length=0, key_usage=usage(issue=True))
    second = issue("CN=Second CA", first, ca=True, key_usage=usage(issue=True))
    return leaf(second), second, first


def forged() -> tuple[Issued, Issued]:
    """An intermediate of the right name and another key, under a root of the right name and another key."""
    other_root = issue("CN=Example Root", ca=True, key_usage=usage(issue=True))
    other = issue("CN=Example Issuing CA", other_root, ca=True, key_usage=usage(issue=True))
    return leaf(other), other


def under(start: datetime, end: datetime) -> tuple[Issued, Issued]:
    return leaf(intermediate(), start=start, end=end), intermediate()


REFUSED: Mapping[str, tuple[Callable[[], tuple[Issued, ...]], str]] = {
    "leaf expired": (lambda: under(START, NOW - DAY), "VerificationError: .*not valid at"),
    "leaf not valid yet": (lambda: under(NOW + DAY, END), "VerificationError: .*not valid at"),
    "intermediate expired": (lambda: below(end=NOW - DAY), "VerificationError: .*not valid at"),
    "web server's leaf": (lambda: (leaf(intermediate(), purposes=(TLS,)), intermediate()), "signing code"),
    "web server's issuer": (lambda: below(purposes=(TLS,)), "signing code"),
    "leaf may not sign": (
        lambda: (leaf(intermediate(), key_usage=usage()), intermediate()),
        "key usage",
    ),
    "leaf may issue": (
        lambda: (leaf(intermediate(), key_usage=usage(sign=True, issue=True), ca=True), intermediate()),
        "key usage",
    ),
    "leaf for anything": (
        lambda: (leaf(intermediate(), key_usage=None, purposes=()), intermediate()),
        "says nothing",
    ),
    "another subject": (lambda: (leaf(intermediate(), "CN=Evil"), intermediate()), "pins"),
    "another root": (forged, "signature does not match"),
    "self-signed": (lambda: (issue(SIGNER, key_usage=usage(sign=True)),), "candidates exhausted"),
    "intermediate missing": (lambda: (signer(),), "candidates exhausted"),
    "intermediate is no authority": (
        lambda: below(ca=False, key_usage=usage(sign=True)),
        "cA must be asserted",
    ),
    "intermediate may not issue": (lambda: below(key_usage=usage(sign=True)), "may not sign certificates"),
    "path too long": (too_deep, "path length"),
    "RSA leaf": (lambda: (leaf(intermediate(), key=pki.rsa_key()), intermediate()), "EC key"),
    "chain in reverse": (lambda: (intermediate(), signer()), "key usage"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path) -> None:
    """Each of these has a good signature over good files, and is INVALID; the reason names the step."""
    make, reason = REFUSED[case]
    folder = sealed_release(tmp_path, *make())
    result = verify_release(folder, trusting_root(), at=NOW)
    assert (result.status, result.signer, result.manifest) == (SignatureStatus.INVALID, "", None)
    assert re.search(reason, result.reason), result.reason


def test_root_expired(tmp_path: Path) -> None:
    """A root has an end too."""
    old = issue("CN=Old Root", ca=True, key_usage=usage(issue=True), end=NOW - DAY)
    folder = sealed_release(tmp_path, leaf(old))
    result = verify_release(folder, Trust((CertificateTrust((old.pem,), (SIGNER,)),)), at=NOW)
    assert "not valid at validation time" in result.reason


def test_leaf_without_key_usage(tmp_path: Path) -> None:
    """A leaf that is for signing code by its purposes alone verifies, whatever the library logs about it."""
    folder = sealed_release(tmp_path, leaf(intermediate(), key_usage=None), intermediate())
    assert verify_release(folder, trusting_root(), at=NOW).status is SignatureStatus.VERIFIED


def test_leaf_without_purposes(tmp_path: Path) -> None:
    """So does one that may make signatures and names no purpose, as NVIDIA's production leaf of 2026 does."""
    folder = sealed_release(tmp_path, leaf(intermediate(), purposes=()), intermediate(), root())
    assert verify_release(folder, trusting_root(), at=NOW).status is SignatureStatus.VERIFIED


def test_root_without_key_usage(tmp_path: Path) -> None:
    """What `openssl req -x509` makes has no key usage, and may therefore issue."""
    plain = issue("CN=Plain Root", ca=True, key_usage=None)
    folder = sealed_release(tmp_path, leaf(plain))
    trust = Trust((CertificateTrust((plain.pem,), (SIGNER,)),))
    assert verify_release(folder, trust, at=NOW).status is SignatureStatus.VERIFIED


def test_payload_of_another(tmp_path: Path) -> None:
    """A good chain does not help a signature by another key, or a payload edited later."""
    chain = (signer().certificate, intermediate().certificate)
    for bundle in (
        seal(minimal(), root().key, chain=chain),
        bundle_of(signer(), intermediate()).replace(b'"payload": "ey', b'"payload": "IHsi'),
    ):
        with pytest.raises(InvalidBundleError):
            open_bundle(bundle, trusting_root(), at=NOW)


def test_files_are_checked(tmp_path: Path) -> None:
    """A byte that differs is refused in certificate mode as in any other."""
    folder = sealed_release(tmp_path, signer(), intermediate())
    (folder / "model.safetensors").write_bytes(b"\x01" * 4096)
    assert verify_release(folder, trusting_root(), at=NOW).reason.startswith("ValueError: Signature mismatch")


def test_garbage_certificates() -> None:
    """Certificates that are none, too many, or missing are refused before any signature."""
    good = bundle_of(signer(), intermediate())
    for bundle in (
        good.replace(b'"rawBytes": "MII', b'"rawBytes": "AII'),
        good.replace(b'"certificates": [', b'"certificates": [' + b'{"rawBytes": "AA=="},' * 16),
        bundle_of(signer(), *[intermediate()] * 16),
        good.replace(b'"rawBytes"', b'"raw"'),
    ):
        with pytest.raises(InvalidBundleError):
            open_bundle(bundle, trusting_root(), at=NOW)


@pytest.mark.parametrize(
    ("trust", "said"),
    [
        (CertificateTrust((root().pem,)), "no pin"),
        (CertificateTrust((), (SIGNER,)), "no root"),
        (CertificateTrust((b"text",), (SIGNER,)), "cannot read"),
        (CertificateTrust((root().pem,), ("",)), "a pin is"),
        (CertificateTrust((root().pem,), ("Model Signing",)), "cannot read"),
        (CertificateTrust((root().pem,), (), ("ab:cd",)), "a pin is"),
    ],
    ids=["no pin", "no root", "root is text", "empty subject", "no subject", "no hash"],
)
def test_unusable_trust(trust: CertificateTrust, said: str, tmp_path: Path) -> None:
    """A trust that would believe anybody, or nobody, is our own mistake: it raises, even without a bundle."""
    with pytest.raises(TrustError, match=said):
        verify_release(tmp_path, Trust((trust,)), at=NOW)


def test_time_zone() -> None:
    """`at` may be in any zone: half past five in Kolkata is midnight in UTC."""
    bundle = bundle_of(signer(), intermediate())
    open_bundle(bundle, trusting_root(), at=datetime.fromisoformat("2030-01-01T05:30:00+05:30"))
    with pytest.raises(InvalidBundleError, match="not valid at"):
        open_bundle(bundle, trusting_root(), at=datetime.fromisoformat("2030-01-01T05:30:01+05:30"))
