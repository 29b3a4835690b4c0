from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from crawler.client import HubClient
from crawler.discover import default_sources, describe, discover_in_bulk
from crawler.interface import BadAnswerError, Channel, Shape
from crawler.local import LocalFile
from crawler.memory import InMemory
from crawler.sources.bulk import bulk_rows
from crawler.sources.declared import DeclaredSource
from crawler.sources.interface import Batch
from crawler.walk import Discovery, Progress, unwatched
from forkwatch.demo.hub import LoopbackHub
from tests.crawler.conftest import REPO
from tests.crawler.family import PARAMETERS, found, release

DATE = datetime(2026, 5, 1, tzinfo=UTC)


def row(repo: str, *tags: str, **more: Any) -> dict[str, Any]:
    """A row in the newest schema."""
    return {
        "_id": "66b0c0ffee",
        "id": repo,
        "tags": list(tags),
        "createdAt": DATE,
        "lastModified": DATE,
        "downloads": 12,
        "likes": 3,
        "cardData": "{}",
        "config": {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
        "safetensors": {"total": PARAMETERS},
        "gguf": {"architecture": None, "total": None, "chat_template": "x" * 100},
        "baseModels": None,
        **more,
    }


def dump(path: Path, rows: list[dict[str, Any]]) -> Path:
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path


def test_rows_are_those_of_a_listing(tmp_path: Path) -> None:
    """Ids, tags, dates, counts and shape, with what the dump tells of bases as tags."""
    base = {"relation": "finetune", "models": [{"_id": "1", "id": "lab/tiny-chat"}]}
    gguf = {"architecture": "llama", "total": 7, "chat_template": "y"}
    path = dump(
        tmp_path / "models.parquet",
        [row("x/a", "heretic", baseModels=base), row("x/b", gguf=gguf, safetensors=None)],
    )
    one, other = bulk_rows(path, "dump")
    assert (one.repo, one.downloads, one.likes) == ("x/a", 12, 3)
    assert one.tags == ("heretic", "base_model:lab/tiny-chat", "base_model:finetune:lab/tiny-chat")
    assert (one.created_at, one.last_modified, one.commit) == (DATE, DATE, None)
    assert other.shape is not None
    assert (other.shape.architecture, other.shape.parameters, other.shape.quantized) == ("llama", 7, True)


def test_nested_values_may_be_json_texts(tmp_path: Path) -> None:
    """Another era of the schema; text that is no JSON is unknown."""
    rows = [
        {"id": "x/a", "config": json.dumps({"model_type": "Llama"}), "safetensors": '{"total": 9}'},
        {"id": "x/b", "config": "{broken", "safetensors": "[" * 100_000},
    ]
    one, other = bulk_rows(dump(tmp_path / "m.parquet", rows), "dump")
    assert one.shape == Shape("llama", 9)
    assert other.shape is None


def test_only_the_id_is_required(tmp_path: Path) -> None:
    """The oldest era has little more; without tags the card tells what it declares."""
    card = json.dumps({"base_model": ["lab/tiny-chat", 7], "tags": ["uncensored", 3]})
    rows: list[dict[str, Any]] = [
        {"id": "x/a", "cardData": card},
        {"id": "old-model", "cardData": None},
        {"id": None},
    ]
    (one,) = bulk_rows(dump(tmp_path / "m.parquet", rows), "dump")
    assert one.tags == ("uncensored", "base_model:lab/tiny-chat")
    with pytest.raises(BadAnswerError, match="no column 'id'"):
        list(bulk_rows(dump(tmp_path / "n.parquet", [{"name": "x/a"}]), "dump"))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 100 + b"PAR1", b"no parquet" * 10])
def test_what_is_no_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    """A damaged or foreign file is an error of ours, by its name."""
    path = tmp_path / "m.parquet"
    path.write_bytes(content)
    with pytest.raises(BadAnswerError, match="the dump"):
        list(bulk_rows(path, "the dump"))


