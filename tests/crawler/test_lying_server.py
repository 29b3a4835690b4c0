"""Answers that the loopback hub cannot give: redirects that lead astray, headers that contradict the rest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from crawler.interface import (
    Access,
    AccessDeniedError,
    BadAnswerError,
    CorruptDownloadError,
    HubUnavailableError,
    RepoId,
    TooLargeError,
)
from crawler.query import ListQuery
from crawler.transport import Session
from tests.crawler.conftest import MakeClient
from tests.crawler.liar import Answer, Liar, lying

REPO = RepoId("a/b")
DATA = bytes(range(256)) * 16
COMMIT = "c" * 40


@pytest.fixture
def start() -> Iterator[Callable[[], Liar]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(lying())


@pytest.fixture
def liar(start: Callable[[], Liar]) -> Liar:
    """A hub with one repository that holds a large file `w.safetensors`."""
    hub = start()
    digest = hashlib.sha256(DATA).hexdigest()
    large = {
        "rfilename": "w.safetensors",
        "size": 130,
        "blobId": "d" * 40,
        "lfs": {"sha256": digest, "size": len(DATA)},
    }
    info = {"id": REPO, "sha": COMMIT, "siblings": [large]}
    hub.answers["GET", f"/api/models/{REPO}"] = Answer(body=json.dumps(info).encode())
    return hub


def resolving(liar: Liar, location: str, **headers: str) -> None:
    answer = Answer(
        302, {"Location": location} | {name.replace("_", "-"): value for name, value in headers.items()}
    )
    liar.answers["*", f"/{REPO}/resolve/{COMMIT}/w.safetensors"] = answer


@pytest.mark.parametrize(("token", "access"), [("hf_good", Access.OPEN), (None, Access.GATED)])
def test_gated_repository_that_our_token_opens(
    liar: Liar, make_client: MakeClient, token: str | None, access: Access
) -> None:
    """Gated for others is open for us when the bytes can be had; without a token nothing is tried."""
    answer = liar.answers["GET", f"/api/models/{REPO}"]
    answer.body = json.dumps(json.loads(answer.body) | {"gated": "manual"}).encode()
    resolving(liar, "http://127.0.0.1:9/cdn")
    assert make_client(endpoint=liar.url, token=token).snapshot(REPO).access is access
    assert [method for method, _, _ in liar.seen] == (["GET", "HEAD"] if token else ["GET"])


def test_api_does_not_leave_the_hub(liar: Liar, start: Callable[[], Liar], make_client: MakeClient) -> None:
    """An API call that is redirected to another host is refused, and that host hears nothing."""
    other = start()
    liar.answers["GET", f"/api/models/{REPO}"] = Answer(302, {"Location": f"{other.url}/api/models/{REPO}"})
    with pytest.raises(BadAnswerError, match="another host"):
        make_client(endpoint=liar.url, token="hf_secret").snapshot(REPO)
    assert other.seen == []


def test_https_is_not_left() -> None:
    """From an https Hub nothing is fetched over plain http, wherever the address came from."""
    session = Session("https://hub.invalid", "hf_secret", timeout=1.0, retries=0, sleep=lambda _: None)
    with closing(session), pytest.raises(BadAnswerError, match="leave https"):
        session.open("http://127.0.0.1:9/w", "w")


def test_redirects_end(liar: Liar, start: Callable[[], Liar], make_client: MakeClient) -> None:
    """A circle on the Hub, and one between hosts, are refused after a few rounds; the token stays at home."""
    client = make_client(endpoint=liar.url, token="hf_secret")
    snapshot = client.snapshot(REPO)
    other = start()
    other.answers["GET", "/x"] = Answer(302, {"Location": f"{liar.url}/back"})
    liar.answers["GET", "/back"] = Answer(302, {"Location": f"{other.url}/x"})
    resolving(liar, f"{other.url}/x")
    with pytest.raises(BadAnswerError, match="redirects"):
        client.download(snapshot, "w.safetensors")
    assert other.seen
    assert {token for _, _, token in other.seen} == {None}
    resolving(liar, f"/{REPO}/resolve/{COMMIT}/w.safetensors")
    with pytest.raises(BadAnswerError, match="redirects"):
        client.download(snapshot, "w.safetensors")


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://", "http://[::1", "//"]
)
def test_redirect_that_is_no_web_address(liar: Liar, make_client: MakeClient, location: str) -> None:
    """Only http and https are followed."""
    client = make_client(endpoint=liar.url, retries=0)
    snapshot = client.snapshot(REPO)
    resolving(liar, location)
    with pytest.raises((BadAnswerError, HubUnavailableError)):
        client.open(snapshot, "w.safetensors").read(0, 1)


@pytest.mark.parametrize(
    "headers", [{"X_Repo_Commit": "e" * 40}, {"X_Linked_Size": "9"}, {"X_Linked_Etag": f'"{"f" * 64}"'}]
)
def test_resolver_that_contradicts_the_snapshot(
    liar: Liar, make_client: MakeClient, headers: dict[str, str]
) -> None:
    """Another commit, size or hash than the snapshot's stops the read before any byte."""
    client = make_client(endpoint=liar.url)
    snapshot = client.snapshot(REPO)
    resolving(liar, "http://127.0.0.1:9/cdn", **headers)
    for read in (
        lambda: client.open(snapshot, "w.safetensors").read(0, 1),
        lambda: client.download(snapshot, "w.safetensors"),
    ):
        with pytest.raises(CorruptDownloadError, match="not the snapshot's"):
            read()
    assert client.cost.bytes_downloaded == 0


