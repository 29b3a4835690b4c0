"""The loopback hub itself: starting, stopping, repeating, changing under a reader, families from the disk."""

from __future__ import annotations

import gc
import http.client
import json
import socket
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from crawler.interface import InvalidRepoIdError
from forkwatch.demo.hub import FamilyLayoutError, LoopbackHub, load_family
from forkwatch.demo.hub.origin import BODY_LIMIT
from tests.forkwatch.demo.hub_samples import CARD, REPO, WEIGHTS, add_model


def test_stopping_leaves_neither_threads_nor_ports(web: httpx2.Client) -> None:
    """After the context nothing of the hub is left, although clients keep their connections open."""
    before = set(threading.enumerate())
    with LoopbackHub() as hub:
        add_model(hub)
        for origin in (hub.endpoint, hub.cdn):
            web.get(origin)
        ports = [urlsplit(origin).port for origin in (hub.endpoint, hub.cdn)]
        assert set(threading.enumerate()) - before
    assert not set(threading.enumerate()) - before
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    gc.collect()  # an unclosed socket would warn here, and warnings are errors


def test_hub_can_be_started_again(web: httpx2.Client) -> None:
    """Repositories survive a stop; addresses exist only in between, and two starts at once are refused."""
    hub = LoopbackHub()
    commit = add_model(hub)
    with pytest.raises(RuntimeError, match="not running"):
        _ = hub.endpoint
    for _ in range(2):
        with hub:
            assert web.get(f"{hub.endpoint}/api/models/{REPO}").json()["sha"] == commit
            with pytest.raises(RuntimeError, match="is running"):
                hub.__enter__()
    with pytest.raises(RuntimeError, match="not running"):
        _ = hub.cdn


def test_one_connection_serves_many_requests(hub: LoopbackHub) -> None:
    """HEAD, errors, redirects and posts leave the connection in step."""
    add_model(hub)
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(hub.endpoint).port, timeout=60)
    try:
        for method, path, body, status in (
            ("HEAD", f"/{REPO}/resolve/main/README.md", None, 200),
            ("GET", "/api/models/demo/none", None, 404),
            ("GET", f"/{REPO}/resolve/main/model.safetensors", None, 302),
            ("POST", f"/api/models/{REPO}/paths-info/main", "paths=README.md", 200),
            ("POST", f"/api/models/{REPO}", "ignored", 405),
            ("GET", f"/{REPO}/resolve/main/README.md", None, 200),
        ):
            connection.request(method, path, body)
            reply = connection.getresponse()
            content = reply.read()
            assert reply.status == status
        assert content == CARD
        assert connection.sock is not None
    finally:
        connection.close()


def test_requests_in_parallel_all_get_their_own_answer(hub: LoopbackHub, web: httpx2.Client) -> None:
    """Sixteen threads reading while commits are pushed see whole commits; the record misses nothing."""
    hub.create_repo(REPO)
    known = {hub.commit(REPO, {"number.txt": b"0"}): b"0"}

    def read(_: int) -> tuple[str, bytes]:
        reply = web.get(f"{hub.endpoint}/{REPO}/resolve/main/number.txt")
        return reply.headers["x-repo-commit"], reply.content

    with ThreadPoolExecutor(16) as pool:
        replies = pool.map(read, range(100))
        for number in range(1, 20):
            content = str(number).encode()
            known[hub.commit(REPO, {"number.txt": content})] = content
        assert all(known[commit] == content for commit, content in replies)
    assert len(hub.requests) == 100


