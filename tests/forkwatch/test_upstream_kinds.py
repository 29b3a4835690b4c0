"""Each kind of change upstream is told from the others, over a real connection to a hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from detector.provenance.interface import KeyTrust, Trust
from detector.provenance.keys import load_public_key
from detector.provenance.sign import generate_key, sign_release
from forkwatch.cli.session import session
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.originals import add_release
from forkwatch.sections.hub import HubSettings
from forkwatch.settings import Settings
from forkwatch.state import StateDir
from forkwatch.trust import TrustPolicy
from tests.forkwatch.family import CONFIG, RELEASE, Family, card, weights
from tests.forkwatch.guarded import asked, check, guarded, kinds, push

BARE = "lab/Bare-1B"
"""A release that nobody signs."""


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    with guarded(tmp_path) as made:
        yield made


def test_a_small_signed_file_that_was_changed(family: Family) -> None:
    """The Hub reports no SHA-256 of it: it is fetched, and the old bundle does not sign it."""
    family.hub.commit(RELEASE, {"config.json": CONFIG[:-1] + b" }"}, replace=False)
    code, release = check(family)

    assert code == 1
    (event,) = release["to_decide"]
    assert event["kind"] == "signature-mismatch"
    assert "config.json" in event["note"]
    before = len(family.hub.requests)
    assert asked(family) == ["signature-mismatch"]
    assert not [each for each in family.hub.requests[before:] if "config.json" in each.path]


def test_a_file_that_nobody_signed_beside_the_release(family: Family) -> None:
    """A template or code added to the signed files; neither a picture nor the card would be."""
    family.hub.commit(RELEASE, {"logo.png": b"png"}, replace=False)
    assert asked(family) == []
    family.hub.commit(RELEASE, {"chat_template.jinja": b"{{ x }}"}, replace=False)

    assert asked(family) == ["signature-mismatch"]


def test_a_file_that_cannot_be_held(family: Family) -> None:
    """A name that collides with a signed one is left out of every listing here, and not forgotten."""
    family.hub.commit(RELEASE, {"Model.safetensors": weights(3)}, replace=False)
    code, release = check(family)

    assert code == 1
    assert "Model.safetensors" in release["to_decide"][0]["note"]
    assert release["to_decide"][0]["kind"] == "signature-mismatch"


def test_another_trusted_signer(family: Family, tmp_path: Path) -> None:
    """Trusted, and not the one who signed what is pinned: somebody should know."""
    other = generate_key(tmp_path / "other")
    keys = (tmp_path / "release.pub", other.public)
    policy = TrustPolicy(Trust(tuple(KeyTrust(key.read_bytes()) for key in keys)))
    with opened(family) as context:
        add_release(context, RELEASE, policy=policy, replace=True)
    assert asked(family) == []
    push(family, tmp_path, key=other.private)
    code, release = check(family)

    assert (code, kinds(release)) == (1, ["signer-changed"])
    assert load_public_key(other.public.read_bytes()).fingerprint in release["to_decide"][0]["note"]


def test_a_signature_that_cannot_be_read(family: Family, tmp_path: Path) -> None:
    """A gate that was put up, with a new commit behind it, is neither a bad signature nor a missing one."""
    push(family, tmp_path, key=tmp_path / "release.key")
    family.hub.set_access(RELEASE, gated=True)
    assert asked(family) == ["signature-unreadable"]
    family.hub.set_access(RELEASE, gated=False)

    assert asked(family) == ["new-commit"]


def test_a_branch_that_is_gone(family: Family) -> None:
    """The pin stays; the repository is there, and what was watched is not."""
    with opened(family) as context:
        (row,) = context.store.releases()
        row.branch = "v1.0"
        context.store.add_release(row)
    code, release = check(family)

    assert (code, kinds(release)) == (1, ["branch-removed"])
    assert "v1.0" in release["to_decide"][0]["note"]


def test_a_release_that_nobody_signs(family: Family, tmp_path: Path) -> None:
    """Each of its files counts, the card too. A bundle of somebody, then another one, is said to be that."""
    files = {"README.md": card(), "config.json": CONFIG, "model.safetensors": weights(5)}
    family.hub.create_repo(BARE)
    family.hub.commit(BARE, files)
    assert family.run("release", "add", BARE, "--unsigned").exit_code == 0
    family.hub.commit(BARE, {"README.md": card(text="# New\n")}, replace=False)
    changed = asked(family, BARE)

    bundles = [bundle(tmp_path / name, files) for name in ("first", "second")]
    family.hub.commit(BARE, {**files, "model.sig": bundles[0]})
    added = asked(family, BARE)
    refused = family.run("release", "adopt", BARE)
    commit = check(family, BARE)[1]["to_decide"][0]["after"]
    assert family.run("release", "adopt", BARE, "--revision", commit).exit_code == 0
    family.hub.commit(BARE, {"config.json": b"{}"}, replace=False)
    same_bundle = asked(family, BARE)
    family.hub.commit(BARE, {**files, "model.sig": bundles[1]})

    assert (changed, added, refused.exit_code) == (["new-commit"], ["signature-added"], 2)
    assert (same_bundle, asked(family, BARE)) == (["new-commit"], ["signature-changed"])


def test_a_deletion_that_was_accepted_once(family: Family, tmp_path: Path) -> None:
    """Gone and kept, public again, gone again: the second time is told like the first."""
    family.hub.set_access(RELEASE, private=True)
    assert asked(family) == ["deleted"]
    kept = family.run("release", "keep", RELEASE)
    assert asked(family) == []
    family.hub.set_access(RELEASE, private=False)
    assert asked(family) == []
    family.hub.set_access(RELEASE, private=True)

    assert "deleted" in kept.stderr
    assert asked(family) == ["deleted"]


def bundle(folder: Path, files: dict[str, bytes]) -> bytes:
    """A signature over the files by a key that nobody trusts."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return sign_release(folder, generate_key(folder.parent / f"{folder.name}-keys").private).read_bytes()


def opened(family: Family) -> AbstractContextManager[Context]:
    """The state, as a command opens it."""
    hub = HubSettings(endpoint=family.hub.endpoint, retries=0)
    return session(Settings(hub=hub), StateDir(family.state))
