"""One checkpoint in several GGUF files, as `gguf-split` cuts it: `NAME-00001-of-00003.gguf` and so on.

Each shard is a whole GGUF file with some of the tensors; only the first one describes the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from crawler.interface import ByteSource
from detector.errors import MalformedWeightsError
from detector.formats.gguf import GgufReader
from detector.formats.views import base_name
from detector.interface import TensorInfo

if TYPE_CHECKING:
    import torch

MAX_SHARDS = 4096
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)


class SplitGgufReader:
    """A `WeightReader` over the shards of one checkpoint."""

    format = "gguf"

    def __init__(self, files: Mapping[str, ByteSource]) -> None:
        """Read and check the headers, first shard first.

        Args:
            files: path → bytes of all shards.

        Raises:
            MalformedWeightsError: a header is malformed, shards are of different sets, or two hold a tensor.
        """
        paths = sorted(files)
        first = GgufReader(paths[0], files[paths[0]])
        shards = [first, *(GgufReader(path, files[path], first.header) for path in paths[1:])]
        for path, shard, number in zip(paths, shards, range(len(shards)), strict=True):
            facts = (shard.header.get("split.no"), shard.header.get("split.count"))
            if facts not in {(number, len(shards)), (None, None)}:
                raise MalformedWeightsError(
                    f"{path}: is shard {facts[0]!r:.20} of {facts[1]!r:.20} by its header"
                )
        self._shards = tuple(shards)
        self._owners: dict[str, GgufReader] = {}
        for path, shard in zip(paths, shards, strict=True):
            for name in shard.tensors():
                if name in self._owners:
                    raise MalformedWeightsError(f"{path}: tensor {name[:120]} is in two shards")
                self._owners[name] = shard
        self._infos = {name: self._owners[name].tensors()[name] for name in sorted(self._owners)}

    @property
    def headers(self) -> tuple[str, ...]:
        """SHA-256 of each shard's header, sorted."""
        return tuple(sorted(digest for shard in self._shards for digest in shard.headers))

    @property
    def bytes_read(self) -> int:
        """Bytes read so far, of all shards."""
        return sum(shard.bytes_read for shard in self._shards)

    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors, from the headers."""
        return self._infos

    def raw(self, name: str) -> bytes:
        """Stored bytes of one tensor."""
        return self._owners[name].raw(name)

    def values(self, name: str) -> torch.Tensor:
        """Values of one tensor or view."""
        return self._owner(name).values(name)

    def band(self, name: str, first_row: int, rows: int) -> torch.Tensor:
        """Rows of one tensor or view."""
        return self._owner(name).band(name, first_row, rows)

    def band_bytes(self, name: str, rows: int) -> int:
        """Bytes of so many rows."""
        return self._owner(name).band_bytes(name, rows)

    def slab(self, name: str, index: int, first_row: int, rows: int) -> torch.Tensor:
        """Rows of one matrix of a stack."""
        return self._owner(name).slab(name, index, first_row, rows)

    def _owner(self, name: str) -> GgufReader:
        return self._owners[name if name in self._owners else base_name(name)]


def checkpoints(paths: Iterable[str]) -> list[tuple[str, ...]]:
    """Paths of GGUF files, shards of a checkpoint together and in order; sets that lack one are left out."""
    sets: dict[tuple[str, int], dict[int, str]] = {}
    found = list[tuple[str, ...]]()
    for path in paths:
        match = _SHARD.fullmatch(path)
        if match is None:
            found.append((path,))
        elif 0 < int(match["count"]) <= MAX_SHARDS:
            sets.setdefault((match["stem"], int(match["count"])), {})[int(match["number"])] = path
    for (_, count), shards in sets.items():
        if sorted(shards) == list(range(1, count + 1)):
            found.append(tuple(shards[number] for number in sorted(shards)))
    return sorted(found)