def test_large_file_is_never_held_in_memory(hub: LoopbackHub, web: httpx2.Client, tmp_path: Path) -> None:
    """Committing and sending 64 MiB takes less than 16 MiB, client and server together."""
    file = tmp_path / "large.bin"
    with file.open("wb") as stream:
        stream.truncate(64 << 20)
    hub.create_repo(REPO)
    tracemalloc.start()
    try:
        hub.commit(REPO, {"large.bin": file})
        location = web.head(f"{hub.endpoint}/{REPO}/resolve/main/large.bin").headers["location"]
        with web.stream("GET", location) as reply:
            assert sum(len(piece) for piece in reply.iter_raw()) == 64 << 20
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize(
    "header",
    [
        ("Content-Length", str(BODY_LIMIT + 1)),
        ("Content-Length", "9" * 5000),
        ("Content-Length", "\u00b2"),
        ("Content-Length", "-1"),
        ("Transfer-Encoding", "chunked"),
    ],
)
def test_request_whose_body_is_not_read_is_refused(hub: LoopbackHub, header: tuple[str, str]) -> None:
    """A body that is too large, or without a length, is 413, and the connection closes."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(hub.endpoint).port, timeout=60)
    try:
        connection.putrequest("POST", f"/api/models/{REPO}/paths-info/main")
        connection.putheader(*header)
        connection.endheaders()
        reply = connection.getresponse()
        assert reply.status == 413
        reply.read()
        assert connection.sock is None or connection.sock.recv(1) == b""
    finally:
        connection.close()


def test_request_cannot_write_reply_headers(hub: LoopbackHub, web: httpx2.Client) -> None:
    """Line breaks in an address that an error quotes do not become headers."""
    add_model(hub)
    reply = web.get(f"{hub.endpoint}/api/models/{REPO}/revision/x%0d%0aSet-Cookie:%20a=b")
    assert reply.status_code == 404
    assert "set-cookie" not in reply.headers
    assert "Set-Cookie" in reply.headers["x-error-message"]


def test_error_of_the_hub_itself_reaches_the_test(web: httpx2.Client, tmp_path: Path) -> None:
    """If the hub itself fails, the client gets 500 and leaving the context raises: no test passes by it."""
    file = tmp_path / "model.safetensors.index.json"
    file.write_text("{}")
    hub = LoopbackHub()
    hub.create_repo(REPO)
    hub.commit(REPO, {file.name: file})
    file.unlink()
    hub.__enter__()
    reply = web.get(f"{hub.endpoint}/api/models/{REPO}/safetensors-metadata/{file.name}")
    assert reply.status_code == 500
    with pytest.raises(RuntimeError, match="failed to answer") as error:
        hub.__exit__(None, None, None)
    assert isinstance(error.value.__cause__, FileNotFoundError)


def test_same_history_gives_same_ids_and_dates(web: httpx2.Client) -> None:
    """Two hubs that were told the same answer the same bytes."""
    answers = []
    for _ in range(2):
        with LoopbackHub() as hub:
            add_model(hub)
            answers.append(web.get(f"{hub.endpoint}/api/models/{REPO}?blobs=true").content)
    assert answers[0] == answers[1]


def test_commit_id_depends_on_files_message_and_parents() -> None:
    """Changing any of the three changes the id; the name of the repository does not."""
    hub = LoopbackHub()
    for name in "abcd":
        hub.create_repo(f"demo/{name}")
    first = hub.commit("demo/a", {"x.txt": b"1"})
    assert hub.commit("demo/b", {"x.txt": b"1"}) == first
    assert hub.commit("demo/c", {"x.txt": b"2"}) != first
    assert hub.commit("demo/d", {"x.txt": b"1"}, message="other") != first
    assert hub.commit("demo/a", {"x.txt": b"1"}) != first


def test_commit_replaces_or_adds(hub: LoopbackHub, api: HfApi) -> None:
    """By default a commit holds all files; otherwise it changes those of its parent."""
    add_model(hub)
    hub.commit(REPO, {"b.txt": b"", "README.md": b"new"}, replace=False)
    assert len(api.list_repo_files(REPO)) == 5
    hub.commit(REPO, {"b.txt": b""})
    assert api.list_repo_files(REPO) == ["b.txt"]


def test_repository_deleted_between_two_polls(hub: LoopbackHub, api: HfApi) -> None:
    """It is gone from the list and by name, and the name is free again."""
    add_model(hub)
    assert api.model_info(REPO).id == REPO
    hub.delete_repo(REPO)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(REPO)
    assert list(api.list_models()) == []
    hub.create_repo(REPO)
    assert api.model_info(REPO).siblings == []


def test_repository_renamed_between_two_polls(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    """The old name redirects, twice if need be, for properties and files, until it is taken again."""
    add_model(hub)
    hub.rename_repo(REPO, "demo/second")
    hub.rename_repo("demo/second", "else/third")
    assert api.model_info(REPO).id == "else/third"
    assert [model.id for model in api.list_models()] == ["else/third"]
    file = hf_hub_download(REPO, "model.safetensors", endpoint=hub.endpoint, cache_dir=tmp_path, token=False)
    assert Path(file).read_bytes() == WEIGHTS
    hub.create_repo(REPO)
    assert api.model_info(REPO).id == REPO
    assert {model.id for model in api.list_models()} == {REPO, "else/third"}


def test_force_push_between_two_polls(hub: LoopbackHub, api: HfApi) -> None:
    """The branch moves to an unrelated commit, and the old one cannot be read any more."""
    old = add_model(hub)
    new = hub.force_push(REPO, {"README.md": b"# Nothing to see"})
    assert api.model_info(REPO).sha == new
    assert [commit.commit_id for commit in api.list_repo_commits(REPO)] == [new]
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision=old)


def test_repository_gated_between_two_polls(hub: LoopbackHub, tmp_path: Path) -> None:
    """A download that worked is refused after the gate closed, and works again once it opens."""
    add_model(hub)

    def download(folder: str) -> Path:
        cache = tmp_path / folder
        return Path(hf_hub_download(REPO, "README.md", endpoint=hub.endpoint, cache_dir=cache, token=False))

    assert download("a").read_bytes() == CARD
    hub.set_access(REPO, gated=True)
    with pytest.raises(GatedRepoError):
        download("b")
    hub.set_access(REPO, gated=False)
    assert download("c").read_bytes() == CARD


def test_wrong_use_is_refused() -> None:
    """Names that are no model ids, names that are taken or unknown, and paths that climb."""
    hub = LoopbackHub()
    hub.create_repo(REPO)
    with pytest.raises(ValueError, match="exists"):
        hub.create_repo(REPO)
    with pytest.raises(InvalidRepoIdError):
        hub.create_repo("no-namespace")
    for path in ("../x", "/etc/passwd", "a//b", "", "a/./b", "a/../b", "a/"):
        with pytest.raises(ValueError, match="not a path"):
            hub.commit(REPO, {path: b""})
    for change in (hub.delete_repo, hub.set_access):
        with pytest.raises(KeyError):
            change("demo/none")
    hub.create_repo("demo/other")
    with pytest.raises(ValueError, match="exists"):
        hub.rename_repo(REPO, "demo/other")


def _family(root: Path, repos: list[dict[str, object]]) -> Path:
    (root / "repos" / REPO / "sub").mkdir(parents=True)
    (root / "repos" / REPO / "README.md").write_bytes(CARD)
    (root / "repos" / REPO / "sub" / "model.safetensors").write_bytes(WEIGHTS)
    (root / "repos" / "demo" / "empty").mkdir()
    (root / "hub.json").write_text(json.dumps({"schema": "forkwatch.demo-hub/1", "repos": repos}))
    return root


def test_family_is_served_from_its_folder(tmp_path: Path, shared_session: None) -> None:
    """The listed repositories appear with their figures, their dates and every file below their folder."""
    listed: list[dict[str, object]] = [
        {"repo": REPO, "gated": True, "created_at": "2026-05-04T03:02:01Z", "downloads": 12, "likes": 3},
        {"repo": "demo/empty"},
    ]
    hub = LoopbackHub()
    load_family(hub, _family(tmp_path, listed))
    with hub:
        api = HfApi(endpoint=hub.endpoint, token=False)
        info = api.model_info(REPO)
        assert (info.gated, info.downloads, info.likes) == ("auto", 12, 3)
        assert info.created_at == datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
        assert api.list_repo_files(REPO) == ["README.md", "sub/model.safetensors"]
        assert api.list_repo_files("demo/empty") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema": "forkwatch.demo-hub/2", "repos": []}',
        '{"schema": "forkwatch.demo-hub/1", "repos": [{"repo": "demo/absent"}]}',
        '{"schema": "forkwatch.demo-hub/1", "repos": [{"repo": "demo/empty", "created_at": "today"}]}',
        '{"schema": "forkwatch.demo-hub/1", "repos": [{"repo": "demo/empty"}, {"repo": "demo/empty"}]}',
        '{"schema": "forkwatch.demo-hub/1", "repos": [{"repo": "demo"}]}',
        '{"schema": "forkwatch.demo-hub/1", "repos": ["demo/empty"]}',
    ],
)
def test_folder_that_is_no_family_is_refused(tmp_path: Path, text: str) -> None:
    """A missing, broken or contradicting hub.json is one error."""
    with pytest.raises(FamilyLayoutError):
        load_family(LoopbackHub(), tmp_path)
    _family(tmp_path, [])
    (tmp_path / "hub.json").write_text(text)
    with pytest.raises(FamilyLayoutError):
        load_family(LoopbackHub(), tmp_path)
