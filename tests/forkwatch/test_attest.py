"""Published verdicts carry the operator's signature, which holds for exactly what was published."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from detector.provenance.dsse import seal
from detector.provenance.keys import load_signing_key, new_signing_key
from forkwatch.demo.hub import LoopbackHub
from tests.forkwatch.conftest import invoke
from tests.forkwatch.family import RELEASE, Family, publish_release
from tests.forkwatch.judged import (
    COMMIT,
    FORK,
    PAGE,
    WEIGHTS,
    Judged,
    Published,
    contents,
    document,
    judge,
    payload,
    verify,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judged]:
    """Made once; the tests work on copies of its state."""
    folder = tmp_path_factory.mktemp("base")
    hub = LoopbackHub()
    public = publish_release(hub, folder / "release")
    with hub:
        family = Family(hub, folder / "state")
        added = family.run("release", "add", RELEASE, "--public-key", str(public))
        assert added.exit_code == 0, added.stderr
        judge(family, document(family))
        yield Judged(family)


@pytest.fixture
def judged(base: Judged, tmp_path: Path) -> Judged:
    """Without a key so far."""
    shutil.copytree(base.state, tmp_path / "state")
    return Judged(Family(base.family.hub, tmp_path / "state"))


@pytest.fixture(scope="module")
def published(base: Judged, tmp_path_factory: pytest.TempPathFactory) -> Published:
    state = tmp_path_factory.mktemp("published") / "state"
    shutil.copytree(base.state, state)
    judged = Judged(Family(base.family.hub, state))
    return Published(judged, judged.key(), judged.build())


def test_a_site_without_a_key_signs_nothing(judged: Judged) -> None:
    """No attestation, no link to one, and nothing that looks like one is missing."""
    site = judged.build()
    assert not list(site.rglob("*.attestation.json"))
    assert (
        json.loads((site / "verdicts.json").read_text())["releases"][0]["verdicts"][0]["attestation"] is None
    )
    assert "Signed verdict" not in (site / "forks/abl/smollm2-directional/index.html").read_text()


def test_published_verdicts_are_signed(published: Published) -> None:
    """Each verdict has its attestation, which agrees with the document beside it; twice the same bytes."""
    key, site, bundle = published.key, published.site, published.bundle
    first = contents(site)
    row = json.loads(first["verdicts.json"])["releases"][0]["verdicts"][0]
    assert site / row["attestation"] == bundle
    identity = hashlib.sha256(key.read_bytes()).hexdigest()
    assert first[f"api/v1/keys/{identity}.pem"] == key.read_bytes()
    page = first["forks/abl/smollm2-directional/index.html"].decode()
    assert "smollm2-directional.attestation.json" in page
    assert f"{identity}.pem" in page

    code, shown = published.verify(bundle, "--scan", str(published.scan))
    assert (code, shown["result"], shown["key"], shown["differences"]) == (0, "verified", identity, [])
    assert contents(published.judged.build()) == first


def test_what_is_said(published: Published) -> None:
    """The statement names what was judged, by whom with what, and no file of the release as its subject."""
    statement = payload(published.bundle)
    name = f"{FORK}@{COMMIT}"
    assert statement["predicateType"] == "urn:forkwatch:verdict:1"
    assert statement["subject"] == [
        {"name": name, "digest": {"gitCommit": COMMIT}},
        {"name": f"{name}/adapter_model.bin", "digest": {"gitBlob": "c" * 40}},
        {
            "name": f"{name}/model-2.safetensors",
            "digest": {"sha256": hashlib.sha256(WEIGHTS["model-2.safetensors"]).hexdigest()},
        },
    ]
    predicate = statement["predicate"]
    assert [(file["path"], file["original"]) for file in predicate["snapshot"]["weights"]] == [
        ("adapter_model.bin", False),
        ("model-1.safetensors", True),
        ("model-2.safetensors", False),
    ]
    scan = document(published.judged.family)
    assert predicate["verdict"]["label"] == scan.verdict.label == "safety-removed"
    assert [finding["id"] for finding in predicate["findings"]] == [finding.id for finding in scan.findings]
    assert predicate["release"]["root_digest"] == scan.original.root_digest
    assert predicate["stages"] == [{"stage": "match", "version": "3"}]
    assert re.fullmatch("sha256:[0-9a-f]{64}", predicate["safety"]["suite_digest"])
    assert (predicate["judged_at"], predicate["not_measured"]) == (
        scan.scanned_at,
        list(scan.verdict.not_measured),
    )


def test_the_documented_digest(published: Published) -> None:
    """The recipe in docs/attestation.md, as it stands there, gives the digest that was signed."""
    text = (Path(__file__).parents[2] / "docs" / "attestation.md").read_text()
    (recipe,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(recipe.replace("scan.json", str(published.scan)), names)
    assert f"sha256:{names['digest']}" == payload(published.bundle)["predicate"]["document"]


def test_figures_that_change_without_the_verdict(published: Published, tmp_path: Path) -> None:
    """Downloads of a later week leave the attestation as it was, byte for byte, and it still agrees."""
    later = json.loads(published.scan.read_text())
    later["hub"]["downloads"] += 100
    file = tmp_path / "later.json"
    file.write_text(json.dumps(later))
    assert published.verify(published.bundle, "--scan", str(file))[0] == 0


def test_other_documents_differ(published: Published, tmp_path: Path) -> None:
    """A verdict, a finding or a number that is not the attested one: 1, and says what."""
    original = json.loads(published.scan.read_text())
    for change, said in (
        ({"verdict": {**original["verdict"], "label": "authentic"}}, "verdict: attested safety-removed"),
        ({"findings": original["findings"][1:]}, "something else"),
        ({"commit": "e" * 40}, "commit: attested"),
    ):
        file = tmp_path / "other.json"
        file.write_text(json.dumps({**original, **change}))
        code, shown = published.verify(published.bundle, "--scan", str(file))
        assert (code, shown["result"]) == (1, "differs")
        assert said in shown["differences"][0]


def test_a_folder_is_what_was_judged(published: Published, tmp_path: Path) -> None:
    """Every attested weight file with its bytes, and no other one."""
    folder = tmp_path / "download"
    folder.mkdir()
    for name, content in WEIGHTS.items():
        (folder / name).write_bytes(content)
    arguments = ("--repo-path", str(folder))
    assert published.verify(published.bundle, *arguments)[1]["differences"] == [
        "adapter_model.bin is not in the folder"
    ]
    (folder / "adapter_model.bin").write_bytes(b"abc")
    assert published.verify(published.bundle, *arguments)[1]["differences"] == [
        "adapter_model.bin has other bytes"
    ]
    (folder / "extra.gguf").write_bytes(b"")
    (folder / "model-1.safetensors").unlink()
    (folder / "model-1.safetensors").symlink_to(folder / "model-2.safetensors")
    code, shown = published.verify(published.bundle, *arguments)
    assert code == 1
    assert any("extra.gguf is not attested" in text for text in shown["differences"])
    assert any("model-1.safetensors cannot be read" in text for text in shown["differences"])


def forged(published: Published, **changes: Any) -> bytes:
    """A statement with changes, signed with the operator's own key."""
    statement = payload(published.bundle)
    key = load_signing_key((published.judged.state / "attest" / "operator.key").read_bytes())
    return seal(json.dumps({**statement, **changes}).encode(), key)


