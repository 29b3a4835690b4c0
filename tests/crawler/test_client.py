from __future__ import annotations

import ast
import json
import logging
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import crawler
from crawler.client import HubClient
from crawler.hub_scan import NOT_TOLD
from crawler.interface import (
    Access,
    AccessDeniedError,
    BadAnswerError,
    BadTokenError,
    Cost,
    FileMissingError,
    HubUnavailableError,
    RepoId,
    RepoNotFoundError,
    Snapshot,
    TooLargeError,
)
from crawler.query import ListQuery
from forkwatch.demo.hub import Fault, LoopbackHub
from tests.crawler.conftest import CONFIG, REPO, WEIGHTS, MakeClient, finished

FORK = RepoId("someone/fork")
CARD = b"""---
license: mit
base_model: lab/tiny-chat
tags: [uncensored]
---
This is a decensored version of [lab/tiny-chat](https://huggingface.co/lab/tiny-chat).
"""


def test_snapshot_is_one_call(hub: LoopbackHub, client: HubClient) -> None:
    """Files with sizes and hashes, tags, claims and figures come from one API call and no download."""
    date = datetime(2026, 3, 1, tzinfo=UTC)
    hub.create_repo("a/b", downloads=12, likes=3, created_at=date)
    commit = hub.commit("a/b", {"config.json": CONFIG, "w/model.safetensors": b"weights"})
    found = client.snapshot(RepoId("a/b"))
    assert (found.repo, found.commit) == ("a/b", commit)
    assert [(file.path, file.size, file.sha256 is None) for file in found.files] == [
        ("config.json", len(CONFIG), True),
        ("w/model.safetensors", 7, False),
    ]
    assert (found.downloads, found.likes, found.created_at, found.access) == (12, 3, date, Access.OPEN)
    assert client.cost == Cost(1, api=1)
    assert found.hub_scan == NOT_TOLD
    hub.set_scan("a/b", {"w/model.safetensors": "unsafe"})
    told = client.snapshot(RepoId("a/b")).hub_scan
    assert [told.of(file.path) for file in found.files] == ["no issue", "unsafe"]
    assert client.cost == Cost(2, api=2)


def test_snapshot_pins_a_commit(hub: LoopbackHub, client: HubClient) -> None:
    """A revision gives that commit, and later pushes change nothing that is read through a snapshot."""
    before = client.snapshot(REPO)
    hub.commit(REPO, {"config.json": b"{}"})
    assert client.snapshot(REPO).commit != before.commit
    assert client.snapshot(REPO, before.commit) == before
    assert client.read_text(before, "config.json") == CONFIG.decode()


def test_card_is_read_once_for_all_snapshots(
    hub: LoopbackHub, client: HubClient, make_client: MakeClient
) -> None:
    """Claims of the card and of the metadata are both there; the card is cached by its content."""
    hub.create_repo(FORK)
    hub.commit(FORK, {"README.md": CARD})
    found = client.snapshot(FORK)
    assert [(claim.base, claim.faithful) for claim in found.claims] == [(REPO, False), (REPO, False)]
    assert any("decensored version" in claim.statement for claim in found.claims)
    assert found.license == "mit"
    assert client.cost == Cost(2, len(CARD), api=1, resolvers=1)
    again = make_client()
    assert again.snapshot(FORK) == found
    assert again.cost == Cost(1, api=1)


def test_snapshot_agrees_with_the_real_client(hub: LoopbackHub, client: HubClient) -> None:
    """Our reading of the API is huggingface_hub's: same commit, files, sizes and hashes."""
    script = (
        "import json, sys; from huggingface_hub import HfApi\n"
        "info = HfApi(endpoint=sys.argv[1], token=False).model_info(sys.argv[2], files_metadata=True)\n"
        "files = [(f.rfilename, f.size, f.blob_id, f.lfs and f.lfs.sha256) for f in info.siblings]\n"
        "print(json.dumps([info.id, info.sha, sorted(files), info.tags]))"
    )
    environment = os.environ | {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_ENDPOINT": hub.endpoint,
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-c", script, hub.endpoint, REPO]
    theirs = json.loads(
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120).stdout
    )
    ours = client.snapshot(REPO)
    files = [[file.path, file.size, file.git_oid, file.sha256] for file in ours.files]
    assert [ours.repo, ours.commit, files, list(ours.tags)] == theirs


