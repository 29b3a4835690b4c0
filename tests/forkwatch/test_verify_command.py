"""`forkwatch verify`: one clear verdict and exit code for a folder or a repository, bound by digest alone."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from typer.testing import Result

from detector.provenance.interface import CertificateTrust, KeylessTrust, KeyTrust, Trust
from detector.provenance.sign import KeyPair, generate_key, sign_release
from forkwatch.cli.trust_options import said_by_options
from forkwatch.demo.hub import LoopbackHub
from tests.forkwatch.conftest import invoke
from tests.forkwatch.family import CONFIG, RELEASE, Family, card, publish_release, weights

OTHER = "lab/Other-1B"
"""A second guarded release, of another key."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verify")


@pytest.fixture(scope="module")
def hub(place: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def keys(place: Path) -> KeyPair:
    return generate_key(place / "other-keys")


@pytest.fixture(scope="module")
def family(hub: LoopbackHub, place: Path, keys: KeyPair) -> Family:
    """Two guarded releases; nothing of this module changes the state."""
    made = Family(hub, place / "state")
    public = publish_release(hub, place / "release")
    other = place / "other"
    other.mkdir()
    (other / "config.json").write_bytes(CONFIG)
    (other / "model.safetensors").write_bytes(weights(7))
    sign_release(other, keys.private)
    publish(hub, OTHER, other)
    for repo, key in ((RELEASE, public), (OTHER, keys.public)):
        added = made.run("release", "add", repo, "--public-key", str(key))
        assert added.exit_code == 0, added.stderr
    return made


def publish(hub: LoopbackHub, repo: str, folder: Path) -> None:
    hub.create_repo(repo)
    hub.commit(repo, {path.name: path for path in folder.iterdir()})


@pytest.fixture
def copy(family: Family, place: Path, tmp_path: Path) -> Path:
    """A folder with the first release's files."""
    return shutil.copytree(place / "release", tmp_path / "copy")


@pytest.fixture
def public(family: Family, place: Path) -> Path:
    """The first release's key."""
    return place / "release.pub"


def verdict(family: Family, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = family.run("verify", *arguments, "--json")
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["schema"] == "forkwatch.checkpoint/1"
    return done.exit_code, document


def states(document: Mapping[str, Any]) -> dict[str, str]:
    return {file["path"]: file["state"] for file in document["files"]}


def test_release_itself(family: Family, copy: Path) -> None:
    """Found by what its bundle signs: the folder's name says nothing."""
    code, found = verdict(family, str(copy))
    assert (code, found["status"], found["hub_reported"]) == (0, "authentic", False)
    assert found["release"].startswith(f"{RELEASE}@")
    assert found["basis"] == "signed"
    assert found["signer"].startswith("ecdsa-sha256:")
    assert found["not_checked"] == ["README.md"]
    assert {file["basis"] for file in found["files"]} == {"read"}


def test_unsigned_mirror(family: Family, copy: Path) -> None:
    """The same bytes without the bundle are the release all the same, and the verdict says which it is."""
    (copy / "model.sig").unlink()
    done = family.run("verify", str(copy))
    assert done.exit_code == 0
    assert "byte for byte" in done.stdout
    assert "carries no signature" in done.stdout


def test_altered(family: Family, copy: Path) -> None:
    """With its bundle and without, the changed file is named; the other release is not it."""
    (copy / "model.safetensors").write_bytes(weights(1))
    for _ in range(2):
        code, found = verdict(family, str(copy))
        assert (code, found["status"]) == (1, "altered")
        assert states(found) == {"config.json": "matched", "model.safetensors": "differs"}
        (copy / "model.sig").unlink(missing_ok=True)
    text = family.run("verify", str(copy)).stdout
    assert text.splitlines()[0].startswith(f"{copy}: altered: differs: model.safetensors; compared with lab/")
    assert "  differs   model.safetensors (read here)" in text


def test_signature_invalid(family: Family, copy: Path, tmp_path: Path) -> None:
    """Signed anew by whoever altered it: 6, and the files are not even compared."""
    (copy / "model.safetensors").write_bytes(weights(1))
    sign_release(copy, generate_key(tmp_path / "mallory").private)
    code, found = verdict(family, str(copy))
    assert (code, found["status"], found["files"], found["signer"]) == (6, "invalid-signature", [], None)
    assert verdict(family, str(copy), "--release", RELEASE)[0] == 6
    (copy / "model.sig").write_bytes(b"{")
    assert verdict(family, str(copy))[0] == 6


def test_named_release_is_bound_by_digest(family: Family, copy: Path, place: Path) -> None:
    """One guarded release is not another, whoever signed it."""
    assert verdict(family, str(copy), "--release", RELEASE)[0] == 0
    assert verdict(family, str(copy), "--release", OTHER)[0] == 6
    assert verdict(family, str(place / "other"))[1]["release"].startswith(f"{OTHER}@")


def test_another_version_of_the_same_signer(family: Family, copy: Path, place: Path) -> None:
    """A good signature of the right key over other files is no guarded release; by key alone it is fine."""
    (copy / "model.safetensors").write_bytes(weights(2))
    sign_release(copy, place / "release.key")
    code, found = verdict(family, str(copy))
    assert (code, found["status"]) == (3, "inconclusive")
    code, found = verdict(family, str(copy), "--release", RELEASE)
    assert (code, found["status"]) == (1, "altered")
    assert "its bundle" in found["reason"]
    assert verdict(family, str(copy), "--public-key", str(place / "release.pub"))[0] == 0


def test_nothing_in_common(family: Family, tmp_path: Path) -> None:
    """A stranger without a bundle is neither authentic nor altered, unless it was said what it must be."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(weights(99))
    assert verdict(family, str(tmp_path / "model"))[0] == 3
    assert verdict(family, str(tmp_path / "model"), "--release", RELEASE)[0] == 1


def stateless(tmp_path: Path, *arguments: str) -> Result:
    """In a state folder that is not there."""
    done = invoke(tmp_path / "state", "verify", *arguments, "--no-cache")
    assert not (tmp_path / "state").exists()
    return done


def test_key_without_any_state(copy: Path, public: Path, keys: KeyPair, tmp_path: Path) -> None:
    """No database, no settings, no Hub: authentic, altered, signed by somebody else, unsigned."""
    options = [str(copy), "--public-key", str(public)]
    assert stateless(tmp_path, *options).exit_code == 0
    assert stateless(tmp_path, str(copy), "--public-key", str(keys.public)).exit_code == 6
    (copy / "extra.safetensors").write_bytes(weights(3))
    done = stateless(tmp_path, *options)
    assert done.exit_code == 1
    assert "uncovered extra.safetensors" in done.stdout
    (copy / "model.sig").unlink()
    assert stateless(tmp_path, *options).exit_code == 3


def test_usage(family: Family, copy: Path, public: Path, tmp_path: Path) -> None:
    """Half a trust, two trusts, no key, no folder, one file, and nothing to compare with."""
    pin, key = ["--certificate-root", str(public)], ["--public-key", str(public)]
    (tmp_path / "no.pub").write_text("no key")
    for arguments in (
        [str(copy), *pin],
        [str(copy), "--certificate-subject", "CN=x"],
        [str(copy), "--identity", "a@b.c"],
        [str(copy), "--legacy"],
        [str(copy), "--release", RELEASE, *key],
        [str(copy), "--release", "lab/unknown"],
        [str(copy), "--public-key", str(tmp_path / "nowhere.pub")],
        [str(copy), "--public-key", str(tmp_path / "no.pub")],
        [str(copy / "config.json"), *key],
        [str(tmp_path / "nowhere"), *key],
        [f"{RELEASE}:config.json", *key],
    ):
        done = family.run("verify", *arguments)
        assert done.exit_code == 2, (arguments, done.output)
        assert "tip:" in done.stderr
    assert stateless(tmp_path, str(copy)).exit_code == 3


@pytest.mark.parametrize(
    "options",
    [
        ("--identity", ""),
        ("--identity", "", "--issuer", ""),
        ("--certificate-subject", ""),
        ("--certificate-spki", " "),
        ("--signature", ""),
        ("--release", ""),
        ("--public-key", ""),
        ("--trusted-root", ""),
    ],
)
def test_empty_options(family: Family, copy: Path, public: Path, options: tuple[str, ...]) -> None:
    """A variable that is not set must not turn a check of one signer into a check of somebody else."""
    for more in ((), ("--public-key", str(public))):
        done = family.run("verify", str(copy), *more, *options)
        assert done.exit_code == 2, (options, done.output)
        assert "tip:" in done.stderr


def test_settings_that_trust_others(family: Family, copy: Path, keys: KeyPair, tmp_path: Path) -> None:
    """Neither the old nor the new trust is used while the settings differ, whatever case the name is in."""
    file = tmp_path / "forkwatch.toml"
    for name in (RELEASE, RELEASE.lower(), OTHER):
        file.write_text(f'[releases."{name}"]\npublic_key = "release.pub"\nlegacy = true\n')
        (tmp_path / "release.pub").write_bytes(keys.public.read_bytes())
        done = family.run("verify", str(copy), FORKWATCH_CONFIG=str(file))
        assert (done.exit_code, "--replace" in done.stderr) == (2, True), done.output
    assert family.run("verify", str(copy), "--release", RELEASE, FORKWATCH_CONFIG=str(file)).exit_code == 0


def test_whom_the_options_trust(tmp_path: Path) -> None:
    """Each kind of signer, and several at once; any one of them suffices."""
    for name in ("key", "root", "trusted"):
        (tmp_path / name).write_text(name)
    key, root, trusted = (tmp_path / name for name in ("key", "root", "trusted"))
    nothing = {"public_key": None, "certificate_roots": [], "identity": None, "legacy": False}
    said = said_by_options(
        {
            "public_key": key,
            "certificate_roots": [root],
            "certificate_subjects": ["CN=x"],
            "certificate_spki": ["ab" * 32],
            "identity": "a@b.c",
            "issuer": "https://issuer",
            "trusted_root": trusted,
            "legacy": True,
        }
    )
    assert said_by_options(nothing) is None
    assert said is not None
    assert said.trust == Trust(
        (
            KeyTrust(b"key"),
            CertificateTrust((b"root",), ("CN=x",), ("ab" * 32,)),
            KeylessTrust("a@b.c", "https://issuer", b"trusted"),
        ),
        legacy=True,
    )


@pytest.fixture
def settled(family: Family, place: Path) -> Path:
    """The release's own folder, when it has not been written to for two seconds."""
    folder = place / "release"
    age = time.time() - max(path.stat().st_ctime for path in folder.iterdir())
    time.sleep(max(0.0, 2.1 - age))
    return folder


def test_second_time(settled: Path, public: Path, tmp_path: Path) -> None:
    """Digests are kept in the state folder once files have settled; `--full` reads them again."""
    state, options = tmp_path / "state", (str(settled), "--public-key", str(public), "--json")

    def bases(*more: str) -> set[str]:
        document = json.loads(invoke(state, "verify", *options, *more).stdout)
        return {file["basis"] for file in document["files"]}

    assert [bases(), bases(), bases("--full"), bases("--no-cache")] == [
        {"read"},
        {"remembered"},
        {"read"},
        {"read"},
    ]


def test_state_that_cannot_be_written(settled: Path, public: Path, tmp_path: Path) -> None:
    """Digests that cannot be kept are no obstacle, and the reader is told."""
    (tmp_path / "file").write_bytes(b"")
    done = invoke(tmp_path / "file" / "state", "verify", str(settled), "--public-key", str(public))
    assert done.exit_code == 0, done.output
    assert "cannot write" in done.stderr


def test_hostile_names(family: Family, copy: Path) -> None:
    """A file name cannot write to the terminal, neither as text nor as JSON that is looked at."""
    (copy / "a\x1b[31m\u202e.safetensors").write_bytes(b"")
    done = family.run("verify", str(copy))
    assert done.exit_code == 1
    data = family.run("verify", str(copy), "--json")
    assert "a\x1b[31m\u202e.safetensors" in states(json.loads(data.stdout))
    for output in (done.output, data.output):
        assert "\x1b" not in output
        assert "\u202e" not in output


def test_snapshot_of_the_real_client(family: Family, public: Path, tmp_path: Path) -> None:
    """What `snapshot_download` leaves in its cache, links and all, verifies; `local_dir` does too."""
    options = {"endpoint": family.hub.endpoint, "token": False}
    folder = Path(huggingface_hub.snapshot_download(RELEASE, cache_dir=tmp_path / "cache", **options))
    assert (folder / "model.safetensors").is_symlink()
    assert verdict(family, str(folder))[0] == 0
    plain = huggingface_hub.snapshot_download(RELEASE, local_dir=tmp_path / "plain", **options)
    assert verdict(family, plain)[0] == 0
    blob = (folder / "model.safetensors").resolve()
    blob.chmod(0o644)
    blob.write_bytes(weights(1))
    assert verdict(family, str(folder))[0] == 1


# --- on the Hub -----------------------------------------------------------------------------------


def fork(hub: LoopbackHub, repo: str, files: Mapping[str, bytes]) -> None:
    hub.create_repo(repo)
    hub.commit(repo, dict(files))


def test_repository(family: Family) -> None:
    """The Hub's word, said to be that; the weights are not downloaded."""
    before = len(family.hub.requests)
    code, found = verdict(family, RELEASE)
    assert (code, found["status"], found["hub_reported"], found["place"]) == (0, "authentic", True, "hub")
    assert {file["path"]: file["basis"] for file in found["files"]} == {
        "config.json": "hub-git-oid",
        "model.safetensors": "hub-sha256",
    }
    assert "authentic (Hub-reported)" in found["summary"]
    asked = [request.path for request in family.hub.requests[before:]]
    assert not [path for path in asked if "model.safetensors" in path]


def test_repository_by_key(family: Family, public: Path, keys: KeyPair) -> None:
    """With the key alone small files are fetched and hashed."""
    code, found = verdict(family, RELEASE, "--public-key", str(public))
    assert code == 0
    assert {file["path"]: file["basis"] for file in found["files"]}["config.json"] == "fetched"
    assert verdict(family, RELEASE, "--public-key", str(keys.public))[0] == 6


def test_repositories_that_are_not_it(family: Family, place: Path) -> None:
    """A mirror without the bundle, one with other weights, one with a changed template file, a stranger."""
    files = {path.name: path.read_bytes() for path in (place / "release").iterdir()}
    bundle = files.pop("model.sig")
    fork(family.hub, "ann/mirror", files)
    fork(family.hub, "bob/weights", {**files, "model.sig": bundle, "model.safetensors": weights(1)})
    fork(family.hub, "cyd/template", {**files, "model.sig": bundle, "chat_template.jinja": b"{{ x }}"})
    fork(family.hub, "dan/resigned", {**files, "model.sig": b"{}"})
    fork(family.hub, "eve/stranger", {"README.md": card(), "model.safetensors": weights(50)})
    repos = ("ann/mirror", "bob/weights", "cyd/template", "dan/resigned", "eve/stranger")
    assert [verdict(family, repo)[0] for repo in repos] == [0, 1, 1, 6, 3]
    assert states(verdict(family, "cyd/template")[1])["chat_template.jinja"] == "uncovered"
    assert verdict(family, "ann/mirror", "--release", OTHER)[0] == 1
    done = family.run("verify", "bob/nobody")
    assert done.exit_code == 4


def test_files_that_a_listing_leaves_out(family: Family, public: Path, place: Path) -> None:
    """A name that some disk holds for another one, or that none can hold, is there for whoever loads it."""
    files = {path.name: path.read_bytes() for path in (place / "release").iterdir()}
    fork(family.hub, "fay/collides", {**files, "MODEL.safetensors": weights(1)})
    fork(family.hub, "gil/odd", {**files, "chat_template\x1b.jinja": b"{{ x }}", "pic\x1b.png": b""})
    for repo, name in (("fay/collides", "MODEL.safetensors"), ("gil/odd", "chat_template\\x1b.jinja")):
        for more in ((), ("--public-key", str(public)), ("--release", RELEASE)):
            code, found = verdict(family, repo, *more)
            assert (code, found["status"]) == (1, "altered")
            assert states(found) == {
                "config.json": "matched",
                "model.safetensors": "matched",
                name: "uncovered",
            }
    assert found["not_checked"] == ["README.md", "pic\\x1b.png"]


def test_revision(family: Family) -> None:
    """A commit can be named; the subject is always pinned to one."""
    _, found = verdict(family, RELEASE)
    commit = found["subject"].partition("@")[2]
    assert len(commit) == 40
    assert verdict(family, f"{RELEASE}@{commit}")[1]["subject"] == found["subject"]
