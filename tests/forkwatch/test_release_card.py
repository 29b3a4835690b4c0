"""A release card is measured on these files, signed with them, and shown by whoever guards the release."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from detector.provenance.sign import generate_key, sign_release
from forkwatch.demo.hub import LoopbackHub
from tests.forkwatch.family import RELEASE, Family, card
from tests.forkwatch.release_folder import make_folder, shown, sign, write_card


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return generate_key(tmp_path / "keys").private


def test_a_card_that_is_not_measured(folder: Path, key: Path, tmp_path: Path) -> None:
    """It says so, is covered by the signature, and is not taken for a measurement."""
    done = write_card(folder, "--language", "en", "--contact", "safety@lab.example", "--removed-below", "0.4")
    assert done.exit_code == 0, done.stderr
    assert "not measured" in done.stderr
    written = json.loads((folder / "forkwatch-release.json").read_text())
    assert written["baseline"] == {"unmeasured": "the publisher did not measure it"}
    assert written["thresholds"] == {"degraded_drop": 0.15, "removed_below": 0.4}
    assert "forkwatch-release.json" in shown(sign(folder, "--private-key", str(key), "--json"))["files"]
    assert write_card(folder).exit_code == 2
    assert write_card(folder, "--force", "--name", "x" * 201).exit_code == 2
    assert write_card(folder, "--force", "--measure", "--baseline", str(key)).exit_code == 2
    assert write_card(folder, "--force", "--baseline", str(folder / "forkwatch-release.json")).exit_code == 2
    assert json.loads((folder / "forkwatch-release.json").read_text()) == written


def test_a_measured_card(family: Path, folder: Path, key: Path) -> None:
    """The baseline is that of these files: it moves to another card of theirs, and to none of others."""
    shutil.rmtree(folder)
    shutil.copytree(
        family / "repos" / "lab" / "tiny-chat", folder, ignore=shutil.ignore_patterns("model.sig")
    )
    suite = str(family / "suite.json")
    done = write_card(folder, "--measure", "--suite", suite)
    assert done.exit_code == 0, done.stderr
    place = folder / "forkwatch-release.json"
    baseline = json.loads(place.read_text())["baseline"]
    assert baseline["refusal"]["n"] > 0
    assert baseline["refusal"]["rate"] > baseline["over_refusal"]["rate"]
    assert baseline["suite_digest"].startswith("sha256:")
    assert baseline["judge"]

    measured = folder.parent / "measured.json"
    place.rename(measured)
    assert write_card(folder, "--baseline", str(measured)).exit_code == 0
    assert json.loads(place.read_text())["baseline"] == baseline
    document = shown(sign(folder, "--private-key", str(key), "--json"))
    assert "forkwatch-release.json" in document["files"]
    (folder / "config.json").write_bytes(b"{}")
    done = write_card(folder, "--baseline", str(measured), "--force")
    assert done.exit_code == 2
    assert "other files" in done.stderr


@pytest.fixture
def hub() -> LoopbackHub:
    hub = LoopbackHub()
    hub.create_repo(RELEASE)
    return hub


def publish(hub: LoopbackHub, folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    hub.commit(RELEASE, {path.relative_to(folder).as_posix(): path for path in files})


def test_a_guarded_release_shows_its_card(hub: LoopbackHub, folder: Path, key: Path) -> None:
    """Covered by a verified signature it is listed and on the release's page, as text."""
    write_card(folder)
    shown(sign(folder, "--private-key", str(key), "--json"))
    publish(hub, folder)
    with hub:
        family = Family(hub, folder.parent / "state")
        added = family.run("release", "add", RELEASE, "--public-key", str(key.with_suffix(".pub")))
        assert added.exit_code == 0, added.stderr
        family.fork("ann/tuned", card(RELEASE))
        (listed,) = json.loads(family.run("release", "list", "--json").stdout)["releases"]
    assert listed["card"]["license"] == "apache-2.0"
    assert listed["card"]["baseline"] == {"unmeasured": "the publisher did not measure it"}


def test_a_card_that_nobody_would_believe(hub: LoopbackHub, folder: Path, key: Path) -> None:
    """Malformed: not signed here; signed elsewhere, left out and said; the release is guarded."""
    (folder / "forkwatch-release.json").write_text("{}")
    assert sign(folder, "--private-key", str(key)).exit_code == 2
    assert not (folder / "model.sig").exists()
    sign_release(folder, key)
    publish(hub, folder)
    with hub:
        family = Family(hub, folder.parent / "state")
        added = family.run("release", "add", RELEASE, "--public-key", str(key.with_suffix(".pub")))
        assert added.exit_code == 0, added.stderr
        done = family.run("release", "list", "--json")
    assert json.loads(done.stdout)["releases"][0]["card"] is None
    assert "release card is malformed" in done.stderr
