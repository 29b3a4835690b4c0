"""`[hub] xet`: evidence from how the Hub stores changed weight files, over sockets."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from detector.provenance.sign import generate_key, sign_release
from forkwatch.demo.hub import Fault, LoopbackHub
from tests.forkwatch.family import CONFIG, RELEASE, Family, card

ROWS = 1 << 18
"""Of four numbers: 4 MiB of noise, some 60 chunks."""


def noise(seed: int) -> bytes:
    """A safetensors file with one tensor of noise that is finite in every dtype."""
    header = json.dumps(
        {"model.w.weight": {"dtype": "F32", "shape": [ROWS, 4], "data_offsets": [0, ROWS * 16]}}
    ).encode()
    values = bytearray(random.Random(seed).randbytes(ROWS * 16))
    values[3::4] = bytes(len(values) // 4)
    return len(header).to_bytes(8, "little") + header + bytes(values)


def edited() -> bytes:
    """The release's file with another kibibyte in its middle."""
    whole = bytearray(noise(1))
    whole[2 << 20 : (2 << 20) + 1024] = bytes(1024)
    return bytes(whole)


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    with guarded(tmp_path, xet=True) as made:
        yield made


@contextmanager
def guarded(tmp_path: Path, *, xet: bool) -> Iterator[Family]:
    """A guarded release and three forks on a hub that stores that way, or does not."""
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "model.safetensors").write_bytes(noise(1))
    keys = generate_key(tmp_path)
    sign_release(folder, keys.private)
    with LoopbackHub(xet=xet) as hub:
        hub.create_repo(RELEASE)
        hub.commit(RELEASE, {path.name: path for path in folder.iterdir()})
        made = Family(hub, tmp_path / "state")
        added = made.run("release", "add", RELEASE, "--public-key", str(keys.public))
        assert added.exit_code == 0, added.stderr
        for name, content in (("ann/edited", edited()), ("bob/other", noise(2)), ("cyd/copy", noise(1))):
            hub.create_repo(name)
            hub.commit(
                name, {"README.md": card(RELEASE), "config.json": CONFIG, "model.safetensors": content}
            )
        yield made


def scan(family: Family, repo: str, xet: str = "true") -> dict[str, Any]:
    done = family.run("scan", repo, "--depth", "match", "--json", FORKWATCH_HUB__XET=xet)
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def shared(document: dict[str, Any]) -> list[tuple[object, str]]:
    return [
        (item["value"], item["note"])
        for item in document["lineage"]["evidence"]
        if item["name"] == "xet-shared-bytes"
    ]


def asked(family: Family) -> list[str]:
    """Requests about storage so far."""
    routes = [request.route or "" for request in family.hub.requests]
    return [route for route in routes if route.startswith("xet")]


def test_an_edited_file_shares_what_was_not_edited(family: Family) -> None:
    """Most of it is proved equal, not all; a token and a reconstruction for each side, once ever."""
    ((share, note),) = shared(scan(family, "ann/edited"))

    assert isinstance(share, float)
    assert 0.5 < share < 1
    assert note.startswith("model.safetensors: ")
    assert "of the others this proves nothing" in note
    assert asked(family) == ["xet-token", "xet-reconstruction"] * 2
    assert shared(scan(family, "ann/edited")) == [(share, note)]
    assert len(asked(family)) == 4


def test_another_file_shares_nothing_and_that_proves_nothing(family: Family) -> None:
    """The rest of the document is what it is without storage."""
    without, document = scan(family, "bob/other", "false"), scan(family, "bob/other")

    ((share, note),) = shared(document)
    assert share == 0
    assert "0 of 4,194" in note
    assert document["lineage"]["status"] == without["lineage"]["status"] == "unknown"
    assert document["verdict"] == without["verdict"]
    assert document["findings"] == without["findings"]


def test_off_by_default_nothing_is_asked(family: Family) -> None:
    """Nor is it for a file whose hash is the release's."""
    done = family.run("scan", "ann/edited", "--depth", "match", "--json")
    assert shared(json.loads(done.stdout)) == []
    assert shared(scan(family, "cyd/copy")) == []
    assert asked(family) == []


@pytest.mark.parametrize("route", ["xet-token", "xet-reconstruction"])
@pytest.mark.parametrize("kind", ["500", "not-json", "reset"])
def test_a_store_that_fails_fails_no_scan(family: Family, route: Any, kind: Any) -> None:
    """It is not measured, and why."""
    family.hub.inject(Fault(route, kind, times=-1))
    ((value, note),) = shared(scan(family, "ann/edited"))

    assert value == "not measured"
    assert note.startswith("model.safetensors: ann/edited@")


def test_a_file_outside_the_store_is_not_measured(tmp_path: Path) -> None:
    """A hub without such storage says nothing, and no token is asked for."""
    with guarded(tmp_path, xet=False) as family:
        ((value, note),) = shared(scan(family, "ann/edited"))
        assert (value, asked(family)) == ("not measured", [])
        assert note == "model.safetensors: the Hub does not say how it stores the file"
