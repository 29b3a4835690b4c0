"""What is read and rounded without torch is what torch makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from crawler.local import LocalFile
from detector.compare import VIA
from detector.edits.direction import is_unaligned
from detector.floats import as_bf16, effective_dtype_of, half_ulp_of, read_floats
from detector.formats import open_weights
from detector.grid import PRECISION, effective_dtype, half_ulp, usable, values_as_stored
from detector.pairing import Pair
from detector.passing import may_have_passed
from detector.sample import ELEMENTS, Sample, load_delta, load_sample

NAME = "model.layers.0.mlp.down_proj.weight"
KINDS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
EXTREMES = [0.0, -0.0, float("inf"), float("-inf"), float("nan"), 3e12, 1e-40, -1e-44, 65504.0, 1.0]


def drawn(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Gaussian values of many magnitudes, and those that are easily got wrong."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=generator)
    values *= torch.exp2(-20 * torch.rand(rows, columns, generator=generator))
    values[0, : len(EXTREMES)] = torch.tensor(EXTREMES)
    return values


def written(folder: Path, values: torch.Tensor) -> Path:
    """A checkpoint of one tensor, behind another of an odd length."""
    save_file(
        {"a": torch.zeros(3, dtype=torch.uint8), NAME: values.contiguous()}, folder / "model.safetensors"
    )
    return folder / "model.safetensors"


class Remote:
    """A file that can only be read by ranges."""

    def __init__(self, path: Path) -> None:
        self._file = LocalFile(path)
        self.size = self._file.size

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of it."""
        return self._file.read(offset, length)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", [LocalFile, Remote])
@pytest.mark.parametrize(
    ("first", "rows", "step"), [(0, 24, 1), (5, 7, 1), (20, 9, 1), (2, 11, 3), (3, 0, 1)]
)
def test_rows_are_read_as_torch_reads_them(
    tmp_path: Path, kind: str, source: type, first: int, rows: int, step: int
) -> None:
    """Bit by bit, infinities and subnormal numbers included; read in place and by ranges."""
    stored = drawn(24, 40).to(KINDS[kind])
    reader = open_weights({"model.safetensors": source(written(tmp_path, stored))})
    before = reader.bytes_read
    found = read_floats(reader, reader.tensors()[NAME], first, rows, step)

    assert found.dtype == np.float32
    expected = usable(stored[first : first + rows, ::step]).numpy()
    assert np.array_equal(found.view(np.uint32), np.ascontiguousarray(expected).view(np.uint32))
    assert reader.bytes_read - before == len(found) * 40 * stored.element_size()


def test_what_is_read_may_be_changed(tmp_path: Path) -> None:
    """Rows are copies: neither the file nor another read sees what is done to them."""
    path = written(tmp_path, torch.ones(8, 64))
    reader = open_weights({"model.safetensors": LocalFile(path)})
    info = reader.tensors()[NAME]
    read_floats(reader, info, 0, 8)[:] = 7

    assert (read_floats(reader, info, 0, 8) == 1).all()


@pytest.mark.parametrize("kind", PRECISION)
def test_steps_are_those_of_torch(kind: str) -> None:
    """Half a unit in the last place of every stored type, of normal and subnormal numbers."""
    values = usable(drawn(24, 40))
    assert np.array_equal(half_ulp_of(values.numpy(), kind), half_ulp(values, kind).numpy())


def test_bf16_is_rounded_as_torch_rounds() -> None:
    """To nearest, ties to even."""
    values = usable(drawn(64, 64))
    ties = (values.to(torch.bfloat16).view(torch.int16).int() << 16 | 0x8000).view(torch.float32)
    for each in (values, ties):
        assert np.array_equal(as_bf16(each.numpy()), each.to(torch.bfloat16).float().numpy())
    for kind in ("F32", "F16", "BF16"):
        for each in (values, values.to(torch.bfloat16).float()):
            assert effective_dtype_of(each.numpy(), kind) == effective_dtype(each, kind)


@pytest.mark.parametrize("stored", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("via", VIA)
def test_what_passed_through_a_type_is_never_ruled_out(via: str, stored: str) -> None:
    """Nor are rows that did not: torch looks at all of those that are left."""
    before = 0.05 * torch.randn(8, 1024, generator=torch.Generator().manual_seed(5))
    before = before.to(torch.bfloat16).float()
    after = values_as_stored(before, via).to(KINDS[stored]).float()
    assert may_have_passed(before.numpy(), after.numpy(), stored, via)


@pytest.mark.parametrize("via", [name for name in VIA if name not in {"F16", "BF16"}])
def test_a_small_change_is_ruled_out(via: str) -> None:
    """A change of a hundredth of the values' size is told from a round trip without torch."""
    generator = torch.Generator().manual_seed(6)
    before = (0.05 * torch.randn(8, 1024, generator=generator)).to(torch.bfloat16).float()
    after = before + 0.0005 * torch.randn(8, 1024, generator=generator)
    after = after.to(torch.bfloat16).float()
    assert not may_have_passed(before.numpy(), after.numpy(), "BF16", via)


def test_the_change_alone_is_that_of_the_sample(tmp_path: Path) -> None:
    """Of a writer that is cut by columns."""
    sides = []
    for number, values in enumerate((drawn(256, 8192), drawn(256, 8192, seed=1))):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = written(folder, values.to(torch.bfloat16))
        sides.append(open_weights({"model.safetensors": LocalFile(path)}))
    pair = Pair(NAME, sides[0].tensors()[NAME], sides[1].tensors()[NAME])
    sample = load_sample(pair, *sides, ELEMENTS)

    assert sample.delta.shape == (256, 4096)
    assert np.array_equal(load_delta(pair, *sides, ELEMENTS), sample.delta)


@pytest.mark.parametrize("size", [0.0005, 0.01, 0.1])
def test_a_glance_tells_factors_from_a_direction(size: float) -> None:
    """In a quarter of a million values: a low-rank change is told from a direction that was removed."""
    generator = torch.Generator().manual_seed(7)
    weights = (0.02 * torch.randn(1024, 256, generator=generator)).to(torch.bfloat16).float()
    direction = torch.nn.functional.normalize(torch.randn(1024, generator=generator), dim=0)
    factors = torch.randn(1024, 4, generator=generator) @ torch.randn(4, 256, generator=generator)
    changes = {
        "factors": factors * (size * weights.norm() / factors.norm()),
        "direction": -torch.outer(direction, direction @ weights),
    }
    found = {}
    for name, change in changes.items():
        after = (weights + change).to(torch.bfloat16).float()
        halves = (half_ulp(after, "BF16").numpy(), half_ulp(weights, "BF16").numpy())
        found[name] = is_unaligned(Sample(weights.numpy(), (after - weights).numpy(), *halves))
    assert not found["direction"]
    assert found["factors"] == (size >= 0.01), "a change near rounding is looked at in full"
