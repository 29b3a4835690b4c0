"""A release team signs a folder: what is signed verifies, here and with others' tools, or nothing is left."""

from __future__ import annotations

import base64
import json
import os
import pty
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from detector.provenance.interface import KeyTrust, SignatureStatus, Trust
from detector.provenance.keys import load_signing_key
from detector.provenance.sign import generate_key
from detector.provenance.verify import verify_release
from tests.forkwatch.pki import CODE, TLS, Issued, issue
from tests.forkwatch.release_folder import make_folder, shown, sign

SIGNED = ["config.json", "model.safetensors", "sub/tokenizer.json"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return generate_key(tmp_path / "keys").private


def library(folder: Path, public_key: Path) -> int:
    """The exit code of the `model_signing` program, as a user would run it."""
    program = [sys.executable, "-m", "model_signing", "verify", "key", str(folder), "--signature"]
    ignored = [str(folder / name) for name in ("model.sig", "README.md")]
    done = subprocess.run(
        [*program, str(folder / "model.sig"), "--public_key", str(public_key)]
        + [f"--ignore-paths={path}" for path in ignored],
        capture_output=True,
        check=False,
    )
    return done.returncode


def test_with_a_key(folder: Path, key: Path) -> None:
    """Everything but the card and git's files is signed; our verifier and the library's program agree."""
    document = shown(sign(folder, "--private-key", str(key), "--json"))
    public = key.with_suffix(".pub")
    check = verify_release(folder, Trust((KeyTrust(public.read_bytes()),)), at=datetime.now(UTC))

    assert document["files"] == SIGNED
    assert document["left_out"] == [".gitattributes", "README.md"]
    assert document["warnings"] == []
    assert check.status is SignatureStatus.VERIFIED
    assert check.manifest is not None
    assert document["root_digest"] == check.manifest.root_digest
    assert document["signer"] == check.signer
    assert library(folder, public) == 0


def test_with_a_new_key(folder: Path, tmp_path: Path) -> None:
    """`--generate-key` makes a pair that signs; the private half is never overwritten."""
    keys = tmp_path / "new"
    done = sign(folder, "--generate-key", str(keys))
    assert done.exit_code == 0, done.stderr
    assert stat.S_IMODE((keys / "release.key").stat().st_mode) == 0o600
    assert "Left out: .gitattributes, README.md" in done.stderr
    before = (keys / "release.key").read_bytes()
    assert sign(folder, "--generate-key", str(keys), "--force").exit_code == 2
    assert (keys / "release.key").read_bytes() == before


@pytest.mark.parametrize("half", ["release.pub", "release.key"])
def test_half_a_key_is_not_overwritten(folder: Path, tmp_path: Path, half: str) -> None:
    """A public key whose private half is kept elsewhere stays; no half of a new pair is left beside it."""
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / half).write_text("mine")
    done = sign(folder, "--generate-key", str(tmp_path / "new"))
    assert done.exit_code == 2
    assert {file.name: file.read_text() for file in (tmp_path / "new").iterdir()} == {half: "mine"}
    assert not (folder / "model.sig").exists()


def test_with_an_encrypted_key(folder: Path, key: Path) -> None:
    """The password comes from the environment; none or a wrong one signs nothing."""
    lock(key)
    for password in ("", "other"):
        assert sign(folder, "--private-key", str(key), FORKWATCH_KEY_PASSWORD=password).exit_code == 2
        assert not (folder / "model.sig").exists()
    shown(sign(folder, "--private-key", str(key), "--json", FORKWATCH_KEY_PASSWORD="word"))


def test_who_sits_at_a_terminal_is_asked(folder: Path, key: Path, tmp_path: Path) -> None:
    """The answer opens the key, and is not shown."""
    lock(key)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "forkwatch", "release", "sign", str(folder), "--private-key", str(key)]
    environment = {**os.environ, "FORKWATCH_STATE_DIR": str(tmp_path / "state"), "FORKWATCH_KEY_PASSWORD": ""}
    with subprocess.Popen(
        command,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    ) as asked:
        assert asked.stderr is not None
        err = b""
        # The space comes once the terminal has stopped echoing; what is typed before is thrown away.
        while b"Password: " not in err and (read := asked.stderr.read(1)):
            err += read
        os.write(ours, b"word\n")
        out, rest = asked.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert asked.returncode == 0, err + rest
    assert out.startswith(b"sha256:")
    assert b"word\n" not in out + err + rest


def lock(key: Path) -> None:
    """Encrypt a key in its file, with the password `word`."""
    own = load_signing_key(key.read_bytes())
    form = BestAvailableEncryption(b"word")
    key.write_bytes(own.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, form))


@pytest.fixture
def root(tmp_path: Path) -> Issued:
    return issue(tmp_path, "root")


def certificate_of(leaf: Issued, *chain: Issued) -> list[str]:
    above = [part for issued in chain for part in ("--chain", str(issued.certificate))]
    return ["--private-key", str(leaf.key), "--certificate", str(leaf.certificate), *above]


def test_with_a_certificate(folder: Path, tmp_path: Path, root: Issued) -> None:
    """The leaf is named as the signer."""
    middle = issue(tmp_path, "middle", root)
    leaf = issue(tmp_path, "leaf", middle, usage=CODE)
    document = shown(sign(folder, *certificate_of(leaf, middle, root), "--json"))
    assert document["signer"] == "x509:CN=leaf"
    assert document["files"] == SIGNED


