"""Fingerprints and their table on disk: what was written is read, what was damaged is refused in one line."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detector.errors import FingerprintError
from detector.index.storage import (
    file_name,
    load_description,
    load_fingerprint,
    load_signatures,
    save_fingerprint,
)
from detector.index.table import FILE, open_table
from tests.detector import zoo
from tests.detector.index_models import fingerprint, keep


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return save_fingerprint(tmp_path, fingerprint(zoo.base(1), "one"))


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the header's JSON, keeping the file's layout valid."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def described(**fields: object) -> Callable[[dict[str, Any]], None]:
    """Set fields of the description."""

    def change(header: dict[str, Any]) -> None:
        found = json.loads(header["__metadata__"]["forkwatch"])
        header["__metadata__"]["forkwatch"] = json.dumps(found | fields)

    return change


def test_what_is_written_is_read(stored: Path) -> None:
    """A fingerprint survives the disk exactly, and the same model gives the same bytes."""
    made, read = fingerprint(zoo.base(1), "one"), load_fingerprint(stored)

    assert (read.identity, read.shape) == (made.identity, made.shape)
    assert all(
        np.array_equal(read.bands.layers[layer], made.bands.layers[layer]) for layer in made.shape.layers
    )
    assert read.bands.gains.keys() == made.bands.gains.keys() == {0, 1, 2, 3}
    assert all(np.array_equal(read.bands.gains[layer], made.bands.gains[layer]) for layer in made.bands.gains)
    assert read.bands.kind == made.bands.kind
    assert np.array_equal(read.signatures, made.signatures)
    before = stored.read_bytes()
    assert save_fingerprint(stored.parent, made).read_bytes() == before


@pytest.mark.parametrize(("dtype", "size"), [(torch.bfloat16, 2), (torch.float16, 2), (torch.float32, 4)])
def test_values_are_kept_exactly(tmp_path: Path, dtype: torch.dtype, size: int) -> None:
    """In the model's own type, so that a merge that was computed from them can be reproduced."""
    model = {name: value.float() * 1.001 for name, value in zoo.base(1).items()}
    made = fingerprint(zoo.cast(model, dtype), "one")
    path = save_fingerprint(tmp_path, made)
    read = load_fingerprint(path).bands

    assert all(np.array_equal(read.layers[layer], made.bands.layers[layer]) for layer in read.layers)
    assert path.stat().st_size < (4 * 32 + 64 + 4) * zoo.SMALL.hidden * size + 4000


def test_it_is_private_and_whole(stored: Path) -> None:
    """Only the owner reads it, and no part of a write stays behind."""
    assert stored.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in stored.parent.iterdir()] == [stored.name]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(share=st.floats(0, 0.9999))
def test_truncation_is_noticed(stored: Path, share: float) -> None:
    """A file that ends early, wherever, is refused with its name."""
    whole = stored.read_bytes()
    cut = stored.parent / "cut" / stored.name
    cut.parent.mkdir(exist_ok=True)
    cut.write_bytes(whole[: int(share * len(whole))])

    for load in (load_fingerprint, load_signatures, load_description):
        with pytest.raises(FingerprintError, match=stored.name):
            load(cut)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(place=st.integers(0, 1500), value=st.integers(0, 255))
def test_a_changed_byte_never_crashes(stored: Path, place: int, value: int) -> None:
    """Any byte of the header region set to anything: read, or refused as a fingerprint."""
    content = bytearray(stored.read_bytes())
    content[place] = value
    other = stored.parent / "changed" / stored.name
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(content)
    with suppress(FingerprintError):
        assert load_fingerprint(other).identity.name == "one"


