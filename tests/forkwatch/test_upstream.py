"""What becomes of a guarded release upstream is an event for a human, once, and is never adopted silently."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from detector.provenance.sign import generate_key, sign_release
from forkwatch.demo.hub import LoopbackHub
from tests.forkwatch.family import CONFIG, RELEASE, Family, card, weights
from tests.forkwatch.guarded import check, guarded, kinds, push, put_back

LARGE = weights(2, rows=400_000)
"""Above the size from which the loopback hub keeps a file as LFS, as the Hub does."""


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    with guarded(tmp_path) as made:
        yield made


def test_nothing_to_decide(family: Family) -> None:
    """At the pinned commit a check is one call, and exits with 0."""
    before = len(family.hub.requests)

    assert check(family)[0] == 0
    assert len(family.hub.requests) - before == 1


def test_a_new_commit_is_an_event_once(family: Family, tmp_path: Path) -> None:
    """Two runs and a check note it once; the pin stays; page and digest ask for a decision."""
    (pinned,) = json.loads(family.run("release", "list", "--json").stdout)["releases"]
    commit = push(family, tmp_path, key=tmp_path / "release.key")
    tallies = [json.loads(family.run("run", "--once", "--json").stdout) for _ in range(2)]
    code, release = check(family)

    assert [len(tally["to_decide"]) for tally in tallies] == [1, 1]
    assert (code, release["new"], kinds(release)) == (1, 0, ["new-commit"])
    (event,) = release["to_decide"]
    assert (event["before"], event["after"]) == (pinned["commit"], commit)
    assert event["note"] == "Signed by the same signer; 1 of its files differ: model.safetensors."
    assert json.loads(family.run("release", "list", "--json").stdout)["releases"] == [
        {**pinned, "to_decide": 1}
    ]
    site = family.state / "site"
    pages = [next(site.glob("releases/**/*.html")), next(site.glob("digest/*.html"))]
    for text in (page.read_text() for page in pages):
        assert "Signed by the same signer" in text
        assert "decision" in text


def test_weights_are_not_downloaded(family: Family, tmp_path: Path) -> None:
    """Signature and differing files are told from a few kilobytes."""
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "model.safetensors").write_bytes(LARGE)
    sign_release(folder, tmp_path / "release.key")
    family.hub.commit(RELEASE, {path.name: path for path in folder.iterdir()})
    before = len(family.hub.requests)
    _, release = check(family)

    asked = {request.path.rpartition("/")[2] for request in family.hub.requests[before:]}
    assert kinds(release) == ["new-commit"]
    assert "model.sig" in asked
    assert "model.safetensors" not in asked


def test_a_card_that_nobody_signs_needs_no_decision(family: Family) -> None:
    """The release's files and its bundle are the same: it is on record, and asks for nothing."""
    family.hub.commit(RELEASE, {"README.md": card(text="# Typo\n")}, replace=False)

    assert check(family) == (0, {**check(family)[1], "new": 1, "to_decide": []})


def test_a_new_bundle_by_another_key(family: Family, tmp_path: Path) -> None:
    """It is said that nobody trusted signed it, and how many files differ."""
    (tmp_path / "other").mkdir()
    commit = push(family, tmp_path, key=generate_key(tmp_path / "other").private)
    code, release = check(family)

    assert (code, kinds(release)) == (1, ["signature-untrusted"])
    assert "1 of its files differ" in release["to_decide"][0]["note"]
    assert family.run("release", "adopt", RELEASE, "--revision", commit).exit_code == 6


def test_a_bundle_that_is_not_about_the_files_beside_it(family: Family) -> None:
    """The old bundle over new weights: signed by the same signer, and worth nothing."""
    family.hub.commit(RELEASE, {"model.safetensors": LARGE}, replace=False)

    assert kinds(check(family)[1]) == ["signature-mismatch"]


def test_a_bundle_that_is_gone_and_comes_back(family: Family, tmp_path: Path) -> None:
    """Unsigned now; once the pinned state is back, there is nothing to decide any more."""
    commit = push(family, tmp_path, key=None)
    code, release = check(family)
    put_back(family, tmp_path)

    assert (code, kinds(release)) == (1, ["signature-removed"])
    assert release["to_decide"][0]["after"] == commit
    assert check(family)[0] == 0


def test_a_release_that_is_gone(family: Family) -> None:
    """Deleted or private: an event, the second look adds none, and the pinned copy still verifies."""
    family.hub.delete_repo(RELEASE)
    first, second = check(family), check(family)

    assert (first[0], kinds(first[1]), first[1]["new"]) == (1, ["deleted"], 1)
    assert (second[0], kinds(second[1]), second[1]["new"]) == (1, ["deleted"], 0)
    assert family.run("release", "verify").exit_code == 0


def test_a_name_that_was_registered_again(family: Family, tmp_path: Path) -> None:
    """Same name, same bytes, same key: it is another repository all the same."""
    family.hub.delete_repo(RELEASE)
    family.hub.create_repo(RELEASE)
    family.hub.commit(RELEASE, {path.name: path for path in (tmp_path / "release").iterdir()})
    code, release = check(family)

    assert code == 1
    assert "re-registered" in kinds(release)
    key = ("--public-key", str(tmp_path / "release.pub"))
    for command in (("adopt",), ("add", *key), ("add", *key, "--replace")):
        refused = family.run("release", command[0], RELEASE, *command[1:])
        assert (refused.exit_code, "--reregistered" in refused.stderr) == (2, True), refused.stderr
    assert check(family)[1]["to_decide"] == release["to_decide"]
    assert family.run("release", "adopt", RELEASE, "--reregistered").exit_code == 0
    assert check(family)[0] == 0


