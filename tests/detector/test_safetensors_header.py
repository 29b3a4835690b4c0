"""The safetensors reader accepts what the reference library writes, and refuses every hostile header."""

from __future__ import annotations

import gc
import json
import struct
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from detector.errors import MalformedWeightsError, UnreadableTensorError
from detector.formats import open_weights
from detector.formats import safetensors_header as header
from detector.formats.safetensors import SafetensorsReader
from detector.formats.safetensors_header import read_header
from tests.detector.zoo import MemoryFile, one_file, safetensors_bytes

GOOD = safetensors_bytes({"a.weight": torch.ones(2, 3), "b.weight": torch.zeros(4, dtype=torch.bfloat16)})


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def built(tensors: object, data: bytes = b"\0" * 8) -> bytes:
    text = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text + data


HOSTILE = {
    "empty file": b"",
    "seven bytes": b"\0" * 7,
    "header longer than the file": struct.pack("<Q", 100) + b"{}",
    "header of 2**63 bytes": struct.pack("<Q", 1 << 63) + b"{}",
    "header over the cap": struct.pack("<Q", header.MAX_HEADER + 1) + b" " * 64,
    "not JSON": built(b"{nonsense"),
    "not UTF-8": built(b'{"\xff\xfe": 1}'),
    "leading space": built(b" {}", b""),
    "a list": built(b"[]", b""),
    "NaN": built(b'{"a": NaN}'),
    "deep nesting": built(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "huge integer": built(b'{"a": ' + b"9" * 5000 + b"}"),
    "duplicate name": built(
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},'
        b' "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'
    ),
    "duplicate field": built(
        b'{"a": {"dtype": "F32", "dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'
    ),
    "extra field": built({"a": entry() | {"extra": 1}}),
    "missing field": built({"a": {"dtype": "F32", "shape": [2]}}),
    "unknown dtype": built({"a": entry(dtype="F128")}),
    "dtype is a list": built({"a": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}}),
    "negative dimension": built({"a": entry(shape=(-2,))}),
    "boolean dimension": built({"a": entry(shape=(True, 2))}),
    "float dimension": built({"a": entry(shape=(2.0,))}),
    "shape too large for its bytes": built({"a": entry(shape=(3,))}),
    "zero elements, absurd shape": built({"a": entry(shape=(0, 1 << 60), offsets=(0, 0))}, b""),
    "too many dimensions": built({"a": entry(shape=(1,) * 8 + (2,))}),
    "reversed offsets": built({"a": entry(offsets=(8, 0))}),
    "three offsets": built({"a": entry(offsets=(0, 4, 8))}),
    "hole": built({"a": entry(offsets=(0, 8)), "b": entry(offsets=(12, 20))}, b"\0" * 20),
    "overlap": built({"a": entry(offsets=(0, 8)), "b": entry(offsets=(4, 12))}, b"\0" * 12),
    "trailing bytes": built({"a": entry()}, b"\0" * 9),
    "truncated data": GOOD[:-1],
    "half a byte": built({"a": entry(dtype="F4", shape=(3,), offsets=(0, 1))}, b"\0"),
    "control character in a name": built({"a\x1b[2J": entry()}),
    "empty name": built({"": entry()}),
    "endless name": built({"a" * 600: entry()}),
    "metadata of numbers": built({"__metadata__": {"a": 1}, "a": entry()}),
    "metadata is a list": built({"__metadata__": [], "a": entry()}),
}


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in HOSTILE.items()])
def test_hostile_headers_are_refused(data: bytes) -> None:
    """Each broken header raises the one error that becomes a finding."""
    with pytest.raises(MalformedWeightsError):
        read_header(MemoryFile(data), "model.safetensors")


def test_too_many_tensors_are_refused() -> None:
    """The number of tensors is capped, empty ones included."""
    empty = entry(shape=(0,), offsets=(0, 0))
    tensors = {str(index): empty for index in range(header.MAX_TENSORS + 1)}
    with pytest.raises(MalformedWeightsError, match="tensors, more than"):
        read_header(MemoryFile(built(tensors, b"")), "model.safetensors")


def test_reads_what_the_library_writes() -> None:
    """Names, shapes and values of a file written by the reference library come back unchanged."""
    tensors = {
        "x.weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
        "y.weight": torch.arange(6, dtype=torch.int64).reshape(2, 3),
        "z.weight": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "s": torch.tensor(2.0),
        "e": torch.zeros(0, 4),
    }
    reader = open_weights({"model.safetensors": MemoryFile(save(tensors, {"format": "pt"}))})
    assert set(reader.tensors()) == set(tensors)
    for name, value in tensors.items():
        assert reader.tensors()[name].shape == tuple(value.shape)
        assert torch.equal(reader.values(name), value)
        assert reader.values(name).dtype == value.dtype


@given(first=st.integers(0, 9), rows=st.integers(0, 12))
def test_band_is_a_slice(first: int, rows: int) -> None:
    """Law: `band(name, first, rows)` is `values(name)[first : first + rows]`, and reads those bytes alone."""
    value = torch.arange(40, dtype=torch.float32).reshape(8, 5)
    reader = open_weights(one_file({"a.weight": value}))
    before = reader.bytes_read
    band = reader.band("a.weight", first, rows)
    assert torch.equal(band, value[first : first + rows])
    assert reader.bytes_read - before == band.numel() * 4


def test_scalar_has_no_rows() -> None:
    """A band of a scalar is refused as unreadable, not as a bug."""
    reader = open_weights(one_file({"s": torch.tensor(1.0)}))
    with pytest.raises(UnreadableTensorError):
        reader.band("s", 0, 1)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_never_crash(data: bytes) -> None:
    """Random bytes are malformed, whatever they are."""
    with pytest.raises(MalformedWeightsError):
        read_header(MemoryFile(data), "fuzz")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.integers(0, len(GOOD)))
def test_mutated_files_are_read_or_refused(position: int, byte: int, length: int) -> None:
    """One changed byte or a cut file either still satisfies every rule or is malformed."""
    data = bytearray(GOOD)
    data[position] = byte
    for candidate in (bytes(data), GOOD[:length]):
        try:
            checked = read_header(MemoryFile(candidate), "fuzz")
        except MalformedWeightsError:
            continue
        assert sum(tensor.nbytes for tensor in checked.tensors) == len(candidate) - checked.nbytes


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "F4", "X"]) | _JSON,
        "shape": st.lists(st.integers(-1, 1 << 62), max_size=4) | _JSON,
        "data_offsets": st.lists(st.integers(-1, 64), max_size=3) | _JSON,
    }
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=6), _ENTRY | _JSON, max_size=3), st.binary(max_size=16))
def test_random_headers_are_read_or_refused(tensors: dict[str, Any], data: bytes) -> None:
    """Any JSON header is either refused or describes the file to the last byte."""
    try:
        checked = read_header(MemoryFile(built(tensors, data)), "fuzz")
    except MalformedWeightsError:
        return
    assert sum(tensor.nbytes for tensor in checked.tensors) == len(data)


def test_a_reader_that_is_dropped_drops_its_files() -> None:
    """At once, without a collection of cycles: a worker opens thousands of forks."""
    source = MemoryFile(safetensors_bytes({"w": torch.zeros(4, 2)}))
    held, reader = weakref.ref(source), SafetensorsReader({"model.safetensors": source})
    gc.disable()
    try:
        assert reader.band("w@T", 0, 1).shape == (1, 4)
        del source, reader
        assert held() is None
    finally:
        gc.enable()