def test_invalid(published: Published, tmp_path: Path) -> None:
    """Tampered, of another type, about other subjects, or under another key: 6, and why."""
    key, bundle = published.key, published.bundle
    other = tmp_path / "other.pem"
    other.write_bytes(new_signing_key().public.pem)
    file = tmp_path / "bundle.json"
    fields = json.loads(bundle.read_bytes())
    envelope = fields["dsseEnvelope"]
    swapped = base64.b64decode(envelope["payload"]).replace(b"safety-removed", b"authentic")
    envelope["payload"] = base64.b64encode(swapped).decode()
    predicate = payload(bundle)["predicate"]
    cases = (
        (bundle.read_bytes(), other, "not by the given key"),
        (json.dumps(fields).encode(), key, "not by the given key"),
        (forged(published, predicateType="https://slsa.dev/provenance/v1"), key, "predicateType"),
        (forged(published, subject=payload(bundle)["subject"][:1]), key, "subjects"),
        (forged(published, predicate={**predicate, "verdict": "fine"}), key, "predicate is malformed"),
        (b"{}", key, "mediaType"),
    )
    for content, public, reason in cases:
        file.write_bytes(content)
        code, shown = verify(published.judged, file, "--public-key", str(public))
        assert (code, shown["result"]) == (6, "invalid")
        assert reason in shown["reason"]


