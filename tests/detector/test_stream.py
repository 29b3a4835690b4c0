"""Tensors are compared in pieces: the outcome does not depend on how many, or on who reads them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from time import sleep

import pytest
import torch

import detector.stream
import detector.tiles
from crawler.interface import ByteSource, CorruptDownloadError
from crawler.local import LocalFile
from detector.compare import Comparison, compare_pair
from detector.formats import open_weights
from detector.formats.extent import Extent
from detector.interface import TensorStatus, WeightReader
from detector.pairing import pair_tensors
from detector.stream import Streams
from tests.detector import zoo

NAME = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture
def threads() -> Iterator[None]:
    """Two threads, whatever the environment says."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def matrix(rows: int = 300, columns: int = 96) -> torch.Tensor:
    return (torch.randn(rows, columns, generator=torch.Generator().manual_seed(5)) * 0.02).to(torch.bfloat16)


def reader(tensor: torch.Tensor, folder: Path | None = None, name: str = "model") -> WeightReader:
    data = zoo.safetensors_bytes({NAME: tensor})
    source: ByteSource = zoo.MemoryFile(data)
    if folder is not None:
        (folder / f"{name}.safetensors").write_bytes(data)
        source = LocalFile(folder / f"{name}.safetensors")
    return open_weights({"model.safetensors": source})


def compare(original: WeightReader, fork: WeightReader) -> Comparison:
    (pair,) = pair_tensors(original.tensors(), fork.tensors()).pairs
    return compare_pair(pair, original, fork)


def changed(tensor: torch.Tensor) -> torch.Tensor:
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(6)) * 2e-4
    return (tensor.float() + noise).to(tensor.dtype)


@pytest.mark.usefixtures("threads")
def test_pieces_and_threads_do_not_change_the_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads on many small pieces of a local file say what one says of the whole in memory."""
    before, after = matrix(), changed(matrix())
    whole = compare(reader(before), reader(after))
    monkeypatch.setattr(detector.stream, "CPU_TILE", 1000)
    monkeypatch.setattr(detector.stream, "BATCH", 3)
    pieces = compare(reader(before, tmp_path, "a"), reader(after, tmp_path, "b"))
    assert whole.status is TensorStatus.CHANGED
    assert pieces.relative_norm == pytest.approx(whole.relative_norm, rel=1e-5)
    assert pieces.cosine == pytest.approx(whole.cosine, rel=1e-5)
    assert pieces.floor_ratio == pytest.approx(whole.floor_ratio, rel=1e-5)

    def exact(found: Comparison) -> Comparison:
        return replace(found, pair=whole.pair, relative_norm=0.0, cosine=None, floor_ratio=None)

    assert exact(pieces) == exact(whole)


def test_one_thread_and_two_give_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums are added in the order of the pieces, so that threads leave no trace in them."""
    monkeypatch.setattr(detector.stream, "CPU_TILE", 1000)
    before, after = reader(matrix(), tmp_path, "a"), reader(changed(matrix()), tmp_path, "b")
    threads, found = torch.get_num_threads(), []
    for count in (1, 2):
        torch.set_num_threads(count)
        found.append(compare(before, after))
    torch.set_num_threads(threads)
    assert found[0] == found[1]


