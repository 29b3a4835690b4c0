"""A bucket, over a real socket: what differs goes in order, by one publisher; a kill leaves no hole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from forkwatch.errors import Exit, SettingsError
from forkwatch.publish import bucket as publishing
from forkwatch.publish.bucket import LOCK, SENDING, BucketPublisher, parse_bucket
from forkwatch.publish.interface import ChangedError, NotOursError, PublishError
from forkwatch.publish.objects import Objects
from reports.manifest import NAME
from tests.forkwatch.test_publishers import FIRST, SECOND, check_incremental, make
from tests.reports.html_tools import tree

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Where the store answers."""
    running = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def endpoint(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """With credentials, and with nothing of the user's own configuration."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return server


@pytest.fixture
def client(endpoint: str) -> Any:
    """Of an empty bucket `pages`."""
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="pages")
    for key in list(inside(client)):
        client.delete_object(Bucket="pages", Key=key)
    return client


@pytest.fixture
def one(tmp_path):
    return make(tmp_path / "one", FIRST)


@pytest.fixture
def two(tmp_path):
    return make(tmp_path / "two", SECOND)


def inside(client: Any, prefix: str = "") -> dict[str, bytes]:
    """All objects."""
    keys = [each["Key"] for each in client.list_objects_v2(Bucket="pages", Prefix=prefix).get("Contents", ())]
    return {
        key.removeprefix(prefix): client.get_object(Bucket="pages", Key=key)["Body"].read() for key in keys
    }


def test_a_bucket_gets_what_differs(client, endpoint, one, two):
    """The bucket is the whole new site and nothing else; browsers are told what files are, and to ask."""
    client.put_object(Bucket="pages", Key="theirs.txt", Body=b"x")
    check_incremental(BucketPublisher("pages", "a/site", endpoint), one, two)
    assert inside(client, "a/site/") == tree(two[0])
    page = client.head_object(Bucket="pages", Key="a/site/index.html")
    assert (page["ContentType"], page["CacheControl"]) == ("text/html; charset=utf-8", "no-cache")
    assert inside(client)["theirs.txt"] == b"x"


def test_new_pages_first_and_the_first_page_last(client, endpoint, one, tmp_path, monkeypatch):
    """The order that keeps every link alive."""
    files = FIRST | {"index.html": b"new", "releases/r/index.html": b"r", "assets/site.css": b"c"}
    files |= {"forks/a/index.html": b"AA", "forks/z/index.html": b"Z"}
    del files["forks/b/index.html"]
    publisher = BucketPublisher("pages", endpoint=endpoint)
    publisher.publish(*one)
    order: list[str] = []
    put, delete = Objects.put, Objects.delete
    monkeypatch.setattr(Objects, "put", lambda s, path, *a, **k: order.append(path) or put(s, path, *a, **k))
    monkeypatch.setattr(Objects, "delete", lambda s, path: order.append(f"-{path}") or delete(s, path))
    publisher.publish(*make(tmp_path / "new", files))
    assert order == [
        *(LOCK, SENDING, "forks/z/index.html", "assets/site.css", "forks/a/index.html"),
        *("releases/r/index.html", "index.html", NAME, "-forks/b/index.html", f"-{SENDING}", f"-{LOCK}"),
    ]


@pytest.mark.parametrize("key", ["index.html", "deep/thesis.pdf"])
def test_a_bucket_of_others_is_left_alone(client, endpoint, one, key):
    """Nothing is written where something is that is not ours."""
    client.put_object(Bucket="pages", Key=key, Body=b"theirs")
    with pytest.raises(NotOursError):
        BucketPublisher("pages", endpoint=endpoint).publish(*one)
    assert inside(client) == {key: b"theirs"}


def test_two_publishers_do_not_mix(client, endpoint, one, two, monkeypatch):
    """While one publishes the other is told so; one of which no sign of life came for long is replaced."""
    publisher = BucketPublisher("pages", endpoint=endpoint)
    publisher.publish(*one)
    client.put_object(Bucket="pages", Key=LOCK, Body=b"elsewhere:1")
    with pytest.raises(ChangedError, match="somebody else is publishing"):
        publisher.publish(*two)
    assert inside(client) == tree(one[0]) | {LOCK: b"elsewhere:1"}
    monkeypatch.setattr(publishing, "LEASE", -1.0)
    publisher.publish(*two)
    assert inside(client) == tree(two[0])


def test_who_lost_the_lock_stops(client, endpoint, one, two, monkeypatch):
    """A publication that was taken over while it slept sends nothing more, and leaves the other's lock."""
    publisher = BucketPublisher("pages", endpoint=endpoint)
    publisher.publish(*one)
    put = Objects.put

    def taken(objects: Objects, path: str, data: bytes, **condition: str) -> str | None:
        done = put(objects, path, data, **condition)
        if path == SENDING:
            client.put_object(Bucket="pages", Key=LOCK, Body=b"elsewhere:1")
        return done

    monkeypatch.setattr(Objects, "put", taken)
    monkeypatch.setattr(publishing, "RENEW", 0.0)
    with pytest.raises(ChangedError, match="took over"):
        publisher.publish(*two)
    now = inside(client)
    assert (now["index.html"], now[LOCK]) == (b"one", b"elsewhere:1")


KILLED = """
import os, signal, sys
from pathlib import Path
from forkwatch.publish.bucket import BucketPublisher
from forkwatch.publish.objects import Objects
from reports.manifest import read_manifest
endpoint, one, two = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
def dies(at):
    left = [at]
    def counted(act):
        def do(*given, **more):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return act(*given, **more)
        return do
    Objects.put, Objects.delete = counted(Objects.put), counted(Objects.delete)
for at in range(1, 8):
    publisher = BucketPublisher("pages", f"{at}", endpoint)
    publisher.publish(one, read_manifest(one))
    if os.fork() == 0:
        dies(at)
        publisher.publish(two, read_manifest(two))
        os._exit(0)
    assert os.WTERMSIG(os.wait()[1]) == signal.SIGKILL
"""


def test_kill_leaves_no_hole_and_the_next_run_completes(client, endpoint, one, two, tmp_path):
    """Killed before each step: every page that the first page knows is there, and the next run ends it.

    The third site shows that pages of a publication that died are not left behind.
    """
    made = [sys.executable, "-c", KILLED, endpoint, str(one[0]), str(two[0])]
    subprocess.run(made, check=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    first, second = tree(one[0]), tree(two[0])
    third = make(tmp_path / "three", FIRST | {"index.html": b"three"})
    for at in range(1, 8):
        now = inside(client, f"{at}/")
        whole = second if now["index.html"] == b"two" else first
        assert {path: now[path] for path in whole if path != NAME} == {
            path: data for path, data in whole.items() if path != NAME
        }
        assert (now["index.html"] == b"two") == (at >= 4)
        done = BucketPublisher("pages", f"{at}", endpoint)
        if at % 2:
            assert done.publish(*two).sent == {1: 2, 3: 1}.get(at, 0)
        else:
            done.publish(*third)
        assert inside(client, f"{at}/") == (second if at % 2 else tree(third[0]))


def test_what_is_missing_is_said_in_one_line(client, endpoint, one, monkeypatch):
    """No bucket, no server, no credentials, no bucket's name, no boto3."""
    with pytest.raises(PublishError, match="NoSuchBucket") as none:
        BucketPublisher("nowhere", endpoint=endpoint).publish(*one)
    assert none.value.code == Exit.USAGE
    with pytest.raises(SettingsError, match="is no bucket"):
        parse_bucket("https://example.org/x")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(PublishError, match="EndpointConnectionError"):
        BucketPublisher("pages", endpoint="http://127.0.0.1:9").publish(*one)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(SettingsError, match="no credentials"):
        BucketPublisher("pages", endpoint=endpoint).publish(*one)
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(SettingsError, match="boto3"):
        BucketPublisher("pages", endpoint=endpoint).publish(*one)
