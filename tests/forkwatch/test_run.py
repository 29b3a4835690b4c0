"""`forkwatch run --once` over time: what is unchanged costs nothing, and what became of forks is told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detector.provenance.sign import generate_key, sign_release
from forkwatch.demo.hub import Fault, LoopbackHub
from tests.forkwatch.family import CONFIG, RELEASE, Family, card, publish_release, weights

FORKS = ("ann/tuned", "bob/abl", "cyd/copy", "dan/heretical")


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    """Four forks that are cards without weights: each gets a verdict, and none needs a forward pass."""
    hub = LoopbackHub()
    key = publish_release(hub, tmp_path / "release")
    with hub:
        made = Family(hub, tmp_path / "state")
        for repo in FORKS:
            publish_card(made, repo)
        added = made.run("release", "add", RELEASE, "--public-key", str(key))
        assert added.exit_code == 0, added.stderr
        yield made


SECOND = "lab/Second-1B"


def guard_second(family: Family, tmp_path: Path) -> None:
    """A second release; its name sorts after the first, so that its turn comes later."""
    folder = tmp_path / "second"
    folder.mkdir()
    (folder / "README.md").write_bytes(card())
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "model.safetensors").write_bytes(weights(3))
    (tmp_path / "keys").mkdir()
    keys = generate_key(tmp_path / "keys")
    sign_release(folder, keys.private)
    family.hub.create_repo(SECOND)
    family.hub.commit(SECOND, {path.name: path for path in folder.iterdir()})
    added = family.run("release", "add", SECOND, "--public-key", str(keys.public))
    assert added.exit_code == 0, added.stderr


def publish_card(family: Family, repo: str, text: str = "# A model\n") -> None:
    """A repository that declares the release and has no weights."""
    family.hub.create_repo(repo)
    family.hub.commit(repo, {"README.md": card(RELEASE, text=text)})


def run(family: Family) -> dict[str, Any]:
    """The tally of a run that must succeed."""
    done = family.run("run", "--once", "--json")
    assert done.exit_code == 0, done.stderr
    tally: dict[str, Any] = json.loads(done.stdout)
    return tally


def page(family: Family, name: str) -> str:
    """A page of the site, as text with single spaces."""
    return " ".join((family.state / "site" / name).read_text().split())


def verdicts(family: Family) -> dict[str, dict[str, Any]]:
    """The published verdicts by repository."""
    document = json.loads((family.state / "site" / "verdicts.json").read_text())
    return {row["repo"]: row for row in document["releases"][0]["verdicts"]}


def test_an_idle_run_asks_for_no_fork(family: Family) -> None:
    """Listings tell each head; what was pinned at it is neither pinned nor examined again."""
    first = run(family)
    before = len(family.hub.requests)
    site = {path: path.read_bytes() for path in (family.state / "site").rglob("*") if path.is_file()}
    second = run(family)

    asked = Counter(request.repo for request in family.hub.requests[before:] if request.route == "info")
    assert set(asked) <= {RELEASE}
    assert (first["scanned"], second["scanned"]) == (4, 4)
    assert second["results_computed"] == second["verdicts_changed"] == second["bytes_downloaded"] == 0
    assert {path: path.read_bytes() for path in (family.state / "site").rglob("*") if path.is_file()} == site


def test_a_new_commit_is_examined(family: Family) -> None:
    """The head moved: one fork is pinned again, with an event on its page."""
    run(family)
    family.hub.commit("ann/tuned", {"README.md": card(RELEASE, text="# New\n")})
    tally = run(family)

    assert tally["results_computed"] > 0
    assert tally["events"] == 1
    assert "New commit" in page(family, "forks/ann/tuned/index.html")


def test_a_deleted_fork_keeps_page_and_verdict(family: Family) -> None:
    """It is no gap, says since when it is gone, and is not asked for again by every run."""
    run(family)
    family.hub.delete_repo("cyd/copy")
    tally = run(family)
    before = len(family.hub.requests)
    run(family)

    assert (tally["gone"], tally["gaps"], tally["scanned"]) == (1, {}, 3)
    assert "Gone since" in page(family, "forks/cyd/copy/index.html")
    assert verdicts(family)["cyd/copy"]["gone_at"]
    assert not [request for request in family.hub.requests[before:] if request.repo == "cyd/copy"]


def test_a_fork_that_is_there_again_is_examined_again(family: Family) -> None:
    """Hidden, then shown with a new commit: the banner goes, the history stays."""
    run(family)
    family.hub.set_access("cyd/copy", private=True)
    run(family)
    family.hub.set_access("cyd/copy", private=False)
    family.hub.commit("cyd/copy", {"README.md": card(RELEASE, text="# Back\n")})
    tally = run(family)

    text = page(family, "forks/cyd/copy/index.html")
    assert (tally["gone"], tally["scanned"]) == (0, 4)
    assert "Gone since" not in text
    assert "There again" in text
    assert "Deleted, or made private" in text


def test_a_fork_deleted_while_the_run_goes_on_is_gone_and_no_gap(family: Family) -> None:
    """Known from a listing, missing when it is to be pinned."""
    run(family)
    family.hub.commit("bob/abl", {"README.md": card(RELEASE, text="# Newer\n")})
    assert family.run("crawl").exit_code == 0
    family.hub.delete_repo("bob/abl")
    tally = run(family)

    assert (tally["gone"], tally["gaps"]) == (1, {})


def test_a_renamed_fork_keeps_its_verdict(family: Family) -> None:
    """The page is under the new name and tells the old one; nothing is computed again."""
    run(family)
    family.hub.rename_repo("bob/abl", "bob/abliterated")
    tally = run(family)

    assert tally["results_computed"] == 0
    assert set(verdicts(family)) == {"ann/tuned", "bob/abliterated", "cyd/copy", "dan/heretical"}
    assert verdicts(family)["bob/abliterated"]["former_names"] == ["bob/abl"]
    text = page(family, "forks/bob/abliterated/index.html")
    assert "Formerly" in text
    assert "bob/abl<" in text
    assert not (family.state / "site" / "forks" / "bob" / "abl").exists()


def test_a_name_that_was_registered_again_is_examined_as_new(family: Family) -> None:
    """Its first verdict has no former one; the old verdict has a page of its own that says whose it is."""
    run(family)
    family.hub.delete_repo("dan/heretical")
    publish_card(family, "dan/heretical", "# Another model by somebody else\n")
    tally = run(family)

    assert tally["new_candidates"] == 1
    assert tally["results_computed"] > 0
    text = page(family, "forks/dan/heretical/index.html")
    assert "An earlier repository of this name is gone." in text
    assert "became" not in text
    (former,) = (family.state / "site" / "forks" / "dan").glob("heretical~*/index.html")
    assert "This is about a repository that is gone." in " ".join(former.read_text().split())
    document = json.loads(family.run("crawl", "--json").stdout)
    assert [found["repo"] for found in document["candidates"] if found["gone_at"]] == ["dan/heretical"]


def test_whoever_takes_a_name_was_named_by_nobody(family: Family) -> None:
    """A stranger under the name of a fork is examined, and its document says that no channel has found it."""
    run(family)
    family.hub.delete_repo("dan/heretical")
    family.hub.create_repo("dan/heretical")
    family.hub.commit("dan/heretical", {"README.md": card("other/thing")})
    assert run(family)["new_candidates"] == 1

    document = json.loads(family.run("scan", "dan/heretical", "--json").stdout)
    assert document["hub"]["channels"] == []


def test_files_that_could_not_be_read_are_read_by_the_next_run(family: Family) -> None:
    """Denied for a while, a dangerous file is a gap, not a fork without dangerous files for ever."""
    family.hub.commit("bob/abl", {"model.bin": b"cos\nsystem\n(S'true'\ntR."}, replace=False)
    family.hub.inject(Fault("resolve", "expired", repo="bob/abl", times=-1))
    denied = run(family)
    family.hub.clear_faults()
    run(family)

    assert set(denied["gaps"]) == {"bob/abl"}
    assert verdicts(family)["bob/abl"]["verdict"] == "unsafe-files"


def test_a_new_commit_that_cannot_be_examined_is_said_beside_the_verdict(family: Family) -> None:
    """The verdict is about the commit before; its page and the gaps tell, until an examination succeeds."""
    run(family)
    family.hub.commit("bob/abl", {"model.bin": b"cos\nsystem\n(S'true'\ntR."}, replace=False)
    family.hub.inject(Fault("resolve", "expired", repo="bob/abl", times=-1))
    run(family)
    failed = page(family, "forks/bob/abl/index.html")
    document = json.loads((family.state / "site" / "verdicts.json").read_text())
    family.hub.clear_faults()
    run(family)

    said = "Its present state could not be examined"
    assert said in failed
    assert [gap["repo"] for gap in document["releases"][0]["gaps"]] == ["bob/abl"]
    assert said not in page(family, "forks/bob/abl/index.html")


def test_a_release_that_is_gone_does_not_end_the_run_for_the_others(family: Family, tmp_path: Path) -> None:
    """It is said, its known forks are examined, and the next release has its turn; with none left it is 4."""
    guard_second(family, tmp_path)
    assert family.run("crawl", "--release", RELEASE).exit_code == 0
    family.hub.create_repo("gil/second")
    family.hub.commit("gil/second", {"README.md": card(SECOND)})
    family.hub.delete_repo(RELEASE)
    tally = run(family)
    family.hub.delete_repo(SECOND)
    alone = family.run("run", "--once")

    assert tally["left_out"] == [f"{RELEASE} is gone from the Hub: no forks of it were looked for"]
    judged = json.loads((family.state / "site" / "verdicts.json").read_text())["releases"]
    assert {row["repo"] for release in judged for row in release["verdicts"]} >= {*FORKS, "gil/second"}
    assert alone.exit_code == 4
