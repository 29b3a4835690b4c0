from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from huggingface_hub import HfApi
from pyarrow import parquet

from crawler.client import HubClient
from crawler.dataset import InvalidDatasetPathError, parse_dataset_path
from crawler.discover import default_sources, describe, discover_in_bulk
from crawler.interface import (
    AccessDeniedError,
    BadAnswerError,
    BudgetExceededError,
    Channel,
    FileMissingError,
    NoSpaceError,
    RangeIgnoredError,
    RepoNotFoundError,
    Shape,
)
from crawler.memory import InMemory
from crawler.sources import bulk
from crawler.sources.bulk import bulk_rows, fetch_columns
from crawler.sources.declared import DeclaredSource
from crawler.sources.interface import Batch
from crawler.walk import Discovery, Progress, unwatched
from forkwatch.demo.hub import Fault, LoopbackHub
from tests.crawler.conftest import REPO, MakeClient
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


def dump(path: Path, rows: list[dict[str, Any]], group: int = 2) -> Path:
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
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


DUMPS = "cfahlgren1/hub-stats"


def big_dump(path: Path, rows: int = 400) -> Path:
    """A dump whose cards, which are not read, are nearly all of it."""
    return dump(path, [row(f"x/m{number}", cardData=secrets.token_hex(4000)) for number in range(rows)], 100)


@pytest.fixture
def dumped(hub: LoopbackHub, tmp_path: Path) -> Path:
    """A dump of 1.6 MB in a dataset on the hub, as a local file too."""
    path = big_dump(tmp_path / "models.parquet")
    hub.create_dataset(DUMPS)
    hub.commit(f"datasets/{DUMPS}", {"data/models.parquet": path})
    return path


PLACE = parse_dataset_path(f"hf://datasets/{DUMPS}/data/models.parquet")


def test_dump_on_the_hub_is_read_by_columns(
    hub: LoopbackHub, client: HubClient, dumped: Path, tmp_path: Path
) -> None:
    """The same rows, for a pin and a few ranges; the copy takes no more room than what came."""
    before = client.cost
    commit, source = client.dataset_file(PLACE)
    copy = tmp_path / "copy.parquet"
    fetch_columns(source, copy, "dump")
    cost = client.cost - before

    assert list(bulk_rows(copy, "dump")) == list(bulk_rows(dumped, "dump"))
    assert commit == HfApi(endpoint=hub.endpoint, token=False).dataset_info(DUMPS).sha
    assert (cost.api, cost.resolvers) == (0, 2)
    assert cost.cdn <= 1 + 4 * 2  # the footer, and in each row group what stands before and behind the cards
    assert 0 < cost.bytes_downloaded < dumped.stat().st_size / 10
    assert copy.stat().st_size == dumped.stat().st_size
    assert copy.stat().st_blocks * 512 < dumped.stat().st_size / 4


