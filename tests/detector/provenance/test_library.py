"""Why bundles are read and chains are judged here: what model-signing 1.1.1 by itself accepts.

A row that fails after an update means that the library has learned to refuse it;
docs/methodology/provenance.md has the same table.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from detector.provenance.interface import KeyTrust, SignatureStatus, Trust
from detector.provenance.sign import KeyPair, sign_release
from detector.provenance.verify import verify_release
from tests.detector.provenance import test_certificate
from tests.detector.provenance.bundles import NOW, REAL, root_of, seal, statement_of, write_files
from tests.detector.provenance.pki import root, trusting_root
from tests.detector.provenance.test_keyless import ISSUER, WHO
from tests.detector.provenance.test_real_bundles import CERTIFICATE
from tests.detector.provenance.test_statement import old_encoding


def second_signature(folder: Path, key: ec.EllipticCurvePrivateKey) -> bytes:
    bundle = json.loads(seal(statement_of(folder), key))
    bundle["dsseEnvelope"]["signatures"].append({"sig": "AAAA", "keyid": ""})
    return json.dumps(bundle).encode()


def repeated_name(folder: Path, key: ec.EllipticCurvePrivateKey) -> bytes:
    statement = json.loads(statement_of(folder))
    resources = statement["predicate"]["resources"]
    resources.insert(0, {**resources[0], "digest": "0" * 64})
    statement["subject"][0]["digest"]["sha256"] = root_of(resources)
    return seal(json.dumps(statement).encode(), key)


ACCEPTED: Mapping[str, Callable[[Path, ec.EllipticCurvePrivateKey], bytes]] = {
    "second signature": second_signature,
    "repeated name": repeated_name,
    "old encoding": lambda folder, key: seal(statement_of(folder), key, encode=old_encoding),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_key(case: str, tmp_path: Path, keys: KeyPair, private_key: ec.EllipticCurvePrivateKey) -> None:
    """Bundles that two readers could read differently."""
    from model_signing import verifying

    folder = write_files(tmp_path / "release")
    (folder / "model.sig").write_bytes(ACCEPTED[case](folder, private_key))
    library = verifying.Config().use_elliptic_key_verifier(public_key=keys.public)
    library.verify(folder, folder / "model.sig")
    ours = verify_release(folder, Trust((KeyTrust(keys.public.read_bytes()),)), at=NOW)
    assert ours.status is SignatureStatus.INVALID


@pytest.mark.parametrize("case", ["leaf expired", "web server's leaf", "another subject"])
def test_certificate_chain(case: str, tmp_path: Path) -> None:
    """Certificates that are over, for something else, or somebody else's."""
    from model_signing import verifying

    chain = test_certificate.REFUSED[case][0]()
    folder = test_certificate.sealed_release(tmp_path / "release", *chain)
    (tmp_path / "root.pem").write_bytes(root().pem)
    library = verifying.Config().use_certificate_verifier(certificate_chain=[tmp_path / "root.pem"])
    library.verify(folder, folder / "model.sig")
    assert verify_release(folder, trusting_root(), at=NOW).status is SignatureStatus.INVALID


def test_old_predicate() -> None:
    """The predicate from before the specification."""
    from model_signing import hashing, verifying

    folder = REAL / "v0.2.0-certificate"
    config = hashing.Config().set_ignored_paths(paths=[folder / "model.sig"])
    library = verifying.Config().set_hashing_config(config)
    library.use_certificate_verifier(certificate_chain=[REAL / "ca-cert.pem"])
    library.verify(folder, folder / "model.sig")
    assert verify_release(folder, Trust((CERTIFICATE,)), at=NOW).status is SignatureStatus.INVALID


def test_keyless_needs_the_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The other way round: without a network the library alone cannot verify a keyless bundle."""
    from model_signing import verifying
    from sigstore.errors import TUFError

    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(TUFError):
        verifying.Config().use_sigstore_verifier(identity=WHO, oidc_issuer=ISSUER)


@pytest.mark.skipif(not Path("/proc/self/io").is_file(), reason="only Linux counts what a process reads")
def test_a_file_is_read_once(tmp_path: Path, keys: KeyPair, trust: Trust) -> None:
    """For the library's verdict and for our manifest together: hundreds of gigabytes are not read twice."""
    folder = write_files(tmp_path / "release", {"model.safetensors": bytes(32 << 20)})
    sign_release(folder, keys.private)
    verify_release(folder, trust, at=NOW)  # what is imported now is not counted below
    before = bytes_read()
    check = verify_release(folder, trust, at=NOW)
    read = bytes_read() - before
    assert check.status is SignatureStatus.VERIFIED
    assert check.manifest is not None
    assert [(file.size, file.git_oid) for file in check.manifest.files] == [
        (32 << 20, "d4988d268749185a4f9120756d2c5fec51e2ef05")
    ]
    assert 32 << 20 <= read < 40 << 20


def bytes_read() -> int:
    """By this process so far, from wherever."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["rchar"])
