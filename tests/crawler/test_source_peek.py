from __future__ import annotations

import pytest

from crawler.client import HubClient
from crawler.interface import (
    AccessDeniedError,
    Commit,
    CorruptDownloadError,
    FileMissingError,
    RepoNotFoundError,
    Snapshot,
    TooLargeError,
)
from forkwatch.demo.hub import Fault, LoopbackHub
from tests.crawler.conftest import CONFIG, REPO


def test_small_file_in_one_call(client: HubClient, snapshot: Snapshot) -> None:
    """The text of a commit, and neither its file list nor the API's quota."""
    before = client.cost
    assert client.peek(REPO, snapshot.commit, "config.json") == CONFIG.decode()
    assert (client.cost - before).requests == 1
    assert (client.cost - before).api == 0


def test_an_older_commit_is_read_as_it_was(hub: LoopbackHub, client: HubClient, snapshot: Snapshot) -> None:
    """A push meanwhile changes nothing."""
    hub.commit(REPO, {"config.json": b"{}"})
    assert client.peek(REPO, snapshot.commit, "config.json") == CONFIG.decode()


def test_what_is_too_large_is_not_read(client: HubClient, snapshot: Snapshot) -> None:
    """By size, and by being an LFS file, whose bytes are never asked for."""
    with pytest.raises(TooLargeError):
        client.peek(REPO, snapshot.commit, "config.json", limit=len(CONFIG) - 1)
    with pytest.raises(TooLargeError):
        client.peek(REPO, snapshot.commit, "model.safetensors", limit=1 << 30)
    assert client.cost.bytes_downloaded <= len(CONFIG)


def test_what_is_not_there_is_said(hub: LoopbackHub, client: HubClient, snapshot: Snapshot) -> None:
    """No file, no repository, no access: each its own error."""
    with pytest.raises(FileMissingError):
        client.peek(REPO, snapshot.commit, "README.md")
    with pytest.raises(RepoNotFoundError):
        client.peek(REPO, Commit("0" * 40), "config.json")
    hub.set_access(REPO, gated=True)
    with pytest.raises(AccessDeniedError):
        client.peek(REPO, snapshot.commit, "config.json")


@pytest.mark.parametrize("kind", ["429", "503", "reset", "truncate"])
def test_failure_that_passes_is_retried(
    hub: LoopbackHub, client: HubClient, snapshot: Snapshot, kind: str
) -> None:
    """The whole text, at the price of another call."""
    hub.inject(Fault("resolve", kind))  # type: ignore[arg-type]  # parametrize knows no literals
    assert client.peek(REPO, snapshot.commit, "config.json") == CONFIG.decode()


def test_altered_text_is_refused(hub: LoopbackHub, client: HubClient, snapshot: Snapshot) -> None:
    """Other bytes than those of the blob that the header names."""
    hub.inject(Fault("resolve", "wrong-bytes", times=-1))
    with pytest.raises(CorruptDownloadError):
        client.peek(REPO, snapshot.commit, "config.json")
