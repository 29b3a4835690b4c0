"""A guarded release with one fork, on a hub where the release changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detector.provenance.sign import sign_release
from forkwatch.demo.hub import LoopbackHub
from tests.forkwatch.family import CONFIG, OLDER, RELEASE, Family, card, publish_release, weights


@contextmanager
def guarded(tmp_path: Path) -> Iterator[Family]:
    """The release trusts one key; the fork is a card without weights."""
    hub = LoopbackHub()
    key = publish_release(hub, tmp_path / "release")
    with hub:
        made = Family(hub, tmp_path / "state")
        hub.create_repo("ann/tuned")
        hub.commit("ann/tuned", {"README.md": card(RELEASE)})
        added = made.run("release", "add", RELEASE, "--public-key", str(key))
        assert added.exit_code == 0, added.stderr
        yield made


def push(family: Family, tmp_path: Path, *, key: Path | None, marker: int = 2) -> str:
    """A new commit of the release, signed with a key or not at all; its id."""
    folder = tmp_path / f"next-{marker}"
    folder.mkdir()
    (folder / "README.md").write_bytes(card(OLDER))
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "model.safetensors").write_bytes(weights(marker))
    if key is not None:
        sign_release(folder, key)
    return family.hub.commit(RELEASE, {path.name: path for path in folder.iterdir()})


def put_back(family: Family, tmp_path: Path) -> str:
    """The release's first files again, as a commit."""
    return family.hub.commit(RELEASE, {path.name: path for path in (tmp_path / "release").iterdir()})


def check(family: Family, repo: str = RELEASE) -> tuple[int, dict[str, Any]]:
    """`release check`: exit code, and what it says of the release."""
    done = family.run("release", "check", repo, "--json")
    assert done.stdout, done.stderr
    (release,) = json.loads(done.stdout)["releases"]
    return done.exit_code, release


def kinds(release: dict[str, Any]) -> list[str]:
    """What there is to decide."""
    return [event["kind"] for event in release["to_decide"]]


def asked(family: Family, repo: str = RELEASE) -> list[str]:
    """What a look leaves to decide; the exit code agrees."""
    code, release = check(family, repo)
    assert code == (1 if release["to_decide"] else 0)
    return kinds(release)
