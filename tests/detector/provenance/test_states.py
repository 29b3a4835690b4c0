"""What a bundle is when the trust names nobody, or somebody else."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest

from detector.errors import InvalidBundleError, PublicKeyError, TrustError, UnknownSignerError
from detector.provenance.bundle import open_bundle
from detector.provenance.interface import KeylessTrust, KeyTrust, SignatureCheck, SignatureStatus, Trust
from detector.provenance.refusal import reason_of, refusing
from detector.provenance.verify import verify_release
from tests.detector.provenance.bundles import NOW, REAL, minimal, seal, seal_shape
from tests.detector.provenance.pki import intermediate, signer, trusting_root
from tests.detector.provenance.test_real_bundles import CERTIFICATE, KEY, KEYLESS

SIGNERS = {"elliptic-key": KEY, "certificate": CERTIFICATE, "sigstore": KEYLESS}
SAID = {"elliptic-key": "a key", "certificate": "a certificate", "sigstore": "a sigstore identity"}


def check(folder: Path, trust: Trust) -> SignatureCheck:
    return verify_release(folder, trust, at=NOW)


@pytest.mark.parametrize("mode", SIGNERS)
def test_claimed(mode: str, tmp_path: Path) -> None:
    """A well-formed bundle is a claim while the trust names nobody; nothing is believed from it."""
    folder = shutil.copytree(REAL / f"v1.1.0-{mode}", tmp_path / "m")
    result = check(folder, Trust())
    assert (result.status, result.signer, result.manifest) == (SignatureStatus.CLAIMED, "", None)
    assert result.reason == f"UnknownSignerError: signed with {SAID[mode]}; the trust names no signer"


def test_malformed_is_no_claim(tmp_path: Path) -> None:
    """What breaks the format is invalid, whoever is trusted."""
    cases = [
        b"{}",
        seal_shape({"signatures": []}),
        seal(minimal(root="0" * 64), signer().key),
        seal(minimal(), signer().key, chain=(signer().certificate,) * 17),
    ]
    for bundle in cases:
        (tmp_path / "model.sig").write_bytes(bundle)
        assert check(tmp_path, Trust()).status is SignatureStatus.INVALID


def test_old_predicate_is_a_claim_only_if_legacy(tmp_path: Path) -> None:
    """A bundle of a kind that the trust does not accept at all is no claim either."""
    folder = shutil.copytree(REAL / "v0.2.0-certificate", tmp_path / "m")
    assert check(folder, Trust()).status is SignatureStatus.INVALID
    assert check(folder, Trust(legacy=True)).status is SignatureStatus.CLAIMED


@pytest.mark.parametrize(
    ("mode", "trusted"), [pair for pair in itertools.product(SIGNERS, SIGNERS) if pair[0] != pair[1]]
)
def test_other_mode(mode: str, trusted: str, tmp_path: Path) -> None:
    """A trust that names somebody expects them: a bundle in another mode is invalid, never just a claim."""
    folder = shutil.copytree(REAL / f"v1.1.0-{mode}", tmp_path / "m")
    result = check(folder, Trust((SIGNERS[trusted],)))
    assert result.status is SignatureStatus.INVALID
    assert result.reason == f"InvalidBundleError: signed with {SAID[mode]}; the trust expects {SAID[trusted]}"


def test_several_signers() -> None:
    """Any one of several signers suffices; when none did it, the reason has what each said."""
    chain = (signer().certificate, intermediate().certificate)
    bundle = seal(minimal(), signer().key, chain=chain)
    good, bad = trusting_root().signers, trusting_root(subjects=("CN=Other",)).signers
    for signers in itertools.permutations((*good, *bad, KEY)):
        assert open_bundle(bundle, Trust(signers), at=NOW).signer == "x509:CN=Model Signing 001,O=Example"
    other = seal(minimal(), signer().key, chain=(chain[0],))
    with pytest.raises(InvalidBundleError, match=r"no signer of the trust: Verif.*; Verif"):
        open_bundle(other, Trust((*good, *bad)), at=NOW)


def test_unsigned(tmp_path: Path) -> None:
    """Without a bundle nothing is claimed, whoever is trusted."""
    for trust in (Trust(), Trust((KEY,))):
        result = check(tmp_path, trust)
        assert (result.status, result.reason) == (SignatureStatus.UNSIGNED, "there is no model.sig")


def test_a_claim_is_not_verified() -> None:
    """Who catches what is not verified catches claims too; who catches our mistakes catches bad keys."""
    assert issubclass(UnknownSignerError, InvalidBundleError)
    assert issubclass(PublicKeyError, TrustError)
    assert not issubclass(TrustError, InvalidBundleError)


def test_mistakes_in_any_signer_show(tmp_path: Path) -> None:
    """A signer that cannot be used raises though another one verifies, or no bundle is there."""
    folder = shutil.copytree(REAL / "v1.1.0-elliptic-key", tmp_path / "m")
    for broken in (KeyTrust(b""), KeylessTrust("somebody@example.com", "")):
        with pytest.raises(TrustError):
            check(folder, Trust((KEY, broken)))


class PanicException(BaseException):
    __module__ = "pyo3_runtime"


@pytest.mark.parametrize(
    "raised", [PanicException("index \x1b[2J"), KeyError("x"), MemoryError(), AttributeError("y")]
)
def test_any_failure_is_a_refusal(raised: BaseException) -> None:
    """Whatever a library raises is "not verified", with its class, and printable."""
    with pytest.raises(InvalidBundleError) as refused, refusing():
        raise raised
    reason = reason_of(refused.value)
    assert reason.startswith(f"{type(raised).__name__}: ")
    assert reason.isprintable()


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), SystemExit(), GeneratorExit(), TrustError("ours")])
def test_interrupts_pass(raised: BaseException) -> None:
    """An interrupt, and a mistake of ours, is no statement about the bundle."""
    with pytest.raises(type(raised)), refusing():
        raise raised