def test_rotation(judged: Judged) -> None:
    """A new key signs everything anew; what the old one signed verifies with the old one, still published."""
    old = judged.key()
    site = judged.build()
    kept = judged.state / "kept.json"
    kept.write_bytes((site / f"{PAGE}.attestation.json").read_bytes())
    new = judged.key("--rotate")
    site = judged.build()
    bundle = site / f"{PAGE}.attestation.json"

    assert {file.read_bytes() for file in (site / "api/v1/keys").iterdir()} == {
        old.read_bytes(),
        new.read_bytes(),
    }
    assert verify(judged, bundle, "--public-key", str(old))[0] == 6
    assert verify(judged, kept, "--public-key", str(new))[0] == 6
    both = ("--public-key", str(old), "--public-key", str(new))
    assert [verify(judged, file, *both)[0] for file in (bundle, kept)] == [0, 0]
    retired = list((judged.state / "attest").glob("*.key"))
    assert len(retired) == 2
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in retired)


def test_sign_a_document_or_a_name(published: Published, tmp_path: Path) -> None:
    """By name and from the published document the same is said; elsewhere, what the document alone says."""
    judged, scan = published.judged, published.scan
    for what in (FORK, str(scan)):
        signed = judged.run("attest", "sign", what)
        assert signed.stdout == published.bundle.read_text(), signed.stderr
    out = tmp_path / "out.json"
    elsewhere = invoke(tmp_path / "elsewhere", "attest", "key", "--json")
    elsewhere_key = tmp_path / "elsewhere.pem"
    elsewhere_key.write_text(json.loads(elsewhere.stdout)["public_key"])
    signed = invoke(tmp_path / "elsewhere", "attest", "sign", str(scan), "--out", str(out))
    assert signed.exit_code == 0, signed.stderr
    code, shown = verify(judged, out, "--public-key", str(elsewhere_key), "--scan", str(scan))
    assert (code, shown["predicate"]["snapshot"]["weights"], shown["predicate"]["stages"]) == (0, [], [])
    code, shown = verify(judged, out, "--public-key", str(elsewhere_key), "--repo-path", str(tmp_path))
    assert (code, shown["differences"]) == (
        1,
        ["the attestation names no weight file that a folder could be compared with"],
    )
    told = judged.run("attest", "verify", str(published.bundle), "--public-key", str(published.key))
    assert told.exit_code == 0
    assert told.stdout.startswith(f"{FORK}@{COMMIT[:12]}: safety-removed")


def test_hostile_text(published: Published, tmp_path: Path) -> None:
    """What an attestation says reaches a terminal without control and direction characters."""
    scan = json.loads(published.scan.read_text())
    scan["verdict"]["summary"] = "fine\x1b[2J\u202e\u009b2J"
    hostile = tmp_path / "hostile.json"
    hostile.write_text(json.dumps(scan))
    bundle = tmp_path / "bundle.json"
    bundle.write_text(published.judged.run("attest", "sign", str(hostile)).stdout)
    for form in ((), ("--json",)):
        known = ("attest", "verify", str(bundle), "--public-key", str(published.key), *form)
        told = published.judged.run(*known)
        assert told.exit_code == 0
        assert not {"\x1b", "\u202e", "\u009b"} & set(told.stdout)