def test_a_renamed_release_keeps_its_row(family: Family) -> None:
    """The new name is adopted by an explicit act, and the candidates stay with the release."""
    family.hub.rename_repo(RELEASE, "labs/Guarded-1B")
    code, release = check(family)
    adopted = family.run("release", "adopt", RELEASE)
    rows = json.loads(family.run("release", "list", "--json").stdout)["releases"]

    assert (code, kinds(release)) == (1, ["renamed"])
    assert adopted.exit_code == 0, adopted.stderr
    assert [row["repo"] for row in rows] == ["labs/Guarded-1B"]


def test_a_decision_to_keep_the_pin_holds(family: Family, tmp_path: Path) -> None:
    """The same commit does not ask again; the next one does."""
    push(family, tmp_path, key=tmp_path / "release.key")
    assert check(family)[0] == 1
    assert family.run("release", "keep", RELEASE).exit_code == 0
    kept = check(family)
    push(family, tmp_path, key=tmp_path / "release.key", marker=3)
    asked = check(family)

    assert (kept[0], kept[1]["new"]) == (0, 0)
    assert (asked[0], asked[1]["new"], len(asked[1]["to_decide"])) == (1, 1, 1)
    assert family.run("release", "keep", RELEASE).exit_code == 0
    assert family.run("release", "keep", RELEASE).exit_code == 3


def test_adopting_moves_the_pin_and_keeps_the_verdicts(family: Family, tmp_path: Path) -> None:
    """Only the explicit act does; the pages say what was decided, and forks are compared with the new pin."""
    assert family.run("run", "--once").exit_code == 0
    commit = push(family, tmp_path, key=tmp_path / "release.key")
    assert check(family)[0] == 1
    adopted = family.run("release", "adopt", RELEASE, "--revision", commit)
    tally = json.loads(family.run("run", "--once", "--json").stdout)
    document = json.loads(family.run("scan", "ann/tuned", "--json").stdout)

    assert adopted.exit_code == 0, adopted.stderr
    assert check(family) == (0, {**check(family)[1], "commit": commit})
    assert tally["to_decide"] == []
    assert tally["results_computed"] > 0
    assert document["release"] == f"{RELEASE}@{commit}"
    page = next((family.state / "site").glob("releases/**/*.html")).read_text()
    assert "the pin was moved" in page


def test_what_is_adopted_is_what_was_reviewed(family: Family, tmp_path: Path) -> None:
    """Neither the head of the moment nor what a look noted after the review: the commit has to be named."""
    reviewed = push(family, tmp_path, key=tmp_path / "release.key")
    assert check(family)[0] == 1
    later = push(family, tmp_path, key=tmp_path / "release.key", marker=3)
    assert family.run("run", "--once").exit_code == 0
    refused = family.run("release", "adopt", RELEASE)

    assert refused.exit_code == 2
    assert f"--revision {later}" in refused.stderr
    assert family.run("release", "adopt", RELEASE, "--revision", reviewed).exit_code == 0
    assert check(family)[1]["commit"] == reviewed


def test_an_unsigned_release_that_gets_a_signature(family: Family, tmp_path: Path) -> None:
    """Nobody is trusted with it until somebody says so: the event asks, and the pin stays."""
    family.hub.create_repo("lab/Bare-1B")
    family.hub.commit("lab/Bare-1B", {"config.json": CONFIG, "model.safetensors": weights(5)})
    assert family.run("release", "add", "lab/Bare-1B", "--unsigned").exit_code == 0
    folder = tmp_path / "bare"
    folder.mkdir()
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "model.safetensors").write_bytes(weights(5))
    sign_release(folder, tmp_path / "release.key")
    family.hub.commit("lab/Bare-1B", {path.name: path for path in folder.iterdir()})
    done = family.run("release", "check", "lab/Bare-1B", "--json")

    assert done.exit_code == 1
    assert kinds(json.loads(done.stdout)["releases"][0]) == ["signature-added"]


def test_the_branch_that_was_named_is_watched(family: Family, tmp_path: Path) -> None:
    """Named once, it is watched after the pin has moved to a commit of it, too."""
    key = str(tmp_path / "release.pub")
    assert family.run("release", "add", RELEASE, "--public-key", key, "--revision", "main").exit_code == 0
    commit = push(family, tmp_path, key=tmp_path / "release.key")
    before = len(family.hub.requests)
    first = check(family)
    asked = [request.path for request in family.hub.requests[before:]]
    assert family.run("release", "adopt", RELEASE, "--revision", commit).exit_code == 0

    assert kinds(first[1]) == ["new-commit"]
    assert any("/revision/main" in path for path in asked)
    assert check(family)[0] == 0


def test_a_hub_that_is_down_is_no_event(family: Family) -> None:
    """What cannot be seen for the moment has not changed."""
    done = family.run("release", "check", FORKWATCH_HUB__ENDPOINT="http://127.0.0.1:9")

    assert done.exit_code == 4
    assert check(family)[0] == 0


def test_nothing_guarded(tmp_path: Path) -> None:
    """There is nothing to check, to adopt or to keep: never success."""
    family = Family(LoopbackHub(), tmp_path / "state")
    with family.hub:
        assert family.run("release", "check").exit_code == 3
        assert family.run("release", "adopt", RELEASE).exit_code == 2
        assert family.run("release", "keep", RELEASE).exit_code == 2
