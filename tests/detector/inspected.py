"""Repositories in memory, and what is found in their files. Nothing here is ever loaded."""

from __future__ import annotations

import io
import zipfile
from collections import OrderedDict
from collections.abc import Mapping

import torch

from crawler.interface import Access, CorruptDownloadError, RepoFile, Snapshot, parse_repo_id
from crawler.interface import Commit as CommitId
from detector.files import inspect_files
from detector.interface import FileFinding

WEIGHTS = OrderedDict(weight=torch.ones(3, 2, dtype=torch.bfloat16), bias=torch.nn.Parameter(torch.ones(3)))


class Bytes:
    """A file in memory that counts what is read of it."""

    def __init__(self, content: bytes) -> None:
        self.content, self.spent = content, 0

    @property
    def size(self) -> int:
        return len(self.content)

    def read(self, offset: int, length: int) -> bytes:
        data = self.content[offset : offset + length]
        if len(data) != length:
            raise CorruptDownloadError("read past the end")
        self.spent += length
        return data


class Cut(Bytes):
    """A file whose second half cannot be fetched."""

    def read(self, offset: int, length: int) -> bytes:
        if offset + length > self.size // 2:
            raise CorruptDownloadError("cut")
        return super().read(offset, length)


def snapshot(sizes: Mapping[str, int]) -> Snapshot:
    return Snapshot(
        repo=parse_repo_id("org/fork"),
        commit=CommitId("0" * 40),
        files=tuple(RepoFile(path, size, "0" * 40, None) for path, size in sorted(sizes.items())),
        tags=(),
        claims=(),
        license=None,
        access=Access.OPEN,
        created_at=None,
        last_modified=None,
        downloads=0,
        likes=0,
    )


def inspect(files: Mapping[str, bytes]) -> tuple[FileFinding, ...]:
    sources = {path: Bytes(content) for path, content in files.items()}
    found = inspect_files(
        snapshot({path: len(content) for path, content in files.items()}), sources.__getitem__
    )
    assert found == inspect_files(snapshot({p: len(c) for p, c in files.items()}), sources.__getitem__)
    return found


def ids(name: str, content: bytes) -> list[str]:
    return [finding.id for finding in inspect({name: content})]


def saved(value: object, *, legacy: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def repacked(changes: Mapping[str, bytes], *, drop: str = "") -> bytes:
    """torch's own archive with members replaced, added or dropped."""
    with zipfile.ZipFile(io.BytesIO(saved(WEIGHTS))) as original:
        members = {name: original.read(name) for name in original.namelist() if name != drop}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {**members, **changes}.items():
            archive.writestr(name, content)
    return file.getvalue()
