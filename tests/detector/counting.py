"""Files in memory that count how they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.detector.zoo import MemoryFile


@dataclass
class Counting:
    """A `RangeSource` over bytes."""

    data: bytes
    single: int = 0
    many: list[int] = field(default_factory=list)
    """Ranges of each `read_many`."""
    bytes_read: int = 0

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        self.single += 1
        return self._cut(offset, length)

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.many.append(len(ranges))
        return [self._cut(offset, length) for offset, length in ranges]

    def _cut(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= len(self.data), "read beyond the end"
        self.bytes_read += length
        return self.data[offset : offset + length]


def counted(files: Mapping[str, MemoryFile]) -> dict[str, Counting]:
    return {path: Counting(file.data) for path, file in files.items()}