def test_read_text_refuses_large_and_missing_files(client: HubClient, snapshot: Snapshot) -> None:
    """Nothing is requested for a file that is too large or is not in the snapshot."""
    spent = client.cost
    with pytest.raises(TooLargeError):
        client.read_text(snapshot, "config.json", limit=3)
    with pytest.raises(FileMissingError):
        client.read_text(snapshot, "README.md")
    with pytest.raises(FileMissingError):
        client.open(snapshot, "../config.json")
    assert client.cost == spent


def test_read_text_replaces_what_is_not_utf8(hub: LoopbackHub, client: HubClient) -> None:
    """Broken text is readable text."""
    hub.create_repo(FORK)
    hub.commit(FORK, {"a.txt": b"ab\xffc"})
    assert client.read_text(client.snapshot(FORK), "a.txt") == "ab\ufffdc"


def test_unknown_repository_and_revision(client: HubClient) -> None:
    """Both are reported as not found, and not retried."""
    with pytest.raises(RepoNotFoundError, match="nobody/nothing"):
        client.snapshot(RepoId("nobody/nothing"))
    with pytest.raises(RepoNotFoundError, match="no such revision"):
        client.snapshot(REPO, "no/such branch")
    assert client.cost.requests == 2


def test_renamed_repository_is_known_by_its_present_name(hub: LoopbackHub, client: HubClient) -> None:
    """The Hub's redirect is followed, and the snapshot says where it led."""
    hub.rename_repo(REPO, "lab/renamed")
    assert client.snapshot(REPO).repo == "lab/renamed"


def test_deleted_repository(hub: LoopbackHub, client: HubClient, snapshot: Snapshot, cache: Path) -> None:
    """A repository that goes away between two calls is not found; nothing is left of it in the cache."""
    hub.delete_repo(REPO)
    for path in ("config.json", "model.safetensors"):
        with pytest.raises(RepoNotFoundError):
            client.download(snapshot, path)
        with pytest.raises(RepoNotFoundError):
            client.open(snapshot, path).read(0, 4)
    with pytest.raises(RepoNotFoundError):
        client.snapshot(REPO)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_gated_and_disabled_repositories(
    hub: LoopbackHub, client: HubClient, make_client: MakeClient
) -> None:
    """Their properties are readable, their bytes are not, with or without a token that does not open them."""
    hub.create_repo("a/gated", gated=True)
    hub.commit("a/gated", {"README.md": CARD, "model.safetensors": b"weights"})
    hub.create_repo("a/disabled", disabled=True)
    hub.commit("a/disabled", {"model.safetensors": b"weights"})
    for reader in (client, make_client(token="hf_demo")):
        gated = reader.snapshot(RepoId("a/gated"))
        assert gated.access is Access.GATED
        assert [claim.base for claim in gated.claims] == [REPO]
        disabled = reader.snapshot(RepoId("a/disabled"))
        assert disabled.access is Access.DISABLED
        for closed in (gated, disabled):
            with pytest.raises(AccessDeniedError):
                reader.download(closed, "model.safetensors")
            with pytest.raises(AccessDeniedError):
                reader.open(closed, "model.safetensors").read(0, 1)


def test_repository_gated_between_two_calls(hub: LoopbackHub, client: HubClient, snapshot: Snapshot) -> None:
    """What was open when it was pinned may be closed when it is read."""
    hub.set_access(REPO, gated=True)
    with pytest.raises(AccessDeniedError):
        client.download(snapshot, "model.safetensors")


def test_wrong_token(make_client: MakeClient) -> None:
    """A token that the Hub does not know is named as the cause, for every call."""
    stranger = make_client(token="hf_wrong")
    with pytest.raises(BadTokenError):
        stranger.snapshot(REPO)
    with pytest.raises(BadTokenError):
        list(stranger.list_models(ListQuery()))


