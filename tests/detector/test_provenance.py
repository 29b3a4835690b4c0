"""A release is VERIFIED only when its signature, every covered byte and the coverage itself hold."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detector.errors import InvalidBundleError, PublicKeyError
from detector.interface import SignatureCheck, SignatureStatus
from detector.provenance.bundle import MAX_BUNDLE_BYTES, open_bundle
from detector.provenance.interface import KeyTrust, Trust
from detector.provenance.sign import KeyPair, generate_key, sign_release
from detector.provenance.verify import verify_release

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REAL = Path(__file__).parents[1] / "assets" / "oms"
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"\x00" * 4096,
    "tokenizer/merges.txt": b"a b\n",
    "tokenizer-extra.json": b"[]",
    "README.md": b"# card",
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return generate_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def release(tmp_path: Path, keys: KeyPair) -> Path:
    folder = tmp_path / "release"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    sign_release(folder, keys.private)
    return folder


def pae(payload: bytes) -> bytes:
    return b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload)


def seal(payload: bytes, private_key: Path, encode: Callable[[bytes], bytes] = pae) -> bytes:
    """A bundle, signed with the real key, around any payload: what a malicious or broken signer makes."""
    key = load_pem_private_key(private_key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signature = key.sign(encode(payload), ec.ECDSA(hashes.SHA256()))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
    }
    return json.dumps(
        {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {}, "tlogEntries": []},
            "dsseEnvelope": envelope,
        }
    ).encode()


def seal_shape(envelope: Mapping[str, object]) -> bytes:
    """A bundle that is well formed but for what `envelope` replaces; its signature is never reached."""
    whole = {
        "payloadType": "application/vnd.in-toto+json",
        "payload": "e30=",
        "signatures": [{"sig": "AAAA"}],
    }
    media = "application/vnd.dev.sigstore.bundle.v0.3+json"
    parts = {"verificationMaterial": {"publicKey": {}}, "dsseEnvelope": {**whole, **envelope}}
    return json.dumps({"mediaType": media, **parts}).encode()


def statement(folder: Path) -> dict[str, object]:
    bundle = json.loads((folder / "model.sig").read_bytes())
    payload: dict[str, object] = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    return payload


def root_of(resources: list[dict[str, str]]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(entry["digest"]) for entry in resources)).hexdigest()


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
    signed_root = statement(release)["subject"][0]["digest"]["sha256"]  # type: ignore[index]  # JSON just made
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


def test_other_key(release: Path, tmp_path: Path, keys: KeyPair) -> None:
    """A good signature by another key is invalid, with and without the bundle's hint."""
    other = generate_key(tmp_path / "other")
    assert "another key" in check(release, other).reason
    (release / "model.sig").write_bytes(seal(json.dumps(statement(release)).encode(), keys.private))
    assert check(release, keys).status is SignatureStatus.VERIFIED
    assert check(release, other).reason.startswith("InvalidSignature")


def test_stdout_is_data(release: Path, keys: KeyPair, capsys: pytest.CaptureFixture[str]) -> None:
    """The library's warning about a bundle without a hint goes to stderr."""
    (release / "model.sig").write_bytes(seal(json.dumps(statement(release)).encode(), keys.private))
    check(release, keys)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "WARNING" in captured.err


def test_ignored_config(release: Path, keys: KeyPair) -> None:
    """The library accepts a signature that leaves the config out; we do not."""
    payload = statement(release)
    predicate = payload["predicate"]
    assert isinstance(predicate, dict)
    predicate["resources"] = [entry for entry in predicate["resources"] if entry["name"] != "config.json"]
    predicate["serialization"]["ignore_paths"] += ["config.json"]
    payload["subject"] = [{"name": "m", "digest": {"sha256": root_of(predicate["resources"])}}]
    (release / "model.sig").write_bytes(seal(json.dumps(payload).encode(), keys.private))
    assert check(release, keys).reason == "InvalidBundleError: not covered: config.json"
    (release / "config.json").unlink()
    assert check(release, keys).status is SignatureStatus.VERIFIED


@pytest.mark.parametrize("name", ["LICENSE.txt", "logo.png", ".gitattributes", ".cache/huggingface/x.json"])
def test_uncovered_but_harmless(name: str, release: Path, keys: KeyPair) -> None:
    """Licence texts, pictures, git's files and the Hub client's bookkeeping need no signature."""
    payload = statement(release)
    predicate = payload["predicate"]
    assert isinstance(predicate, dict)
    predicate["serialization"]["ignore_paths"] += ["LICENSE.txt", "logo.png"]
    (release / "model.sig").write_bytes(seal(json.dumps(payload).encode(), keys.private))
    (release / name).parent.mkdir(parents=True, exist_ok=True)
    (release / name).write_bytes(b"anything")
    assert check(release, keys).status is SignatureStatus.VERIFIED


A, B = ({"name": name, "algorithm": "sha256", "digest": name * 64} for name in "ab")


def minimal(
    *,
    predicate_type: str = "https://model_signing/signature/v1.0",
    resources: tuple[dict[str, str], ...] = (A, B),
    root: str | None = None,
    serialization: Mapping[str, object] | None = None,
    subjects: int = 1,
) -> bytes:
    listed = list(resources)
    digest = root or root_of([entry for entry in listed if "digest" in entry])
    return json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "m", "digest": {"sha256": digest}}] * subjects,
            "predicateType": predicate_type,
            "predicate": {
                "serialization": serialization
                or {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
                "resources": listed,
            },
        }
    ).encode()


