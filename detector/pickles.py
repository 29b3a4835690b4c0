"""What a pickle would import if somebody loaded it, read from its opcodes. Nothing is ever unpickled here.

An allow-list (`detector.pickle_names`), because deny-lists of dangerous names are routinely bypassed
(arXiv 2508.19774: 133 gadgets pass the published scanners). A name outside the list, an opcode that hides a
name, or bytes that another parser might read differently count against the file.

Not covered: whether an import outside the list is malicious; we only say that loading the file runs code that
the file chooses.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from enum import StrEnum
from typing import IO, BinaryIO

from crawler.interface import CrawlerError
from detector.opcodes import MAX_READ, NotReadError, Readable, StopsHereError, Tape
from detector.pickle_names import ENUMERATIONS, is_plain, is_record
from detector.unpickler import Walk

MAX_PICKLE_BYTES = MAX_READ
"""Far above real ones (measured: 36 kB for 291 tensors); tensor data lies outside the pickle."""
MAX_OPCODES = 1_000_000
"""Walked in 0.9 s; a 291-tensor checkpoint has 9 300."""
_MAX_NAMED = 8
"""Foreign imports listed; the first one decides."""

_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""torch's non-zip container: this pickle, three more, the storage keys, then raw tensor data."""
_LEGACY_PICKLES = 5

_TORCH_MEMBER = re.compile(
    r"[^/]+/(data\.pkl|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id|data/\d+)"
)


class PickleKind(StrEnum):
    """What the opcodes say."""

    NONE = "none"
    """Not a pickle: an unpickler would stop before its first import."""
    PLAIN = "plain"
    """Imports nothing outside the allow-list."""
    UNSAFE = "unsafe"
    """Imports something else, or is made so that parsers differ."""
    UNREAD = "unread"
    """Longer than what is read; nothing outside the allow-list so far."""


@dataclass(frozen=True, slots=True)
class PickleReport:
    """Outcome for one file."""

    kind: PickleKind
    note: str = ""
    """Why it is unsafe: the foreign imports, or what could not be read. ASCII, at most 300 characters."""

    @property
    def finding(self) -> str:
        """The id of the finding; empty for what is no pickle."""
        return _FINDINGS[self.kind]


_FINDINGS = {
    PickleKind.NONE: "",
    PickleKind.PLAIN: "pickle-file",
    PickleKind.UNSAFE: "unsafe-pickle",
    PickleKind.UNREAD: "unread-pickle",
}


class Opcodes:
    """Opcodes left to parse, in one file or in all files of a repository."""

    def __init__(self, left: int = MAX_OPCODES) -> None:
        self._left = left

    def spend(self) -> None:
        """Count one.

        Raises:
            TooManyOpcodesError: none is left.
        """
        self._left -= 1
        if self._left < 0:
            raise TooManyOpcodesError


class _Memory:
    """Bytes at hand, as a source."""

    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


def inspect_stream(data: bytes, *, complete: bool, opcodes: Opcodes | None = None) -> PickleReport:
    """As `inspect_pickle`, of bytes at hand; `complete` is False when they were cut off at a limit."""
    return _inspect(Tape(_Memory(data), complete=complete), data.startswith(_LEGACY_MAGIC), opcodes)


def inspect_pickle(source: Readable, opcodes: Opcodes | None = None) -> PickleReport:
    """Inspect a raw pickle, several in a row, or torch's legacy container.

    Args:
        source: the file; long strings in it are not read.
        opcodes: how many may be walked; a stream that needs more is not read to its end.
    """
    head = source.read(0, min(len(_LEGACY_MAGIC), source.size))
    return _inspect(Tape(source), head == _LEGACY_MAGIC, opcodes)


def _inspect(tape: Tape, legacy: bool, opcodes: Opcodes | None) -> PickleReport:  # noqa: FBT001 - two callers
    opcodes = opcodes or Opcodes()
    foreign: list[str] = []
    earlier = imports = count = 0
    try:
        while not tape.at_end and len(foreign) < _MAX_NAMED and not (legacy and count == _LEGACY_PICKLES):
            earlier, imports = earlier + imports, 0
            for what in Walk(ENUMERATIONS.__contains__, is_record).imports(tape, opcodes.spend):
                imports += 1
                if not is_plain(what):
                    foreign.append(f"{what.module[:60]}.{what.name[:60]}")
                if len(foreign) == _MAX_NAMED:
                    break
            count += 1
    except StopsHereError:
        if imports:
            return _unsafe(foreign, "breaks off after its imports")
        count = earlier  # what lies behind a pickle and is none is nobody's to load
    except (NotReadError, TooManyOpcodesError):
        if not foreign:
            return PickleReport(PickleKind.UNREAD, "longer than what is read of a pickle")
    if foreign:
        return _unsafe(foreign, "")
    return PickleReport(PickleKind.PLAIN if count else PickleKind.NONE)


def inspect_zip(file: BinaryIO, opcodes: Opcodes | None = None) -> PickleReport:
    """Inspect torch's zip container; every pickle in it is read in memory, and nothing is extracted."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = [member.filename for member in archive.infolist()]
            pickles = [name for name in names if name.lower().endswith((".pkl", ".pickle"))]
            if not pickles:
                return PickleReport(PickleKind.NONE)
            strange = sorted({name for name in names if not _TORCH_MEMBER.fullmatch(name)})
            if strange or len(set(names)) != len(names) or len(pickles) != 1:
                return _unsafe([], f"holds more than tensors: {', '.join(strange[:5]) or 'repeated members'}")
            with archive.open(pickles[0]) as member:
                data = _up_to(member, MAX_PICKLE_BYTES + 1)
    except CrawlerError:
        raise
    except Exception as error:  # noqa: BLE001 - a hostile archive; zipfile has no common exception for one
        return _unsafe([], f"the archive cannot be read ({type(error).__name__})")
    complete = len(data) <= MAX_PICKLE_BYTES
    report = inspect_stream(data[:MAX_PICKLE_BYTES], complete=complete, opcodes=opcodes)
    return report if report.kind is not PickleKind.NONE else _unsafe([], f"{pickles[0]} is not a pickle")


def _up_to(member: IO[bytes], limit: int) -> bytes:
    """Read in pieces: the archive's own reader asks its file for as much as it is asked for."""
    pieces = list[bytes]()
    while limit > 0 and (piece := member.read(min(limit, 1 << 20))):
        pieces.append(piece)
        limit -= len(piece)
    return b"".join(pieces)


def _unsafe(foreign: list[str], problem: str) -> PickleReport:
    parts = [f"imports {', '.join(sorted(set(foreign)))}"] if foreign else []
    text = "; ".join([*parts, problem] if problem else parts)
    return PickleReport(PickleKind.UNSAFE, ascii(text)[1:-1][:300])


class TooManyOpcodesError(Exception):
    """The stream is longer than any real checkpoint's."""
