"""Small checkpoints on the disk and on a loopback hub, for tests of `forkwatch diff`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from crawler.interface import ByteSource
from forkwatch.demo.hub import LoopbackHub
from tests.detector import zoo

BASE, FORK = "lab/base", "someone/base-heretic"


def write(folder: Path, files: Mapping[str, ByteSource]) -> Path:
    """Put files into a folder of their own."""
    folder.mkdir(parents=True)
    for name, source in files.items():
        (folder / name).write_bytes(source.read(0, source.size))
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, `abliterated` (one direction projected out), `tuned` (dense), `other` (unrelated), `lora`."""
    root, base = tmp_path_factory.mktemp("models"), zoo.base(1)
    write(root / "base", zoo.one_file(base))
    write(root / "abliterated", zoo.one_file(zoo.project(base, 2)))
    write(root / "tuned", zoo.one_file(zoo.dense(base, 3, 0.02)))
    write(root / "other", zoo.one_file(zoo.base(4)))
    write(root / "lora", zoo.adapter_files(base, 5))
    write(root / "both", {**zoo.one_file(base), **zoo.adapter_files(base, 5)})
    return root


@pytest.fixture
def hub(models: Path) -> Iterator[LoopbackHub]:
    """A hub with the base, and with a fork that also ships a second copy of its weights nobody loads."""
    made = LoopbackHub()
    weights = (models / "abliterated" / "model.safetensors").read_bytes()
    made.create_repo(BASE)
    made.commit(BASE, {"model.safetensors": (models / "base" / "model.safetensors").read_bytes()})
    made.create_repo(FORK)
    made.commit(FORK, {"model.safetensors": weights, "consolidated.safetensors": weights + b"\0" * 8})
    with made:
        yield made
