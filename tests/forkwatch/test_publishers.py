"""Every destination: what differs is sent, readers meet a whole site, others' things are left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from forkwatch.demo.hub import Fault, LoopbackHub
from forkwatch.publish.branch import BranchPublisher
from forkwatch.publish.directory import DirectoryPublisher
from forkwatch.publish.interface import ChangedError, NotOursError, Publisher, PublishError
from forkwatch.publish.space import SpacePublisher
from reports.manifest import NAME, Manifest, record
from tests.reports.html_tools import tree

FIRST = {"index.html": b"one", "forks/a/index.html": b"A", "forks/b/index.html": b"B", ".nojekyll": b""}
SECOND = {"index.html": b"two", "forks/a/index.html": b"A", "forks/c/index.html": b"C", ".nojekyll": b""}


def make(folder: Path, files: Mapping[str, bytes]) -> tuple[Path, Manifest]:
    """A site of these files."""
    folder.mkdir()
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    manifest = Manifest({path: record("key", data) for path, data in files.items()}, "templates")
    (folder / NAME).write_text(manifest.to_text())
    return folder, manifest


@pytest.fixture
def one(tmp_path: Path) -> tuple[Path, Manifest]:
    return make(tmp_path / "one", FIRST)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Manifest]:
    return make(tmp_path / "two", SECOND)


def directory(root: Path, keep: int = 5) -> DirectoryPublisher:
    """With a clock that goes on by a second each time."""
    start = datetime(2026, 11, 30, tzinfo=UTC)
    ticks = iter(range(10_000))
    return DirectoryPublisher(root, lambda: start + timedelta(seconds=next(ticks)), keep)


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, check=True, text=True)
    return done.stdout


def check_incremental(publisher: Publisher, one: tuple[Path, Manifest], two: tuple[Path, Manifest]) -> None:
    """First all, then what differs, then nothing."""
    first = publisher.publish(*one)
    assert (first.sent, first.removed, first.kept) == (4, 0, 0)
    second = publisher.publish(*two)
    assert (second.sent, second.removed, second.kept, second.sent_bytes) == (2, 1, 2, 4)
    assert not publisher.publish(*two).changed


def test_a_directory_gets_what_differs(tmp_path, one, two):
    """`current` is the whole new site; what did not change is the same file in both publications."""
    root = tmp_path / "web"
    check_incremental(directory(root), one, two)
    assert tree(root / "current") == tree(two[0])
    old, new = sorted((root / "releases").iterdir())
    assert (old / "forks/a/index.html").stat().st_ino == (new / "forks/a/index.html").stat().st_ino
    assert tree(old) == tree(one[0])


def test_a_directory_goes_back_and_forgets(tmp_path, one, two):
    """A rollback shows the site before, byte for byte; no more publications stay than were asked for."""
    publisher = directory(tmp_path / "web", keep=2)
    publisher.publish(*one)
    publisher.publish(*two)
    publisher.rollback()
    assert tree(tmp_path / "web/current") == tree(one[0])
    with pytest.raises(PublishError, match="no earlier"):
        publisher.rollback()
    publisher.publish(*two)
    publisher.publish(*one)
    assert len(list((tmp_path / "web/releases").iterdir())) == 2


@pytest.mark.parametrize("foreign", ["folder", "link"])
def test_a_directory_of_others_is_left_alone(tmp_path, one, foreign):
    """What is at `current` and is not ours stays."""
    root = tmp_path / "web"
    (root / "thesis").mkdir(parents=True)
    (root / "thesis/index.html").write_text("mine")
    if foreign == "link":
        (root / "current").symlink_to("thesis")
    else:
        (root / "thesis").rename(root / "current")
    with pytest.raises(NotOursError):
        directory(root).publish(*one)
    assert (root / "current/index.html").read_text() == "mine"


def test_a_file_that_was_changed_after_the_build_is_not_published(tmp_path, one):
    """The manifest says what a file is; another one is an error, and nothing is published."""
    (one[0] / "index.html").write_bytes(b"someone else's")
    with pytest.raises(PublishError, match=r"index\.html is not what was built"):
        directory(tmp_path / "web").publish(*one)
    assert not (tmp_path / "web/current").exists()


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    git("init", "--quiet", "--bare", str(tmp_path / "remote.git"))
    return tmp_path / "remote.git"


def branch(tmp_path: Path, bare: Path, cache: str = "cache.git") -> BranchPublisher:
    return BranchPublisher(str(bare), tmp_path / cache)


def published(bare: Path) -> dict[str, bytes]:
    """The branch's files."""
    names = git("-C", str(bare), "ls-tree", "-r", "--name-only", "gh-pages").split()
    return {name: git("-C", str(bare), "show", f"gh-pages:{name}").encode() for name in names}


def test_a_branch_is_one_commit_with_the_whole_site(tmp_path, bare, one, two):
    """No history piles up; a second machine, without our cache, goes on from what is published."""
    check_incremental(branch(tmp_path, bare), one, two)
    assert git("-C", str(bare), "rev-list", "--count", "gh-pages").strip() == "1"
    assert published(bare) == tree(two[0])
    assert branch(tmp_path, bare, "other.git").publish(*one).sent == 2
    assert published(bare) == tree(one[0])


def test_a_cache_that_was_half_made_is_made(tmp_path, bare, one):
    """`git init` that was killed leaves a HEAD and no repository."""
    (tmp_path / "cache.git").mkdir()
    (tmp_path / "cache.git" / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / "cache.git" / "config.lock").touch()
    branch(tmp_path, bare).publish(*one)
    assert published(bare) == tree(one[0])