@pytest.mark.parametrize(
    ("content_range", "body"),
    [
        ("", DATA[5:9]),
        ("bytes 6-9/4096", DATA[6:10]),
        ("bytes 5-9/4096", DATA[5:10]),
        ("bytes 5-8/4097", DATA[5:9]),
        ("items 5-8/4096", DATA[5:9]),
        ("bytes 5-8/4096", DATA[5:10]),
    ],
)
def test_range_that_is_not_the_one_asked_for(
    liar: Liar, start: Callable[[], Liar], make_client: MakeClient, content_range: str, body: bytes
) -> None:
    """A 206 must carry exactly the range, of a file of exactly the size, in exactly as many bytes."""
    client = make_client(endpoint=liar.url)
    source = client.open(client.snapshot(REPO), "w.safetensors")
    cdn = start()
    resolving(liar, f"{cdn.url}/w")
    cdn.answers["GET", "/w"] = Answer(206, {"Content-Range": content_range}, body)
    with pytest.raises(CorruptDownloadError):
        source.read(5, 4)


def test_endless_body_is_cut_off(liar: Liar, start: Callable[[], Liar], make_client: MakeClient) -> None:
    """A body without a length that goes on beyond the file's size is not stored."""
    client = make_client(endpoint=liar.url)
    snapshot = client.snapshot(REPO)
    cdn = start()
    resolving(liar, f"{cdn.url}/w")
    cdn.answers["GET", "/w"] = Answer(200, {}, DATA + b"x" * (4 << 20), chunked_off=True)
    with pytest.raises(CorruptDownloadError):
        client.download(snapshot, "w.safetensors")
    assert client.cost.bytes_downloaded < 2 << 20


def test_body_without_a_length_that_ends_early(
    liar: Liar, start: Callable[[], Liar], make_client: MakeClient
) -> None:
    """Where HTTP cannot tell that a body is short, the snapshot's size does."""
    client = make_client(endpoint=liar.url)
    snapshot = client.snapshot(REPO)
    cdn = start()
    resolving(liar, f"{cdn.url}/w")
    cdn.answers["GET", "/w"] = Answer(200, {}, DATA[:100], chunked_off=True)
    with pytest.raises(HubUnavailableError, match="100 of 4096"):
        client.download(snapshot, "w.safetensors")
    cdn.answers["GET", "/w"] = Answer(206, {"Content-Range": "bytes 0-8/4096"}, DATA[:5], chunked_off=True)
    with pytest.raises(HubUnavailableError, match="5 of 9"):
        client.open(snapshot, "w.safetensors").read(0, 9)