REFUSED: Mapping[str, tuple[bytes, str]] = {
    "predicate v0.1": (minimal(predicate_type="https://model_signing/Digests/v0.1"), "Digests/v0.1"),
    "shards": (minimal(serialization={"method": "shards", "hash_type": "sha256"}), "'shards'"),
    "blake3": (minimal(serialization={"method": "files", "hash_type": "blake3"}), "'blake3'"),
    "other hash in one entry": (minimal(resources=({**A, "algorithm": "blake3"},)), "algorithm"),
    "no file": (minimal(resources=()), "no file"),
    "wrong root": (minimal(root="0" * 64), "sha256 is '0000"),
    "two subjects": (minimal(subjects=2), "one subject"),
    "repeated name": (minimal(resources=(A, A)), "repeated"),
    "out of order": (minimal(resources=(B, A)), "out of order"),
    "parent folder": (minimal(resources=({**A, "name": "../a"},)), "relative path"),
    "absolute": (minimal(resources=({**A, "name": "/a"},)), "relative path"),
    "single file": (minimal(resources=({**A, "name": "."},)), "relative path"),
    "not normalised": (minimal(resources=({**A, "name": "a//b"},)), "relative path"),
    "bidi name": (minimal(resources=({**A, "name": "a\u202egpj.exe"},)), "relative path"),
    "upper-case digest": (minimal(resources=({**A, "digest": "A" * 64},)), "not a SHA-256"),
    "repeated key": (minimal().replace(b'"resources"', b'"resources": [], "resources"'), "repeats a key"),
    "not JSON": (b"[", "not JSON"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_malformed_but_signed(case: str, keys: KeyPair) -> None:
    """A payload that breaks the spec is refused although its signature is good."""
    payload, reason = REFUSED[case]
    with pytest.raises(InvalidBundleError, match=reason):
        signed_by(seal(payload, keys.private), keys.public)


@pytest.mark.parametrize(
    "bundle",
    [
        b"[]",
        b" " * (MAX_BUNDLE_BYTES + 1),
        seal_shape({"signatures": {}}),
        seal_shape({"payload": 5}),
        seal_shape({"payload": "not base64!"}),
        seal_shape({"payloadType": "text/plain"}),
    ],
    ids=["array", "huge", "signatures", "payload", "base64", "type"],
)
def test_other_shapes(bundle: bytes, keys: KeyPair) -> None:
    """A bundle of another shape is refused before anything in it is used."""
    with pytest.raises(InvalidBundleError):
        signed_by(bundle, keys.public)


def test_minimal_is_accepted(keys: KeyPair) -> None:
    """The refused payloads above differ from an accepted one in a single respect."""
    assert list(signed_by(seal(minimal(), keys.private), keys.public)) == ["a", "b"]


def test_old_encoding(keys: KeyPair) -> None:
    """The library still accepts the signature encoding of its release 0.2; we do not."""
    payload = minimal()
    old = f"DSSEV1 28 application/vnd.in-toto+json {len(payload)} {payload!r}".encode()
    with pytest.raises(InvalidBundleError, match="InvalidSignature"):
        signed_by(seal(payload, keys.private, lambda _: old), keys.public)


def test_two_signatures(release: Path, keys: KeyPair) -> None:
    """A bundle with a second signature is refused: the library would look at the first alone."""
    bundle = json.loads((release / "model.sig").read_bytes())
    bundle["dsseEnvelope"]["signatures"] *= 2
    with pytest.raises(InvalidBundleError, match="found 2"):
        signed_by(json.dumps(bundle).encode(), keys.public)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_mutation(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No change of bytes in a real bundle makes it sign anything else, or raises anything undocumented."""
    bundle = (REAL / "v1.1.0-elliptic-key" / "model.sig").read_bytes()
    trust = trusting(REAL / "signing-key-pub.pem")
    start = data.draw(st.integers(0, len(bundle) - 1))
    patch = data.draw(st.binary(min_size=0, max_size=4))
    mutated = bundle[:start] + patch + bundle[start + data.draw(st.integers(0, 4)) :]
    try:
        opened = open_bundle(mutated, trust, at=NOW)
    except InvalidBundleError:
        return
    assert opened == open_bundle(bundle, trust, at=NOW)


def test_real_bundle(tmp_path: Path) -> None:
    """A bundle made by the library's own release 1.1.0 (P-384) verifies, with the signed root digest."""
    folder = shutil.copytree(REAL / "v1.1.0-elliptic-key", tmp_path / "m")
    result = verify_release(folder, trusting(REAL / "signing-key-pub.pem"), at=NOW)
    assert (result.status, result.reason) == (SignatureStatus.VERIFIED, "")
    assert result.manifest is not None
    assert result.manifest.root_digest.endswith(
        "92745110b1ab4368471cbe31664e10174e954b113a3df333db860317b2c6dec4"
    )


@pytest.mark.parametrize(
    ("bundle", "reason"),
    [
        ("v0.2.0-certificate", "certificate or keyless"),
        ("v1.1.0-certificate", "certificate or keyless"),
        ("v1.1.0-sigstore", "certificate or keyless"),
        ("v1.0.0-elliptic-key", "relative path"),  # signs a single file under the name "."
    ],
)
def test_other_real_bundles(bundle: str, reason: str, tmp_path: Path) -> None:
    """Real bundles of other modes are INVALID with a reason that names the mode."""
    folder = shutil.copytree(REAL / bundle, tmp_path / "m")
    result = verify_release(folder, trusting(REAL / "signing-key-pub.pem"), at=NOW)
    assert result.status is SignatureStatus.INVALID
    assert reason in result.reason


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