def test_remote_dump_is_read_by_ranges(tmp_path: Path) -> None:
    """A file on the Hub gives the same rows, and what is not needed of it is not read."""
    rows = [row(f"x/m{number}", cardData=secrets.token_hex(20_000)) for number in range(20)]
    path = dump(tmp_path / "models.parquet", rows)
    source = _Counted(path)
    assert list(bulk_rows(source, "dump")) == list(bulk_rows(path, "dump"))
    assert 0 < source.taken < path.stat().st_size / 2


class _Counted(LocalFile):
    """A local file that counts the bytes it gives."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.taken = 0

    def read(self, offset: int, length: int) -> bytes:
        self.taken += length
        return super().read(offset, length)


def test_every_channel_sees_the_dump(hub: LoopbackHub, client: HubClient, tmp_path: Path) -> None:
    """Children above their parents in the file are found by another pass; no call is made."""
    release(hub)
    rows = [
        row("x/grandchild", "base_model:x/child"),
        row("x/child", "base_model:lab/tiny-chat"),
        row("y/tiny-chat-free", "abliterated", "base_model:y/other"),
        row("z/silent"),
        row("z/foreign", "base_model:y/other"),
        row("z/tagged", "heretic", config={"model_type": "bert", "architectures": []}),
        row(REPO),
    ]
    path = dump(tmp_path / "models.parquet", rows)
    target, memory = describe(client, REPO), InMemory()
    before = client.cost
    done = discover_in_bulk(
        client, target, default_sources(), memory, lambda: bulk_rows(path, "dump"), "2026-05"
    )
    assert client.cost == before
    assert found(memory) == ["x/child", "x/grandchild", "y/tiny-chat-free", "z/silent"]
    assert found(memory, Channel.SHAPE) == ["z/silent"]
    assert found(memory, Channel.TAG) == ["y/tiny-chat-free"]
    assert done.rows == 3 * len(rows)
    assert memory.watermark("bulk:2026-05") is not None
    assert memory.watermark("feed") is None


def test_dump_counts_as_read_after_the_last_pass_only(
    hub: LoopbackHub, client: HubClient, tmp_path: Path
) -> None:
    """Killed between two passes, it is read again, and what stands above its parent is found then."""
    release(hub)
    rows = [row("x/grandchild", "base_model:x/child"), row("x/child", "base_model:lab/tiny-chat")]
    path = dump(tmp_path / "models.parquet", rows)
    target, memory = describe(client, REPO), InMemory()

    class KilledError(Exception):
        """Stands for a kill."""

    def die(batch: Batch) -> None:
        del batch
        raise KilledError

    def read(progress: Progress) -> Discovery:
        return discover_in_bulk(
            client,
            target,
            default_sources(),
            memory,
            lambda: bulk_rows(path, "dump"),
            "may",
            progress=progress,
        )

    with pytest.raises(KilledError):
        read(die)
    assert found(memory) == ["x/child"]
    assert memory.watermark("bulk:may") is None
    read(unwatched)
    assert found(memory) == ["x/child", "x/grandchild"]
    assert memory.watermark("bulk:may") is not None


def test_dump_of_too_many_generations_is_not_finished(
    hub: LoopbackHub, client: HubClient, tmp_path: Path
) -> None:
    """Each above its parent: after eight passes that is said, and the next run goes on."""
    release(hub)
    rows = [row(f"x/m{number}", f"base_model:x/m{number - 1}") for number in range(11, 0, -1)]
    path = dump(tmp_path / "models.parquet", [*rows, row("x/m0", "base_model:lab/tiny-chat")])
    memory = InMemory()

    def read() -> Discovery:
        target, sources = describe(client, REPO), (DeclaredSource(),)
        return discover_in_bulk(client, target, sources, memory, lambda: bulk_rows(path, "dump"), "may")

    assert read().unfinished == "may"
    assert len(found(memory)) == 8
    assert memory.watermark("bulk:may") is None
    assert not read().unfinished
    assert len(found(memory)) == 12
    assert memory.watermark("bulk:may") is not None