@pytest.mark.parametrize("compiled", [False, True])
def test_mapped_and_read_bytes_give_the_same(
    compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose tensors begin between two elements is read, others are looked at where they lie."""
    monkeypatch.setattr(detector.tiles, "FUSED_ELEMENTS", 0 if compiled else 1 << 30)
    monkeypatch.setattr(detector.stream, "CPU_TILE", 1000)
    monkeypatch.setattr(detector.stream, "STORED_TILE", 1000)
    monkeypatch.setattr(detector.stream, "WINDOW", 5000)
    before, after = matrix(), changed(matrix())
    found = []
    for odd in (b"", b" "):
        sides = []
        for name, tensor in (("a", before), ("b", after)):
            data = zoo.safetensors_bytes({NAME: tensor})
            length = int.from_bytes(data[:8], "little")
            header = (length + len(odd)).to_bytes(8, "little") + data[8 : 8 + length] + odd
            path = tmp_path / f"{name}{len(odd)}"
            path.write_bytes(header + data[8 + length :])
            sides.append(open_weights({"model.safetensors": LocalFile(path)}))
        original, fork = sides
        (pair,) = pair_tensors(original.tensors(), fork.tensors()).pairs
        with Streams(pair.original.nbytes) as streams:
            found.append(compare_pair(pair, original, fork, streams=streams))
    assert found[0] == replace(found[1], pair=found[0].pair)


def test_pieces_whose_squares_float32_does_not_hold_are_measured_with_care(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of zeros and of tiny values, equal and changed ones, among others: both ways agree."""
    before, after = matrix(), changed(matrix())
    before[:40], after[:40] = 0, 0
    before[60:100], after[60:100] = 1e-30, 2e-30
    found = []
    for least in (0, 1 << 30):
        monkeypatch.setattr(detector.tiles, "FUSED_ELEMENTS", least)
        monkeypatch.setattr(detector.stream, "STORED_TILE", 1000)
        monkeypatch.setattr(detector.stream, "CPU_TILE", 1000)
        found.append(compare(reader(before, tmp_path, f"a{least}"), reader(after, tmp_path, f"b{least}")))
    compiled, plain = found
    for name in ("status", "fraction_changed", "moved_rows", "moved_columns", "exponents", "max_change"):
        assert getattr(compiled, name) == getattr(plain, name), name
    for name in ("relative_norm", "cosine", "floor_ratio"):
        assert getattr(compiled, name) == pytest.approx(getattr(plain, name), rel=1e-5), name


LIGHT = """
import sys
from pathlib import Path
import detector.tiles
from crawler.local import LocalFile
from detector.compare import compare_pair
from detector.formats import open_weights
from detector.pairing import pair_tensors
detector.tiles.FUSED_ELEMENTS = 0
sides = [open_weights({"model.safetensors": LocalFile(Path(path))}) for path in sys.argv[1:]]
(pair,) = pair_tensors(*(side.tensors() for side in sides)).pairs
print(compare_pair(pair, *sides, ()).status, sorted({"torch", "numba"} & set(sys.modules)))
"""


def test_a_comparison_of_plain_files_does_not_import_torch(tmp_path: Path) -> None:
    """It takes longer to import than a gigabyte takes to compare."""
    values = torch.randn(64, 64, generator=torch.Generator().manual_seed(3)).bfloat16()
    paths = [tmp_path / "original", tmp_path / "fork"]
    for path, tensor in zip(paths, (values, values * 2), strict=True):
        path.write_bytes(zoo.safetensors_bytes({NAME: tensor}))
    command = [sys.executable, "-c", LIGHT, *map(str, paths)]
    said = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in "ab"]
    assert said[1].strip() == "changed []"


class Failing:
    """A file whose first half cannot be read, while another thread is busy with the second."""

    size = 1 << 16

    def __init__(self) -> None:
        self.begun, self.reading = Event(), 0

    def read(self, offset: int, length: int) -> bytes:
        raise NotImplementedError

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if offset < self.size // 2:
            assert self.begun.wait(10)
            raise CorruptDownloadError("gone")
        self.reading += 1
        self.begun.set()
        sleep(0.2)
        buffer[:] = bytes(len(buffer))
        self.reading -= 1


@pytest.mark.usefixtures("threads")
def test_no_thread_works_on_when_another_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would still be using its memory when the next tensor is compared in it."""
    monkeypatch.setattr(detector.stream, "BYTES", 1 << 15)
    file = Failing()
    extent = Extent(file, 0, file.size, "BF16", plain=True)
    with Streams() as streams:
        with pytest.raises(CorruptDownloadError, match="gone"):
            streams.equal(extent, extent)
        assert file.begun.is_set()
        assert file.reading == 0


@pytest.mark.usefixtures("threads")
def test_threads_of_torch_are_left_as_they_were(tmp_path: Path) -> None:
    """The pool computes on one thread each, and takes that back."""
    compare(reader(matrix(), tmp_path, "a"), reader(matrix(), tmp_path, "b"))
    assert torch.get_num_threads() == 2


def test_patch_in_the_last_rows_has_the_norm_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces whose bytes are equal are not decoded, and count all the same."""
    monkeypatch.setattr(detector.stream, "CPU_TILE", 1000)
    before, after = matrix(), matrix()
    after[-1, 3] += 0.5
    found = compare(reader(before), reader(after))
    delta = (after.float() - before.float()).norm() / before.float().norm()
    assert found.relative_norm == pytest.approx(delta.item(), rel=1e-5)
    assert found.fraction_changed == pytest.approx(1 / before.numel())
    assert (found.moved_rows, found.moved_columns) == pytest.approx((1 / 300, 1 / 96))
    monkeypatch.setattr(detector.stream, "CPU_TILE", 1 << 17)
    whole = compare(reader(before), reader(after))
    assert found.floor_ratio == pytest.approx(whole.floor_ratio, rel=1e-5)