def test_token_stays_at_home(
    hub: LoopbackHub, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The token goes with every call to the Hub and with none to the CDN; no log line, no repr shows it."""
    caplog.set_level(logging.DEBUG)
    reader = make_client(token="hf_demo")
    pinned = reader.snapshot(REPO)
    reader.open(pinned, "model.safetensors").read(5, 10)
    reader.download(pinned, "model.safetensors")
    reader.download(pinned, "config.json")
    logging.getLogger("crawler").debug("the log is on")
    assert "the log is on" in caplog.text
    seen = {(request.origin, request.authorized) for request in hub.requests}
    assert seen == {("hub", True), ("cdn", False)}
    assert "hf_demo" not in caplog.text
    assert "Signature=" not in caplog.text
    assert "hf_demo" not in repr(vars(reader)) + repr(reader)


def test_foreign_page_link_gets_neither_token_nor_request(hub: LoopbackHub, make_client: MakeClient) -> None:
    """A listing whose next page is elsewhere is refused before anything is sent there."""
    hub.inject(Fault("list", "foreign-link"))
    with pytest.raises(BadAnswerError, match="another host"):
        list(make_client(token="hf_demo").list_models(ListQuery()))
    assert {request.origin for request in hub.requests} == {"hub"}


def test_page_link_in_a_circle_ends(hub: LoopbackHub, client: HubClient) -> None:
    """A listing that leads back to itself is refused after one round."""
    hub.inject(Fault("list", "loop-link", times=-1))
    with pytest.raises(BadAnswerError, match="circle"):
        list(client.list_models(ListQuery()))
    assert len(hub.requests) <= 2


def test_without_a_token_no_stored_login_is_used(
    hub: LoopbackHub, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """HF_TOKEN, a saved login and a .netrc on this machine are nothing to a client without a token."""
    (tmp_path / "token").write_text("hf_stored")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hf_stored\n")
    for name, value in (("HF_TOKEN", "hf_env"), ("HF_HOME", str(tmp_path)), ("HOME", str(tmp_path))):
        monkeypatch.setenv(name, value)
    reader = make_client()
    reader.download(reader.snapshot(REPO), "model.safetensors")
    assert not any(request.authorized for request in hub.requests)


def test_hub_that_is_not_there(make_client: MakeClient, waits: list[float]) -> None:
    """A refused connection is retried, then reported as an unavailable Hub."""
    with LoopbackHub() as gone:
        endpoint = gone.endpoint
    with pytest.raises(HubUnavailableError):
        make_client(endpoint=endpoint, retries=3).snapshot(REPO)
    assert waits == [1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    "endpoint", ["", "huggingface.co", "ftp://huggingface.co", "http://", "file:///etc", "http://[::1"]
)
def test_endpoint_that_is_no_url(endpoint: str, tmp_path: Path) -> None:
    """A wrong endpoint is told apart at once, in one line."""
    with pytest.raises(HubUnavailableError, match="not an http"):
        HubClient(endpoint=endpoint, token=None, cache=tmp_path)


def test_a_second_reading_downloads_nothing(client: HubClient, make_client: MakeClient, cache: Path) -> None:
    """Whatever was downloaded once costs no bytes again, by whichever repository it is reached."""
    first = client.snapshot(REPO)
    paths = [client.download(first, file.path) for file in first.files]
    assert [path.read_bytes() for path in paths] == [CONFIG, WEIGHTS]
    assert client.cost.bytes_downloaded == len(CONFIG) + len(WEIGHTS)
    again = make_client()
    assert [again.download(again.snapshot(REPO), file.path) for file in first.files] == paths
    assert again.cost == Cost(len(paths), api=len(paths))
    assert sorted(paths) == finished(cache)


def test_importing_the_client_loads_no_network_stack() -> None:
    """`forkwatch --help` may import the client: httpx2 and huggingface_hub come with the first instance."""
    check = (
        "import sys, crawler.client, crawler.discover\n"
        "print({'httpx2', 'huggingface_hub'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", check], check=True, capture_output=True, text=True, timeout=120
    )
    assert result.stdout.strip() == "set()"


def test_one_module_knows_huggingface_hub() -> None:
    """The library is wrapped in one place that reads and one that writes; benchmarks measure against it."""
    root = Path(crawler.__file__).parents[1]
    users = {
        path.relative_to(root).as_posix()
        for package in ("crawler", "detector", "evals", "reports", "forkwatch", "docs")
        for path in (root / package).rglob("*.py")
        if "huggingface_hub" in _imported(path) or re.search(r"import_module\(.huggingface", path.read_text())
    }
    assert users == {"crawler/errors_map.py", "forkwatch/publish/space.py"}


def _imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {
        name.partition(".")[0]
        for name in plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    }