@pytest.mark.parametrize(
    "fields",
    [
        {"schema": "forkwatch.fingerprint/2"},
        {"name": "another"},
        {"name": "x\x1b[2J"},
        {"name": ""},
        {"kind": "friend"},
        {"neurons": "\n"},
        {"repo": "../../etc"},
        {"commit": "main"},
        {"root_digest": "sha256:"},
        {"inventory": None},
        {"width": 0},
        {"width": 1 << 40},
        {"width": True},
        {"layers": []},
        {"layers": [3, 2, 1, 0]},
        {"layers": [0, 0, 1, 2]},
        {"layers": ["0"]},
        {"layers": list(range(5000))},
        {"parameters": -1},
    ],
    ids=str,
)
def test_a_false_description_is_refused(stored: Path, fields: dict[str, object]) -> None:
    """Names that are not where they lie, ids that are none, and numbers out of bounds."""
    rewrite(stored, described(**fields))

    with pytest.raises(FingerprintError, match="not a fingerprint of this version"):
        load_description(stored)


def test_tensors_that_do_not_fit_the_description_are_refused(stored: Path) -> None:
    """Fewer layers than signatures, another type, and values that are not finite."""
    whole = stored.read_bytes()
    rewrite(stored, described(layers=[0, 1, 2]))
    with pytest.raises(FingerprintError, match="no signatures of type I8"):
        load_fingerprint(stored)

    stored.write_bytes(whole)
    rewrite(stored, lambda header: header["band.0"].update(dtype="U16"))
    with pytest.raises(FingerprintError, match=r"no band\.0 with floating-point values"):
        load_fingerprint(stored)

    made = fingerprint(zoo.base(1), "one")
    made.bands.layers[0][0, 0] = float("nan")
    with pytest.raises(FingerprintError, match="not finite"):
        load_fingerprint(save_fingerprint(stored.parent, made))


def test_not_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FingerprintError):
        load_description(tmp_path / file_name("none"))


def test_the_table_follows_the_files(tmp_path: Path) -> None:
    """Added, replaced and removed models are in the next search, without reading the others again."""
    keep(tmp_path, range(4))
    assert open_table(tmp_path).size == 4
    before = (tmp_path / FILE).stat().st_mtime_ns

    assert open_table(tmp_path).size == 4
    assert (tmp_path / FILE).stat().st_mtime_ns == before, "an unchanged index is not written"

    (tmp_path / file_name("2")).unlink()
    save_fingerprint(tmp_path, fingerprint(zoo.base(9), "3"))
    one = fingerprint(zoo.base(9))
    table = open_table(tmp_path)

    assert table.size == 3
    assert table.search(one.shape.width, one.signatures, one.gain_codes)[0].file == file_name("3")


def test_a_damaged_fingerprint_spoils_only_itself(tmp_path: Path) -> None:
    """The other models are searched, and the damaged one is named with its reason."""
    keep(tmp_path, range(3))
    (tmp_path / file_name("1")).write_bytes(b"\0" * 64)

    table = open_table(tmp_path)

    assert table.size == 2
    assert table.broken.keys() == {file_name("1")}
    assert open_table(tmp_path).broken == table.broken, "it is named every time"


@pytest.mark.parametrize("damage", ["truncated", "garbage", "foreign", "gone"])
def test_a_damaged_table_is_made_anew(tmp_path: Path, damage: str) -> None:
    """The table is a cache: whatever happened to it, the files decide."""
    keep(tmp_path, range(3))
    open_table(tmp_path)
    path = tmp_path / FILE
    whole = path.read_bytes()
    match damage:
        case "truncated":
            path.write_bytes(whole[:-10])
        case "garbage":
            path.write_bytes(os.urandom(len(whole)))
        case "foreign":
            path.write_bytes(zoo.safetensors_bytes(zoo.base(1)))
        case _:
            path.unlink()

    one = fingerprint(zoo.base(1))
    found = open_table(tmp_path).search(one.shape.width, one.signatures, one.gain_codes)

    assert found[0].file == file_name("1")
    assert path.read_bytes() == whole


def test_an_empty_folder_is_an_empty_table(tmp_path: Path) -> None:
    one = fingerprint(zoo.base(1))

    assert open_table(tmp_path).size == 0
    assert open_table(tmp_path).search(one.shape.width, one.signatures, None) == []
