"""Machine code that is kept gives what freshly made code gives, and nothing else is ever loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from detector import fused, fused_loop, machine_code
from detector.machine_code import Kept

QUICK = """
import sys
import numpy as np
from detector import fused
values = np.arange(1, 4097, dtype=np.int16)
print(fused.measure(values, values + 1, 64, "BF16", True, np.zeros(0, np.uint8))[2][0])
print(sorted({"numba", "torch"} & set(sys.modules)))
"""


class Compiler:
    """Compiles the loop of bfloat16, and counts how often."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self) -> tuple[bytes, str]:
        self.runs += 1
        return fused_loop.machine_code(2)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two folders of our own in which code may be kept."""
    paths = [tmp_path / "package", tmp_path / "user"]

    def ours() -> Iterator[Path]:
        return iter(paths)

    monkeypatch.setattr(machine_code, "_folders", ours)
    return paths


def levels(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts of a change by code of this compiler, as another process would load it."""
    code = Kept(Path(fused_loop.__file__), 2, compiler, fused._ARGUMENTS)
    monkeypatch.setitem(fused._CODE, 2, code)
    values = np.arange(16256, 16320, dtype=np.int16)  # from 1 to 1.5
    after = values + np.array([0, 1, 2, 4] * 16, np.int16)
    found: list[int] = fused.measure(values, after, 64, "BF16", True, np.zeros(0, np.uint8))[4].tolist()
    return found


def test_code_is_made_once_and_the_kept_one_counts_the_same(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = Compiler()
    first = levels(compiler, monkeypatch)
    assert first[:4] == [16, 0, 16, 16]
    assert (compiler.runs, len(list(folders[0].iterdir()))) == (1, 1)
    assert levels(compiler, monkeypatch) == first
    assert compiler.runs == 1


@pytest.mark.parametrize("damage", ["short", "flipped", "empty"])
def test_a_damaged_file_is_never_loaded(
    damage: str, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """LLVM would end the process over it."""
    compiler = Compiler()
    expected = levels(compiler, monkeypatch)
    (kept,) = folders[0].iterdir()
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 1
    kept.write_bytes({"short": kept.read_bytes()[:-100], "flipped": bytes(data), "empty": b""}[damage])
    assert levels(compiler, monkeypatch) == expected
    assert compiler.runs == 2


def test_the_next_folder_is_taken_where_the_first_cannot_be_written(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders[0].write_text("no folder")
    levels(Compiler(), monkeypatch)
    assert len(list(folders[1].iterdir())) == 1


def test_where_nothing_can_be_kept_code_is_made_for_this_process(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in folders:
        folder.write_text("no folder")
    assert levels(Compiler(), monkeypatch)[0] == 16


def test_kept_code_needs_neither_numba_nor_torch() -> None:
    """Both take longer to import than a gigabyte takes to compare."""
    command = [sys.executable, "-c", QUICK]
    said = [
        subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ))
        for _ in "ab"
    ]
    assert said[1].stdout.split("\n")[:2] == ["64", "[]"]