def test_certificates_that_would_not_verify(folder: Path, tmp_path: Path, root: Issued, key: Path) -> None:
    """Expired, for a web server, of another key, or without a root: refused, and the old signature stays."""
    shown(sign(folder, "--private-key", str(key), "--json"))
    before = (folder / "model.sig").read_bytes()
    expired = issue(tmp_path, "expired", root, usage=CODE, ends=timedelta(days=-1))
    server = issue(tmp_path, "server", root, usage=TLS)
    leaf = issue(tmp_path, "leaf", root, usage=CODE)
    stranger = issue(tmp_path, "stranger")
    for arguments, reason in (
        (certificate_of(expired, root), "does not verify"),
        (certificate_of(server, root), "does not verify"),
        (certificate_of(leaf, stranger), "does not verify"),
        (certificate_of(leaf, leaf), "no root"),
        (
            certificate_of(Issued(leaf.name, leaf.signer, leaf.certificate, root.key), root),
            "not the certificate",
        ),
        (certificate_of(Issued(leaf.name, leaf.signer, leaf.key, leaf.key), root), "no certificate"),
    ):
        done = sign(folder, *arguments, "--force")
        assert done.exit_code == 2, (arguments, done.stderr)
        assert reason in done.stderr
        assert (folder / "model.sig").read_bytes() == before


def link(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "elsewhere")
    (folder / "model.safetensors").symlink_to(folder.parent / "elsewhere")


def empty(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link": (link, "symbolic link"),
    "a linked folder": (lambda folder: (folder / "more").symlink_to(folder.parent), "symbolic link"),
    "a pipe": (lambda folder: os.mkfifo(folder / "pipe"), "not a regular file"),
    "no weights": (empty, "no weight file"),
    "a pickle": (lambda folder: (folder / "a.pkl").write_bytes(b"\x80\x04N."), "pickle"),
    "an unsafe pickle": (
        lambda folder: (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR."),
        "unsafe-pickle",
    ),
    "a bidi name": (lambda folder: (folder / "a\u202egpj.json").write_bytes(b"{}"), "hostile-name"),
    "a signature": (lambda folder: (folder / "model.sig").write_bytes(b"{}"), "--force"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, folder: Path, key: Path) -> None:
    """What a verifier or a loader would refuse is not signed, and the folder stays as it is."""
    damage, reason = REFUSED[case]
    damage(folder)
    before = sorted(path.name for path in folder.iterdir())
    done = sign(folder, "--private-key", str(key))
    assert (done.exit_code, done.stdout) == (2, "")
    assert reason in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == before


def test_what_a_loader_could_miss_is_said(folder: Path, key: Path) -> None:
    """A file that git's ignore list leaves out although a loader could read it, and code: a warning each."""
    (folder / ".github").mkdir()
    (folder / ".github" / "config.json").write_bytes(b"{}")
    (folder / "modeling.py").write_bytes(b"")
    document = shown(sign(folder, "--private-key", str(key), "--json"))
    assert ".github/config.json" in document["left_out"]
    assert [warning.split(":")[0].split()[0] for warning in document["warnings"]] == [
        "modeling.py",
        ".github/config.json",
    ]


def test_a_secret_in_the_release(folder: Path, key: Path) -> None:
    """A private key inside the folder would be published with it."""
    inside = folder / "release.key"
    shutil.copy(key, inside)
    assert sign(folder, "--private-key", str(inside)).exit_code == 2
    assert sign(folder, "--generate-key", str(folder / "keys")).exit_code == 2
    assert not (folder / "keys").exists()


def test_one_way_to_sign(folder: Path, key: Path) -> None:
    """None, two, or parts of two ways are wrong use."""
    own = ["--private-key", str(key)]
    for arguments in (
        [],
        [*own, "--keyless"],
        [*own, "--generate-key", str(key.parent / "x")],
        [*own, "--certificate", str(key)],
        [*own, "--chain", str(key)],
        [*own, "--identity-token", str(key)],
        [*own, "--signature", "../model.sig"],
        ["--keyless", "--certificate", str(key), "--chain", str(key)],
        ["--private-key", str(folder / "none")],
    ):
        assert sign(folder, *arguments).exit_code == 2, arguments


def token(**claims: object) -> str:
    """An OpenID token as a CI would hand out, but for the issuer's signature, which only Sigstore checks."""
    now = int(time.time())
    defaults = {"iss": "https://ci.example", "sub": "team@lab.example", "aud": "sigstore"}
    parts = ({"alg": "ES256", "typ": "JWT"}, {**defaults, "iat": now, "nbf": now, "exp": now + 600, **claims})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join([*encoded, b"AAAA"]).decode()


CI = ("GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE", "CIRCLECI", "SIGSTORE_ID_TOKEN")


def test_keyless_without_an_identity(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No identity, and tokens that Sigstore would refuse: 4, and the reason; never a browser."""
    for name in CI:
        monkeypatch.delenv(name, raising=False)
    done = sign(folder, "--keyless")
    assert done.exit_code == 4
    assert "no OpenID Connect identity" in done.stderr
    file = tmp_path / "token"
    for text in ("no token", token(aud="other"), token(exp=1)):
        file.write_text(text)
        done = sign(folder, "--keyless", "--identity-token", str(file))
        assert done.exit_code == 4, done.stderr
        assert "no usable identity" in done.stderr
        assert text not in done.stderr
    assert sign(folder, "--keyless", "--identity-token", str(tmp_path / "none")).exit_code == 2


def test_keyless_without_a_network(folder: Path, tmp_path: Path) -> None:
    """With an identity and no way to Sigstore: 4, nothing signed, and the token is not shown.

    A proxy that nobody serves and an empty home make it offline anywhere.
    """
    file = tmp_path / "token"
    file.write_text(token())
    offline = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    done = sign(folder, "--keyless", "--identity-token", str(file), HOME=str(tmp_path), **offline)
    assert (done.exit_code, done.stdout) == (4, "")
    assert "not signed" in done.stderr
    assert file.read_text() not in done.stderr
    assert not (folder / "model.sig").exists()