def test_large_dump_is_fetched_a_few_ranges_at_a_time(
    client: HubClient, dumped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the columns are cut into pieces that fit into memory, the rows are the same."""
    monkeypatch.setattr(bulk, "_AT_ONCE", 1000)
    seen: list[tuple[int, int]] = []
    copy = tmp_path / "copy.parquet"
    fetch_columns(client.dataset_file(PLACE)[1], copy, "d", progress=lambda _, *at: seen.append(at))
    assert list(bulk_rows(copy, "dump")) == list(bulk_rows(dumped, "dump"))
    assert len(seen) > 3
    assert seen[-1][0] == seen[-1][1]
    assert all(later[0] - earlier[0] <= 1000 for earlier, later in pairwise(seen))


def test_dump_that_changes_while_it_is_read_stays_the_pinned_one(
    hub: LoopbackHub, client: HubClient, dumped: Path, tmp_path: Path
) -> None:
    """A new commit is another dump."""
    commit, source = client.dataset_file(PLACE)
    later = hub.commit(f"datasets/{DUMPS}", {"data/models.parquet": big_dump(tmp_path / "later", 5)})
    fetch_columns(source, tmp_path / "copy", "dump")
    assert list(bulk_rows(tmp_path / "copy", "dump")) == list(bulk_rows(dumped, "dump"))
    assert client.dataset_file(PLACE)[0] == later != commit
    pinned = parse_dataset_path(f"hf://datasets/{DUMPS}@{commit}/data/models.parquet")
    assert client.dataset_file(pinned)[0] == commit


def test_server_that_ignores_range_is_refused(
    hub: LoopbackHub, client: HubClient, dumped: Path, tmp_path: Path
) -> None:
    """Before the dump is read whole; the error is the crawler's own, through pyarrow."""
    hub.inject(Fault("cdn", "ignore-range", times=-1, repo=f"datasets/{DUMPS}"))
    before = client.cost
    with pytest.raises(RangeIgnoredError):
        fetch_columns(client.dataset_file(PLACE)[1], tmp_path / "copy", "dump")
    assert client.cost.bytes_downloaded - before.bytes_downloaded < 100_000


def test_dump_over_the_budget_is_not_read(make_client: MakeClient, dumped: Path, tmp_path: Path) -> None:
    """A dataset has the byte budget of any repository."""
    with pytest.raises(BudgetExceededError):
        fetch_columns(make_client(budget=50_000).dataset_file(PLACE)[1], tmp_path / "copy", "dump")


def test_dump_that_does_not_fit_on_the_disk_is_not_read(
    client: HubClient, dumped: Path, tmp_path: Path
) -> None:
    """The free space is looked at when it is known how much is wanted."""
    with pytest.raises(NoSpaceError):
        fetch_columns(client.dataset_file(PLACE)[1], tmp_path / "copy", "dump", floor=1 << 60)


def test_dataset_that_cannot_be_had(hub: LoopbackHub, client: HubClient, dumped: Path) -> None:
    """Absent, gated, without the file, or with a small one, of which the Hub tells no hash."""
    hub.commit(f"datasets/{DUMPS}", {"small.json": b"{}"}, replace=False)
    for path, kind in (("none.parquet", FileMissingError), ("small.json", BadAnswerError)):
        with pytest.raises(kind):
            client.dataset_file(parse_dataset_path(f"hf://datasets/{DUMPS}/{path}"))
    with pytest.raises(RepoNotFoundError):
        client.dataset_file(parse_dataset_path("hf://datasets/x/none/models.parquet"))
    hub.set_access(f"datasets/{DUMPS}", gated=True)
    with pytest.raises(AccessDeniedError):
        client.dataset_file(PLACE)


@pytest.mark.parametrize(
    ("text", "revision", "path"),
    [
        ("hf://datasets/a/b/c.parquet", "main", "c.parquet"),
        ("hf://datasets/a/b@v1.0/c/d.parquet", "v1.0", "c/d.parquet"),
        ("hf://datasets/a/b@feature%2Fx/c", "feature/x", "c"),
        (
            "hf://datasets/a/b@refs/convert/parquet/default/0.parquet",
            "refs/convert/parquet",
            "default/0.parquet",
        ),
    ],
)
def test_address_of_a_dataset_file(text: str, revision: str, path: str) -> None:
    """As `HfFileSystem` writes it; reading what is written gives the same."""
    found = parse_dataset_path(text)
    assert (found.repo, found.revision, found.path) == ("a/b", revision, path)
    assert parse_dataset_path(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "hf://a/b/c.parquet",
        "hf://datasets/a/b",
        "hf://datasets/a/b/",
        "hf://datasets/a/b@/c",
        "hf://datasets/a/b/../c",
        "hf://datasets/../b/c",
        "hf://datasets/a/b@%0a/c",
        "https://huggingface.co/datasets/a/b/c",
        "hf://datasets/a/b/c\nd",
        "",
    ],
)
def test_address_that_is_none(text: str) -> None:
    """Refused, with what one looks like."""
    with pytest.raises(InvalidDatasetPathError):
        parse_dataset_path(text)


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