def test_bytes_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides are read once; equal pieces of a changed tensor once more, of the original."""
    monkeypatch.setattr(detector.stream, "CPU_TILE", 100 * 96)
    before, patched = matrix(), matrix()
    patched[-1, 3] += 0.5
    third = before.numel() * 2 // 3
    for fork, again in ((before, 0), (changed(before), 0), (patched, 2 * third)):
        left, right = reader(before), reader(fork)
        start = left.bytes_read + right.bytes_read
        (pair,) = pair_tensors(left.tensors(), right.tensors()).pairs
        with Streams() as streams:
            compare_pair(pair, left, right, (), streams)
        assert left.bytes_read + right.bytes_read - start == 6 * third + again


def test_equal_bytes_of_an_undecoded_type_are_identical() -> None:
    """Four-bit floats that forkwatch does not decode can still be the same bytes."""
    data = zoo.safetensors_bytes({NAME: torch.zeros(64, 32, dtype=torch.float16)})
    data = data.replace(b'"dtype": "F16", "shape": [64, 32]', b'"dtype": "F4", "shape": [64, 128]')
    sides = [open_weights({"model.safetensors": zoo.MemoryFile(data)}) for _ in range(2)]
    assert compare(*sides).status is TensorStatus.IDENTICAL


@pytest.mark.parametrize("shape", [(), (0, 4), (7,), (3, 5, 8), (1, 5000), (5000, 1)])
def test_every_shape_is_compared(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Scalars, empty tensors, vectors, stacks, and matrices wider than a piece."""
    monkeypatch.setattr(detector.stream, "CPU_TILE", 64)
    monkeypatch.setattr(detector.stream, "MAX_COLUMNS", 1000)
    before = torch.ones(shape, dtype=torch.bfloat16)
    same = compare(reader(before), reader(before.clone()))
    assert same.status is TensorStatus.IDENTICAL
    if before.numel():
        found = compare(reader(before), reader(before * 2))
        assert (found.status, found.relative_norm, found.fraction_changed) == (TensorStatus.CHANGED, 1, 1)


CHILD = """
import sys
from pathlib import Path
from crawler.local import LocalFile
from detector.diff import diff_weights
from detector.formats import open_weights
from detector.formats.extent import Extent
sides = [open_weights({"model.safetensors": LocalFile(Path(path))}) for path in sys.argv[1:]]
(tensor,) = diff_weights(*sides).tensors
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(tensor.status, tensor.fraction_changed, int(peak.split()[1]) << 10)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_tensor(tmp_path: Path) -> None:
    """An output projection of 512 MiB with one changed value is diffed in far less memory."""
    rows, columns = 4096, 1 << 16
    for name in ("original", "fork"):
        header = zoo.safetensors_bytes({NAME: torch.zeros(1, 1, dtype=torch.bfloat16)})[8:-2]
        header = header.replace(b"[1, 1]", b"[%d, %d]" % (rows, columns))
        header = header.replace(b"[0, 2]", b"[0, %d]" % (2 * rows * columns)).strip()
        header += b" " * (-len(header) % 8)
        with (tmp_path / name).open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + 2 * rows * columns)
    with (tmp_path / "fork").open("r+b") as file:
        file.seek(-10, 2)
        file.write(b"\x80\x3f")
    command = [sys.executable, "-c", CHILD, str(tmp_path / "original"), str(tmp_path / "fork")]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert output[0] == "changed"
    assert float(output[1]) == 1 / (rows * columns)
    assert int(output[2]) < 640 << 20, "torch and LLVM take 330 MB, the two matrices 1,024"