def test_a_branch_of_others_is_left_alone(tmp_path, bare, one, monkeypatch):
    """Neither a foreign branch nor one that moved between our look and our push is overwritten."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "index.html").write_text("theirs")
    who = ("-c", "user.name=x", "-c", "user.email=x@x")
    for command in (
        ["init", "--quiet", "-b", "gh-pages"],
        ["add", "."],
        [*who, "commit", "--quiet", "-m", "x"],
        ["push", "--quiet", str(bare), "gh-pages"],
    ):
        git("-C", str(work), *command)
    with pytest.raises(NotOursError):
        branch(tmp_path, bare).publish(*one)
    monkeypatch.setattr(BranchPublisher, "_tip", lambda _: None)  # as seen before they pushed
    with pytest.raises(ChangedError):
        branch(tmp_path, bare).publish(*one)
    assert published(bare) == {"index.html": b"theirs"}


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with LoopbackHub() as running:
        yield running


def space(hub: LoopbackHub) -> SpacePublisher:
    return SpacePublisher(hub.endpoint, "demo/site", SecretStr("hf_demo"))


def in_space(hub: LoopbackHub) -> dict[str, bytes]:
    """Files of the Space but its card."""
    repo = hub._state.find("spaces/demo/site")
    assert repo is not None
    assert repo.private
    return {path: blob.read(0, 1 << 20) for path, blob in repo.head.files.items() if path != "README.md"}


def test_a_space_gets_new_pages_first_and_the_rest_at_once(tmp_path, hub, one, two):
    """By the real client: pages that nothing links to, then one commit; a private Space; then nothing."""
    check_incremental(space(hub), one, two)
    assert in_space(hub) == tree(two[0])
    routes = [asked.route for asked in hub.requests if asked.route in ("create-repo", "commit")]
    assert routes == ["create-repo", "commit", "commit", "create-repo", "commit", "commit", "create-repo"]


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own
def test_a_space_takes_large_files(tmp_path, hub):
    """Archives, and whatever is over the Hub's limit, go by LFS, before the commit that names them."""
    large = {"api/v1/forks/a.evidence.zip": b"zip", "verdicts.json": b"[" + b" " * (11 << 20) + b"]"}
    space(hub).publish(*make(tmp_path / "large", FIRST | large))
    assert in_space(hub) == tree(tmp_path / "large") | {"verdicts.json": large["verdicts.json"][: 1 << 20]}
    sent = [asked.route for asked in hub.requests if asked.route in ("lfs-upload", "commit")]
    assert sent == ["lfs-upload", "commit", "lfs-upload", "commit"]
    repo = hub._state.find("spaces/demo/site")
    assert {path for path, blob in repo.head.files.items() if blob.sha256} == set(large)
    hub.inject(Fault("lfs-upload", "500", times=-1))
    with pytest.raises(PublishError):
        space(hub).publish(
            *make(tmp_path / "next", FIRST | large | {"index.html": b"2", "forks/z.zip": b"z"})
        )
    assert in_space(hub)["index.html"] == FIRST["index.html"]


@pytest.mark.parametrize("after", [0, 1])
def test_a_space_stays_as_it_was_when_a_commit_fails(hub, one, two, after):
    """Whatever commit is lost, no file of the published site has changed; the next run completes it."""
    space(hub).publish(*one)
    hub.inject(Fault("commit", "500", times=-1, after=after))
    with pytest.raises(PublishError):
        space(hub).publish(*two)
    now = in_space(hub)
    assert {path: now[path] for path in tree(one[0])} == tree(one[0])
    hub.clear_faults()
    space(hub).publish(*two)
    assert in_space(hub) == tree(two[0])


KILLED = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from forkwatch.publish.branch import BranchPublisher
from forkwatch.publish.directory import DirectoryPublisher
from reports.manifest import read_manifest
kind, place, cache, *sites = sys.argv[1:]
made = {
    "directory": lambda: DirectoryPublisher(Path(place), lambda: datetime.now(UTC), 2),
    "branch": lambda: BranchPublisher(place, Path(cache)),
}[kind]()
print("ready", flush=True)
for turn in range(10_000):
    site = Path(sites[turn % 2])
    made.publish(site, read_manifest(site))
"""


@pytest.mark.parametrize("kind", ["directory", "branch"])
def test_kill_leaves_a_whole_site_and_the_next_run_completes(tmp_path, bare, one, two, kind):
    """A publisher killed at random moments leaves one of two sites, byte for byte, and no obstacle."""
    place = bare if kind == "branch" else tmp_path / "web"
    whole = [tree(one[0]), tree(two[0])]
    root = Path(__file__).parents[2]
    seed = random.Random(8)
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, kind, *map(str, (place, tmp_path / "c.git", one[0], two[0]))],
            stdout=subprocess.PIPE,
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root)},
            start_new_session=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(0.05 + 0.2 * seed.random())
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        if kind == "directory" and (place / "current").exists():
            assert tree(place / "current") in whole
        if kind == "branch" and git("-C", str(bare), "branch", "--list", "gh-pages"):
            assert published(bare) in whole
    publisher = branch(tmp_path, bare, "c.git") if kind == "branch" else directory(tmp_path / "web")
    publisher.publish(*one)
    assert (published(bare) if kind == "branch" else tree(tmp_path / "web/current")) == whole[0]
