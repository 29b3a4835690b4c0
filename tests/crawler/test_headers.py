from __future__ import annotations

import json
import struct
import tracemalloc

import pytest

from crawler.client import HubClient
from crawler.interface import CorruptDownloadError, RepoId, TooLargeError
from forkwatch.demo.hub import Fault, LoopbackHub
from tests.crawler.shards import TensorPlan, header, safetensors, sharded

MODEL = RepoId("lab/sharded")
SHARDS: dict[str, TensorPlan] = {
    "model-00001-of-00002.safetensors": {"embed": 100, "layer.0": 50},
    "model-00002-of-00002.safetensors": {"layer.1": 70},
}
EXPECTED = {shard: json.loads(header(tensors)) for shard, tensors in SHARDS.items()}


def add(hub: LoopbackHub, files: dict[str, bytes]) -> None:
    hub.create_repo(MODEL)
    hub.commit(MODEL, files)


def parsed(client: HubClient) -> dict[str, object]:
    headers = client.tensor_headers(client.snapshot(MODEL))
    return {path: json.loads(text) for path, text in headers.items()}


def test_sharded_model_is_told_in_one_call(hub: LoopbackHub, client: HubClient) -> None:
    """And one more that the head is still the snapshot's commit; no file is touched."""
    add(hub, sharded(SHARDS))
    assert parsed(client) == EXPECTED
    assert (client.cost.api, client.cost.resolvers, client.cost.cdn) == (3, 0, 0)


def test_file_beside_the_shards_is_read(hub: LoopbackHub, client: HubClient) -> None:
    """An adapter is not in the index, and not overlooked."""
    add(hub, sharded(SHARDS) | {"adapter_model.safetensors": safetensors({"lora_A": 8})})
    assert parsed(client) == EXPECTED | {"adapter_model.safetensors": json.loads(header({"lora_A": 8}))}
    assert (client.cost.resolvers, client.cost.cdn) == (1, 1)


def test_single_file_is_one_read(hub: LoopbackHub, client: HubClient) -> None:
    """The first 100 kB hold the header, here as in 97 % of files; the bytes are the file's own."""
    add(hub, {"model.safetensors": safetensors({"w": 500_000}, padding=40)})
    snapshot = client.snapshot(MODEL)
    assert client.tensor_headers(snapshot) == {"model.safetensors": header({"w": 500_000}, padding=40)}
    assert (client.cost.api, client.cost.cdn, client.cost.bytes_downloaded) == (1, 1, 100_000)


def test_long_header_is_two_reads(hub: LoopbackHub, client: HubClient) -> None:
    """No byte is read twice, and none behind the header."""
    text = header({"w": 500_000}, padding=150_000)
    add(hub, {"model.safetensors": safetensors({"w": 500_000}, padding=150_000)})
    snapshot = client.snapshot(MODEL)
    assert client.tensor_headers(snapshot) == {"model.safetensors": text}
    assert (client.cost.cdn, client.cost.bytes_downloaded) == (2, 8 + len(text))


def test_other_commit_than_the_head_is_read_from_its_own_files(hub: LoopbackHub, client: HubClient) -> None:
    """The Hub tells the headers of the head only; a pushed-over snapshot is read at its commit."""
    add(hub, sharded(SHARDS))
    before = client.snapshot(MODEL)
    hub.commit(MODEL, sharded({shard: {"other": 9} for shard in SHARDS}))
    headers = client.tensor_headers(before)
    assert {path: json.loads(text) for path, text in headers.items()} == EXPECTED
    assert client.cost.cdn == 2


@pytest.mark.parametrize("kind", ["500", "not-json", "429"])
def test_failing_call_is_replaced_by_reads(hub: LoopbackHub, client: HubClient, kind: str) -> None:
    """Whatever is wrong with the short way, the files decide."""
    add(hub, sharded(SHARDS))
    hub.inject(Fault("safetensors-metadata", kind, times=-1))  # type: ignore[arg-type] # a Kind
    assert parsed(client) == EXPECTED
    assert client.cost.cdn == 2


def test_index_that_names_a_file_that_is_not_there(hub: LoopbackHub, client: HubClient) -> None:
    """What is there is told; the missing shard is the reader's finding."""
    files = sharded(SHARDS)
    del files["model-00002-of-00002.safetensors"]
    add(hub, files)
    shard = "model-00001-of-00002.safetensors"
    assert parsed(client) == {shard: EXPECTED[shard]}


def test_model_without_safetensors(hub: LoopbackHub, client: HubClient) -> None:
    """No files, no headers, no calls."""
    add(hub, {"model.gguf": b"GGUF"})
    snapshot = client.snapshot(MODEL)
    spent = client.cost
    assert client.tensor_headers(snapshot) == {}
    assert client.cost == spent


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", CorruptDownloadError),
        (b"short", CorruptDownloadError),
        (struct.pack("<Q", 1000) + b"{}", CorruptDownloadError),
        (struct.pack("<Q", 25_000_001) + b"{}", TooLargeError),
        (struct.pack("<Q", 2**64 - 1) + b"{}", TooLargeError),
    ],
)
def test_hostile_length_reads_nothing_more(
    hub: LoopbackHub, client: HubClient, content: bytes, error: type[Exception]
) -> None:
    """A header beyond the file or beyond 25 MB is refused at its first eight bytes."""
    add(hub, {"model.safetensors": content})
    snapshot = client.snapshot(MODEL)
    with pytest.raises(error):
        client.tensor_headers(snapshot)
    assert client.cost.bytes_downloaded == len(content)


def test_countless_files_are_refused_unread(hub: LoopbackHub, client: HubClient) -> None:
    """A repository of thousands of weight files costs no read."""
    add(hub, {f"{number}.safetensors": b"" for number in range(2001)})
    snapshot = client.snapshot(MODEL)
    spent = client.cost
    with pytest.raises(TooLargeError, match="2,001"):
        client.tensor_headers(snapshot)
    assert client.cost == spent


def test_only_headers_are_held(hub: LoopbackHub, client: HubClient) -> None:
    """Of a hundred files with small headers: not the 100 kB that were read of each."""
    content = safetensors({"w": 100_000})
    add(hub, {f"{number}.safetensors": content for number in range(100)})
    snapshot = client.snapshot(MODEL)
    client.tensor_headers(snapshot)  # connections are open and modules loaded
    tracemalloc.start()
    try:
        assert len(client.tensor_headers(snapshot)) == 100
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert client.cost.bytes_downloaded == 2 * 100 * 100_000
    assert peak < 5_000_000


def test_headers_are_added_up_while_they_are_read(
    hub: LoopbackHub, client: HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too much together is refused when that is clear, not after the last file."""
    monkeypatch.setattr("crawler.headers._MAX_TOTAL", 200_000)
    content = safetensors({"w": 10}, padding=60_000)
    add(hub, {f"{number}.safetensors": content for number in range(100)})
    snapshot = client.snapshot(MODEL)
    with pytest.raises(TooLargeError, match="tensor headers of more than"):
        client.tensor_headers(snapshot)
    assert client.cost.bytes_downloaded < 50 * len(content)