def test_a_configured_key(judged: Judged, tmp_path: Path) -> None:
    """The settings' key signs, opened with a password from the environment; a missing one is an error."""
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    own = new_signing_key()
    public = tmp_path / "own.pub"
    public.write_bytes(own.public.pem)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        own.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))
    )
    setting = {"FORKWATCH_ATTEST__PRIVATE_KEY": str(locked)}
    assert judged.run("attest", "sign", FORK, **setting).exit_code == 2
    signed = judged.run("attest", "sign", FORK, **setting, FORKWATCH_KEY_PASSWORD="word")
    file = tmp_path / "signed.json"
    file.write_text(signed.stdout)
    assert verify(judged, file, "--public-key", str(public))[0] == 0
    missing = judged.run("report", "build", FORKWATCH_ATTEST__PRIVATE_KEY=str(tmp_path / "no.key"))
    assert missing.exit_code == 2
    assert judged.run("attest", "key", "--rotate", **setting).exit_code == 2


def test_wrong_use(judged: Judged, published: Published, tmp_path: Path) -> None:
    """What is not there, or is something else, is 2; a repository without a verdict is 3."""
    assert judged.run("attest", "sign", FORK).exit_code == 2
    judged.key()
    key = published.key
    known = ("attest", "verify", str(published.bundle), "--public-key", str(key))
    text = tmp_path / "text.json"
    text.write_text("{}")
    for arguments in (
        ("attest", "sign", str(text)),
        ("attest", "verify", str(tmp_path / "none"), "--public-key", str(key)),
        (*known, "--public-key", str(tmp_path / "none")),
        (*known, "--scan", str(text)),
        (*known, "--repo-path", str(text)),
    ):
        assert judged.run(*arguments).exit_code == 2, arguments
    assert judged.run("attest", "sign", "nobody/knows").exit_code == 3


def test_a_release_is_known_by_its_content(judged: Judged, tmp_path: Path) -> None:
    """A verdict against other files of the same name and commit is not told with those that are pinned."""
    key, site = judged.key(), judged.build()
    scan = json.loads((site / f"{PAGE}.json").read_text())
    scan["original"]["root_digest"] = "sha256:" + "e" * 64
    other = tmp_path / "other.json"
    other.write_text(json.dumps(scan))
    stores = [judged.run("attest", "sign", str(other))]
    with closing(sqlite3.connect(judged.state / "forkwatch.db")) as database, database:
        database.execute("UPDATE release SET root_digest = ?", ("sha256:" + "f" * 64,))
    stores.append(judged.run("attest", "sign", FORK))

    for signed in stores:
        assert signed.exit_code == 0, signed.stderr
        file = tmp_path / "signed.json"
        file.write_text(signed.stdout)
        code, shown = verify(judged, file, "--public-key", str(key))
        predicate = shown["predicate"]
        assert (code, predicate["snapshot"]["weights"], predicate["stages"]) == (0, [], [])
        assert predicate["safety"]["suite_digest"] is None


def test_a_public_key_that_was_written_by_half(judged: Judged) -> None:
    """A write that was cut short is made good by the next use of the key, and leaves nothing else behind."""
    key = judged.key()
    (kept,) = (judged.state / "attest").glob("*.pem")
    kept.write_bytes(key.read_bytes()[:40])

    assert judged.run("attest", "key").exit_code == 0
    assert kept.read_bytes() == key.read_bytes()
    assert {file.name for file in (judged.state / "attest").iterdir()} == {"operator.key", kept.name}
