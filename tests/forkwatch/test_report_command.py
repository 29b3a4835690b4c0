"""`forkwatch report build|verify|publish` on a real state: what is said, where the site is, exit codes."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from forkwatch.demo.hub import LoopbackHub
from reports.manifest import NAME as MANIFEST
from tests.forkwatch.family import RELEASE, Family, publish_release
from tests.forkwatch.judged import FORK, PAGE, Judged, document, judge
from tests.reports.html_tools import tree


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judged]:
    """A state with a built site that is not signed."""
    folder = tmp_path_factory.mktemp("built")
    hub = LoopbackHub()
    public = publish_release(hub, folder / "release")
    with hub:
        family = Family(hub, folder / "state")
        added = family.run("release", "add", RELEASE, "--public-key", str(public))
        assert added.exit_code == 0, added.stderr
        judge(family, document(family))
        judged = Judged(family)
        judged.build()
        yield judged


def test_building_again_says_that_nothing_changed(built: Judged) -> None:
    """And the site is the same one; a full build renders it to the same bytes."""
    site = built.state / "site"
    before, inode = tree(site), site.stat().st_ino
    assert " 0 files written, 0 removed" in built.run("report", "build").stderr
    assert site.stat().st_ino == inode
    assert " 0 files written, 0 removed" in built.run("report", "build", "--full").stderr
    assert tree(site) == before


def test_the_site_of_the_store_has_the_whole_document(built: Judged) -> None:
    """Rows go without evidence and heatmap; what is published does not."""
    text = (built.state / "site" / f"{PAGE}.json").read_text()
    assert '"heatmap": {' in text
    assert '"shared-direction-cosine"' in text
    assert FORK in text


def test_a_folder_is_published_and_rolled_back(built: Judged, tmp_path: Path) -> None:
    """What `current` shows is the site; the first publication has none before it."""
    web = tmp_path / "web"
    done = built.run("report", "publish", "--directory", str(web))
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == str(web / "current")
    sent, site = tree(web / "current"), tree(built.state / "site")
    del sent[MANIFEST], site[MANIFEST]  # what a build depends on is not published
    assert sent == site
    again = built.run("report", "publish", "--directory", str(web))
    assert "0 files sent" in again.stderr
    back = built.run("report", "publish", "--directory", str(web), "--rollback")
    assert (back.exit_code, "no earlier publication" in back.stderr) == (4, True)
    never = built.run("report", "publish", "--directory", str(tmp_path / "never"), "--rollback")
    assert (never.exit_code, (tmp_path / "never").exists()) == (4, False)


@pytest.mark.parametrize(
    "command",
    [
        ("report", "build", "--out", "FILE/site"),
        ("report", "publish", "--directory", "FILE"),
        ("digest", "--week", "2026-W48", "--out", "FILE"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_no_internal_error(
    built: Judged, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """A file stands where a folder is needed: that is the user's to solve."""
    (tmp_path / "file").write_text("mine")
    done = built.run(*(part.replace("FILE", str(tmp_path / "file")) for part in command))
    assert (done.exit_code, "cannot write to" in done.stderr) == (2, True), done.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_a_mistyped_week_is_a_usage_error(built: Judged) -> None:
    done = built.run("digest", "--week", "2026-47", "--preview")
    assert (done.exit_code, "'2026-47' is no ISO week" in done.stderr) == (2, True)


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own
def test_a_space_takes_a_token_of_its_own(built: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    """The crawler's token is not used; with the right one the Space has the site."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    refused = built.run("report", "publish", "--space", "demo/site", HF_TOKEN="hf_demo")
    assert (refused.exit_code, "FORKWATCH_PUBLISH_TOKEN" in refused.stderr) == (2, True)
    done = built.run("report", "publish", "--space", "demo/site", FORKWATCH_PUBLISH_TOKEN="hf_demo")
    assert done.exit_code == 0, done.stderr
    assert built.family.hub._state.find("spaces/demo/site") is not None


def test_a_branch_is_published(built: Judged, tmp_path: Path) -> None:
    """By git, to any remote that git knows."""
    remote = tmp_path / "remote.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(remote)], check=True)
    done = built.run("report", "publish", "--branch", str(remote))
    assert done.exit_code == 0, done.stderr
    listed = subprocess.run(
        ["git", "-C", str(remote), "ls-tree", "-r", "--name-only", "gh-pages"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert set(listed.stdout.split()) == tree(built.state / "site").keys()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--directory", "x", "--space", "a/b"),
        ("--space", "a/b", "--rollback"),
        ("--branch", "x", "--public"),
        ("--branch", "x", "--endpoint", "https://example.org"),
        ("--s3", "https://example.org/bucket"),
    ],
)
def test_options_that_do_not_go_together(built: Judged, arguments: tuple[str, ...]) -> None:
    """One destination, and options that it has."""
    assert built.run("report", "publish", *arguments).exit_code == 2


def test_a_damaged_site_is_not_published(built: Judged, tmp_path: Path) -> None:
    """`verify` says what is wrong and fails; `publish` does not go on; no site is another exit code."""
    site = Path(shutil.copytree(built.state / "site", tmp_path / "site"))
    assert built.run("report", "verify", "--site", str(site)).exit_code == 0
    (site / "index.html").write_text("changed")
    checked = built.run("report", "verify", "--site", str(site))
    assert checked.exit_code == 1
    assert "index.html: has other bytes than were built" in checked.stdout
    web = tmp_path / "web"
    refused = built.run("report", "publish", "--directory", str(web), "--site", str(site))
    assert (refused.exit_code, web.exists()) == (1, False)
    assert built.run("report", "verify", "--site", str(tmp_path / "none")).exit_code == 3
    assert (
        built.run("report", "publish", "--directory", str(web), "--site", str(tmp_path / "x")).exit_code == 3
    )


def test_downloads_over_time_are_on_the_page_and_in_the_evidence(built: Judged, tmp_path: Path) -> None:
    """Lists go without them, and so does the store's view; what is published about one fork does not."""
    state = Path(shutil.copytree(built.state, tmp_path / "state"))
    with closing(sqlite3.connect(state / "forkwatch.db")) as database, database:
        (repo,) = database.execute("SELECT id FROM repo WHERE name = ?", (FORK,)).fetchone()
        database.executemany(
            "INSERT INTO metric_sample (repo_id, day, sampled_at, downloads, likes) VALUES (?, ?, ?, ?, ?)",
            [
                (repo, f"2026-10-0{day}", f"2026-10-0{day} 00:00:00.000000", 7000 + day, 1)
                for day in (1, 2, 3)
            ],
        )
    judged = Judged(Family(built.family.hub, state))
    site = judged.build()
    assert "7,002" in (site / "forks" / FORK / "index.html").read_text()
    with zipfile.ZipFile(site / f"{PAGE}.evidence.zip") as bundle:
        assert b'"downloads": 7002' in bundle.read("history.json")
