"""No file makes a reader of quantised layouts do anything but read, or refuse with one of its two errors."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from detector.errors import MalformedWeightsError, UnreadableTensorError
from detector.formats import open_weights
from detector.formats.hints import NO_HINTS, read_hints
from tests.detector.packing import Tensors, awq, bnb4, codes_of, gptq, hqq, mlx, scales_of
from tests.detector.zoo import MemoryFile

STEM = "model.layers.0.mlp.up_proj"
NAME = f"{STEM}.weight"
QUIET = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
EXPANSION = 16
"""Values of float32 that a byte may become: two bits a code."""


def fp8() -> Tensors:
    return {NAME: torch.ones(8, 16).to(torch.float8_e4m3fn), f"{NAME}_scale_inv": torch.ones(1, 1)}


def compressed() -> Tensors:
    return {
        f"{STEM}.weight_packed": torch.zeros(8, 4, dtype=torch.int32),
        f"{STEM}.weight_scale": torch.ones(8, 2),
        f"{STEM}.weight_shape": torch.tensor([8, 32]),
        f"{STEM}.weight_zero_point": torch.zeros(1, 2, dtype=torch.int32),
    }


def nested() -> Tensors:
    parts = bnb4(
        NAME, codes_of((8, 32), 4), torch.zeros(4, dtype=torch.uint8), nested_blocksize=4, nested_offset=1.0
    )
    return parts | {f"{NAME}.nested_absmax": torch.ones(1), f"{NAME}.nested_quant_map": torch.ones(256)}


LAYOUTS: dict[str, Callable[[], Tensors]] = {
    "fp8": fp8,
    "gptq": lambda: gptq(
        STEM, codes_of((32, 32), 4), torch.full((2, 32), 8), scales_of((2, 32)), order=torch.arange(32) // 16
    ),
    "awq": lambda: awq(STEM, codes_of((32, 32), 4), codes_of((2, 32), 4), scales_of((2, 32))),
    "bnb4": lambda: bnb4(NAME, codes_of((8, 32), 4), torch.ones(4)),
    "bnb4-nested": nested,
    "bnb8": lambda: {NAME: torch.ones(8, 16, dtype=torch.int8), f"{STEM}.SCB": torch.ones(8)},
    "compressed": compressed,
    "hqq": lambda: hqq(STEM, codes_of((8, 32), 4), scales_of((8,)), scales_of((8,)), 4, 32, 1),
    "hqq-columns": lambda: hqq(STEM, codes_of((8, 40), 3), scales_of((10,)), scales_of((10,)), 3, 32, 0),
    "mlx": lambda: mlx(STEM, codes_of((8, 64), 4), scales_of((8, 1)), scales_of((8, 1)), 4),
    "mlx-float": lambda: {
        NAME: torch.zeros(8, 8, dtype=torch.uint32),
        f"{STEM}.scales": torch.zeros(8, 2, dtype=torch.uint8),
    },
    "mxfp4": lambda: {
        f"{STEM}_blocks": torch.zeros(2, 4, 1, 16, dtype=torch.uint8),
        f"{STEM}_scales": torch.zeros(2, 4, 1, dtype=torch.uint8),
    },
}
TYPES = (torch.int32, torch.uint8, torch.int8, torch.float16, torch.float32, torch.int64, torch.float8_e4m3fn)


def read_everything(data: bytes, config: bytes = b"{}") -> None:
    """Open and read all, whatever it takes: anything but the two errors fails the test."""
    try:
        reader = open_weights({"model.safetensors": MemoryFile(data), "config.json": MemoryFile(config)})
    except MalformedWeightsError:
        return
    for name, info in reader.tensors().items():
        assert math.prod(info.shape) <= EXPANSION * len(data)
        for read in (reader.values, lambda name: reader.band(name, 1, 3)):
            try:
                values = read(name)
            except (MalformedWeightsError, UnreadableTensorError):
                continue
            if read is reader.values:
                assert tuple(values.shape) == info.shape


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_the_unharmed_file_is_read(layout: str) -> None:
    """The files that are damaged below are good ones to begin with."""
    parts = LAYOUTS[layout]()
    reader = open_weights({"model.safetensors": MemoryFile(save(parts))})
    assert [math.prod(reader.values(name).shape) > 0 for name in reader.tensors()] == [True]


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@QUIET
@given(seed=st.integers(0, 1 << 30))
def test_random_contents_are_read_or_refused(layout: str, seed: int) -> None:
    """Any bytes inside the parts: infinite scales, wild indices, states that are no JSON."""
    generator = np.random.default_rng(seed)
    parts = {}
    for name, part in LAYOUTS[layout]().items():
        octets = generator.integers(0, 256, part.numel() * part.element_size(), dtype=np.uint8)
        parts[name] = torch.from_numpy(octets).view(part.dtype).reshape(part.shape) if seed % 3 else part
    read_everything(save(parts))


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@QUIET
@given(data=st.data())
def test_random_shapes_are_read_or_refused(layout: str, data: st.DataObject) -> None:
    """Any part may have another type, another shape, or be missing."""
    parts = LAYOUTS[layout]()
    for name in data.draw(st.lists(st.sampled_from(sorted(parts)), min_size=1, max_size=3, unique=True)):
        if data.draw(st.booleans()):
            shape = data.draw(st.lists(st.integers(0, 40), max_size=3))
            parts[name] = torch.zeros(shape, dtype=data.draw(st.sampled_from(TYPES)))
        else:
            del parts[name]
    if parts:
        read_everything(save(parts))


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@QUIET
@given(position=st.integers(0, 1 << 20), byte=st.integers(0, 255), cut=st.integers(0, 1 << 20))
def test_changed_bytes_and_cut_files_are_read_or_refused(
    layout: str, position: int, byte: int, cut: int
) -> None:
    """One changed byte anywhere, or a truncated file."""
    good = save(LAYOUTS[layout]())
    changed = bytearray(good)
    changed[position % len(good)] = byte
    read_everything(bytes(changed))
    read_everything(good[: cut % len(good)])


_VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.lists(st.integers())
)
_QUANTISATION = st.dictionaries(
    st.sampled_from(
        [
            "quant_method",
            "bits",
            "group_size",
            "checkpoint_format",
            "desc_act",
            "weight_block_size",
            "config_groups",
        ]
    ),
    _VALUES
    | st.sampled_from(["gptq", "awq", "gptq_v2", "gemv"])
    | st.dictionaries(st.text(max_size=5), _VALUES),
)


@pytest.mark.parametrize("layout", ["gptq", "awq", "fp8", "compressed", "mlx"])
@QUIET
@given(config=_QUANTISATION)
def test_any_configuration_is_only_a_hint(layout: str, config: dict[str, object]) -> None:
    """No configuration makes a reader crash or believe a shape that the file does not have."""
    read_everything(save(LAYOUTS[layout]()), json.dumps({"quantization_config": config}).encode())
    read_everything(save(LAYOUTS[layout]()), json.dumps({"quantization": {STEM: config} | config}).encode())


@QUIET
@given(text=st.binary(max_size=64))
def test_a_broken_configuration_says_nothing(text: bytes) -> None:
    """Bytes that are no JSON object give no hints."""
    assert read_hints(MemoryFile(b"\xff" + text)) == NO_HINTS
    assert read_hints(MemoryFile(b"[" * 100_000)) == NO_HINTS


def test_huge_numbers_allocate_nothing() -> None:
    """States and shapes that announce 2^78 values are refused without memory for them."""
    state = json.dumps({"quant_type": "nf4", "blocksize": 64, "shape": [1 << 39, 1 << 39]}).encode()
    parts = bnb4(NAME, codes_of((8, 32), 4), torch.ones(4))
    parts[f"{NAME}.quant_state.bitsandbytes__nf4"] = torch.tensor(list(state), dtype=torch.uint8)
    shapes = compressed() | {f"{STEM}.weight_shape": torch.tensor([8, 1 << 39])}
    tracemalloc.start()
    for hostile in (parts, shapes):
        with pytest.raises(MalformedWeightsError):
            open_weights({"model.safetensors": MemoryFile(save(hostile))})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
