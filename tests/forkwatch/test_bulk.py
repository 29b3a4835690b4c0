"""`[crawl] bulk`: a crawl that starts from a dump of the Hub's models, on the disk or on the Hub."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from forkwatch.demo.hub import Fault, LoopbackHub
from tests.forkwatch.family import RELEASE, Family, publish_release

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

DUMPS = "datasets/cfahlgren1/hub-stats"
PLACE = f"hf://{DUMPS}/models.parquet"


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    """The release is guarded, and nothing else is there."""
    hub = LoopbackHub()
    key = publish_release(hub, tmp_path / "release")
    with hub:
        made = Family(hub, tmp_path / "state")
        added = made.run("release", "add", RELEASE, "--public-key", str(key))
        assert added.exit_code == 0, added.stderr
        hub.create_dataset(DUMPS.removeprefix("datasets/"))
        yield made


def dump(path: Path, *repos: str) -> Path:
    """A file of 1.2 MB and more, nearly all of it cards."""
    rows = [
        {
            "id": repo,
            "_id": hashlib.sha256(repo.encode()).hexdigest()[:24],
            "tags": [f"base_model:{RELEASE}"],
            "downloads": 5,
            "cardData": "".join(chr(32 + (number * at) % 95) for at in range(1, 600_000)),
        }
        for number, repo in enumerate((*repos, "zoe/last"), 7)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), path, compression="none", use_dictionary=False)
    assert path.stat().st_size > 1 << 20
    return path


def crawl(family: Family, bulk: str) -> Result:
    return family.run("crawl", "--json", FORKWATCH_CRAWL__BULK=bulk)


def found(done: Result) -> set[str]:
    assert done.exit_code == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return {candidate["repo"] for candidate in document["candidates"]}


def one_line(done: Result) -> str:
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("forkwatch:")]
    return line


def test_a_dump_is_read_once(family: Family, tmp_path: Path) -> None:
    """What only a dump knows is a candidate, and a look shows that it is gone; no file is read twice."""
    path = dump(tmp_path / "models.parquet", "old/vanished")

    first = json.loads(crawl(family, str(path)).stdout)
    again = crawl(family, str(path))

    assert first["gone"] == ["old/vanished", "zoe/last"]
    assert ("old/vanished", "deleted") in {(event["repo"], event["kind"]) for event in first["events"]}
    assert "read models.parquet" not in again.stderr
    assert json.loads(again.stdout)["events"] == []


def test_a_dump_that_is_not_there(family: Family, tmp_path: Path) -> None:
    """A wrong path in the settings is a usage error, in one line."""
    done = family.run("crawl", FORKWATCH_CRAWL__BULK=str(tmp_path / "none.parquet"))

    assert done.exit_code == 2
    assert len([line for line in done.stderr.splitlines() if line.startswith("forkwatch:")]) == 1


def test_a_dump_on_the_hub_finds_what_the_file_finds(family: Family, tmp_path: Path) -> None:
    """The same candidates, for a fraction of the bytes, and nothing is left in the scratch folder."""
    path = dump(tmp_path / "models.parquet", "old/vanished", "old/other")
    family.hub.commit(DUMPS, {"models.parquet": path})
    other = Family(family.hub, shutil.copytree(family.state, tmp_path / "other"))

    remote = crawl(family, PLACE)
    local = crawl(other, str(path))

    assert found(remote) == found(local) == {"old/vanished", "old/other", "zoe/last"}
    asked = [request for request in family.hub.requests if request.repo == DUMPS]
    assert [request.method for request in asked if request.route == "resolve"] == ["HEAD", "HEAD"]
    sent = json.loads(remote.stdout)["cost"]["bytes_downloaded"]
    assert 0 < sent < path.stat().st_size / 5
    assert list((family.state / "scratch").iterdir()) == []


def test_a_dump_on_the_hub_is_read_once_and_a_newer_one_again(family: Family, tmp_path: Path) -> None:
    """What was read costs one call to see; another commit is another dump."""
    family.hub.commit(DUMPS, {"models.parquet": dump(tmp_path / "a", "old/vanished")})
    crawl(family, PLACE)
    before = len([request for request in family.hub.requests if request.repo == DUMPS])
    again = crawl(family, PLACE)
    asked = [request for request in family.hub.requests if request.repo == DUMPS][before:]
    assert [request.method for request in asked] == ["HEAD"]
    assert "read models.parquet" not in again.stderr

    family.hub.commit(DUMPS, {"models.parquet": dump(tmp_path / "b", "old/newer")})
    assert "old/newer" in found(crawl(family, PLACE))


def test_a_dataset_that_cannot_be_had_is_one_line(family: Family, tmp_path: Path) -> None:
    """Absent, gated, or on a server that ignores ranges: the Hub's fault, with 4."""
    absent = crawl(family, PLACE.replace("hub-stats", "none"))
    family.hub.commit(DUMPS, {"models.parquet": dump(tmp_path / "a", "old/vanished")})
    family.hub.inject(Fault("cdn", "ignore-range", times=-1))
    ignoring = crawl(family, PLACE)
    family.hub.clear_faults()
    family.hub.set_access(DUMPS, gated=True)
    gated = crawl(family, PLACE)

    assert (absent.exit_code, ignoring.exit_code, gated.exit_code) == (4, 4, 4)
    assert "no such repository" in one_line(absent)
    assert "ignores Range" in one_line(ignoring)
    assert "gated" in one_line(gated)


@pytest.mark.parametrize("place", ["hf://models/x/y/z", "hf://datasets/x/y", "https://example.org/x.parquet"])
def test_a_place_that_is_none(family: Family, place: str) -> None:
    """A usage error that names the setting, before anything is asked for."""
    before = len(family.hub.requests)
    done = crawl(family, place)

    assert done.exit_code == 2
    assert "crawl.bulk" in one_line(done)
    assert "hf://datasets/org/name/models.parquet" in one_line(done)
    assert len(family.hub.requests) == before