def test_cdn_that_lost_the_file(liar: Liar, start: Callable[[], Liar], make_client: MakeClient) -> None:
    """A CDN's 404 is not a deleted repository."""
    client = make_client(endpoint=liar.url)
    snapshot = client.snapshot(REPO)
    resolving(liar, f"{start().url}/gone")
    with pytest.raises(AccessDeniedError, match="CDN"):
        client.download(snapshot, "w.safetensors")


@pytest.mark.parametrize("body", [b"[" * 100_000, b"\xff\xfe", b"", b"nul", b'{"id": "a/b"', b"[1]"])
def test_answer_that_is_no_model(liar: Liar, make_client: MakeClient, body: bytes) -> None:
    """Deep, binary, empty or other JSON is a bad answer."""
    liar.answers["GET", f"/api/models/{REPO}"] = Answer(body=body)
    with pytest.raises(BadAnswerError):
        make_client(endpoint=liar.url).snapshot(REPO)


def test_listing_skips_rows_that_name_nothing(liar: Liar, make_client: MakeClient) -> None:
    """One malformed row costs itself, not the listing."""
    rows = [{"id": "gpt2"}, 3, {"id": "../x"}, {"id": "x/y", "tags": [1, "t"]}, {}]
    liar.answers["GET", "/api/models"] = Answer(body=json.dumps(rows).encode())
    assert [(row.repo, row.tags) for row in make_client(endpoint=liar.url).list_models(ListQuery())] == [
        ("x/y", ("t",))
    ]
    liar.answers["GET", "/api/models"] = Answer(body=b"{}")
    with pytest.raises(BadAnswerError):
        list(make_client(endpoint=liar.url).list_models(ListQuery()))


def test_hostile_path_is_left_out(liar: Liar, make_client: MakeClient) -> None:
    """The Hub's file list decides nothing on our disk, and one bad name does not hide the other files."""
    names = ["../../home/x", "config.json", "Config.json"]
    info = {
        "id": REPO,
        "sha": COMMIT,
        "siblings": [{"rfilename": name, "size": 1, "blobId": "d" * 40} for name in names],
    }
    liar.answers["GET", f"/api/models/{REPO}"] = Answer(body=json.dumps(info).encode())
    taken = make_client(endpoint=liar.url).snapshot(REPO)
    assert [file.path for file in taken.files] == ["config.json"]
    assert [(file.path, file.collides) for file in taken.refused] == [
        ("Config.json", True),
        ("../../home/x", False),
    ]


def test_card_beyond_a_megabyte_is_not_read(liar: Liar, make_client: MakeClient) -> None:
    """A huge card makes no claim and costs no bytes."""
    card = {"rfilename": "README.md", "size": (1 << 20) + 1, "blobId": "d" * 40}
    info = {"id": REPO, "sha": COMMIT, "siblings": [card], "tags": ["base_model:x/y"]}
    liar.answers["GET", f"/api/models/{REPO}"] = Answer(body=json.dumps(info).encode())
    client = make_client(endpoint=liar.url)
    snapshot = client.snapshot(REPO)
    assert [claim.base for claim in snapshot.claims] == ["x/y"]
    assert len(liar.seen) == 1
    with pytest.raises(TooLargeError):
        client.read_text(snapshot, "README.md")


def test_listing_that_leads_on_and_on_ends(make_client: MakeClient) -> None:
    """Pages without a row, each with another next page: three of them, and no fourth."""
    with lying() as hub:

        def page(method: str, path: str) -> Answer:
            number = int(path.rpartition("cursor=")[2]) if "cursor=" in path else 0
            link = f'<{hub.url}/api/models?cursor={number + 1}>; rel="next"'
            return Answer(headers={"Link": link}, body=b"[]" if number else b'[{"id": "a/b"}]')

        hub.answer = page  # type: ignore[method-assign]
        with pytest.raises(BadAnswerError, match="on and on"):
            list(make_client(endpoint=hub.url).list_models(ListQuery()))
        assert len(hub.seen) == 4
