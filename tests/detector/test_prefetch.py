"""Reads that depend on each other are fetched together, round by round, and give what single reads give."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.errors import MalformedWeightsError
from detector.formats import open_weights
from detector.prefetch import Deferred, read_together
from detector.sketch import sketch_weights
from tests.detector import zoo
from tests.detector.counting import Counting, counted
from tests.detector.zoo import one_file

DATA = bytes(range(256)) * 4


def chain(source: Deferred, start: int, steps: int) -> list[int]:
    """Read a byte, go where it points, and so on: each read depends on the one before."""
    path = [start]
    for _ in range(steps):
        path.append(source.read(path[-1] + 8, 1)[0] * 3 % 500)
    return path


@given(starts=st.lists(st.integers(0, 500), min_size=1, max_size=8), steps=st.integers(0, 5))
def test_dependent_reads_take_one_round_a_step(starts: list[int], steps: int) -> None:
    """The result is that of plain reads, in as many calls as the longest chain has steps."""
    counting = Counting(DATA)
    source = Deferred(counting)
    found = read_together([partial(chain, source, start, steps) for start in starts])
    plain = Deferred(Counting(DATA))
    assert found == [chain(plain, start, steps) for start in starts]
    assert counting.single == 0
    assert len(counting.many) <= steps
    assert source.bytes_read == counting.bytes_read


def test_a_range_is_fetched_once_however_many_need_it() -> None:
    """Two reads of one range cost one; afterwards nothing is held."""
    counting = Counting(DATA)
    source = Deferred(counting)
    assert read_together([lambda: source.read(100, 10), lambda: source.read(100, 10)]) == [DATA[100:110]] * 2
    assert counting.many == [1]
    source.read(100, 10)
    assert counting.single == 1


def test_what_a_read_raises_is_raised() -> None:
    """An error of a reader is not swallowed, and the source is usable afterwards."""
    source = Deferred(Counting(DATA))

    def fail() -> None:
        source.read(3, 4)
        raise MalformedWeightsError("broken")

    with pytest.raises(MalformedWeightsError, match="broken"):
        read_together([fail])
    assert source.read(3, 4) == DATA[3:7]


def test_headers_of_all_shards_take_one_round() -> None:
    """One call a shard brings length and header together."""
    files = counted(zoo.sharded(zoo.base(1), 5))
    open_weights(files)
    shards = [file for path, file in files.items() if path.endswith(".safetensors")]
    assert [file.many for file in shards] == [[1]] * 5
    assert all(file.single == 0 for file in shards)


@pytest.mark.parametrize("scheme", ["", "Q8_0", "Q6_K"])
def test_a_sketch_takes_a_handful_of_calls(scheme: str, tmp_path: Path) -> None:
    """Whatever the format, bands come in a few calls of many ranges, not in one call each."""
    shape = zoo.Shape(hidden=256, inter=512, layers=6, vocab=512)
    weights = zoo.base(1, shape)
    fork = zoo.dense(weights, 2, 0.02)
    files = counted(zoo.gguf_file(fork, scheme, tmp_path, shape) if scheme else zoo.sharded(fork))
    reader = open_weights(files)
    opened = {path: file.single for path, file in files.items()}
    sketch = sketch_weights(open_weights(one_file(weights)), reader, budget_bytes=1 << 20)
    assert len(sketch.tensors) > 40
    for path, file in files.items():
        assert file.single == opened[path]
        assert len(file.many) <= 8
    assert sum(file.bytes_read for file in files.values()) >= reader.bytes_read
