"""The opcodes of pickle and the bytes behind each, read forward from what may be gigabytes.

Source: Modules/_pickle.c and Lib/pickle.py of CPython 3.11 to 3.13; the table is pickletools'.
"""

from __future__ import annotations

import pickletools
import re
from typing import NamedTuple, Protocol

MAX_READ = 8 << 20
"""Bytes read of one tape; long strings on it are skipped and not read."""
_FIRST, _CHUNK = 512, 1 << 16
_LONGEST_NAME = 4096
"""Bytes of a text that are kept; of a longer one nothing is known but that it is one."""
_NUMBER = re.compile(rb"[0-9A-Za-z+\-._\s]+")
"""What either implementation of Python could take for a number."""


class StopsHereError(Exception):
    """Python's unpickler stops with an error here at the latest."""


class NotReadError(Exception):
    """The pickle is longer than what is read of it."""


class Readable(Protocol):
    """Bytes by place, as of a `ByteSource`."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


class Tape:
    """Bytes read forward in chunks, over what may be gigabytes."""

    def __init__(self, source: Readable, *, complete: bool = True) -> None:
        """Start at the first byte; `complete` is False when the source was cut off at a limit."""
        self._source, self._complete = source, complete
        self._chunk, self._start, self._at = b"", 0, 0
        self._spent = 0

    @property
    def size(self) -> int:
        """Of the whole tape."""
        return self._source.size

    @property
    def place(self) -> int:
        """Bytes passed so far."""
        return self._start + self._at

    @property
    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self._start + self._at >= self._source.size

    def byte(self) -> int:
        """The next byte."""
        if self._at >= len(self._chunk):
            self._fill(1)
        self._at += 1
        return self._chunk[self._at - 1]

    def take(self, count: int) -> bytes:
        """The next bytes."""
        end = self._at + count
        if end > len(self._chunk):
            self._fill(count)
            end = count
        data = self._chunk[self._at : end]
        self._at = end
        return data

    def skip(self, count: int) -> None:
        """Pass over bytes without reading them."""
        self._check(count)
        self._at += count

    def line(self) -> bytes:
        """The next bytes up to a line break, which is dropped; without one, all of them but the last."""
        parts = []
        while True:
            end = self._chunk.find(b"\n", self._at)
            if end >= 0:
                parts.append(self._chunk[self._at : end])
                self._at = end + 1
                return b"".join(parts)
            parts.append(self._chunk[self._at :])
            self._start, self._at, self._chunk = self._start + max(len(self._chunk), self._at), 0, b""
            if self.at_end:
                if not self._complete:
                    raise NotReadError
                return b"".join(parts)[:-1]
            self._fill(1)

    def _check(self, count: int) -> None:
        if self._start + self._at + count > self._source.size:
            raise StopsHereError if self._complete else NotReadError

    def _fill(self, count: int) -> None:
        """Bring `count` bytes from here into the chunk."""
        self._check(count)
        self._start, self._at = self._start + self._at, 0
        length = min(max(count, _CHUNK if self._spent else 512), self._source.size - self._start)
        self._spent += length
        if self._spent > MAX_READ:
            raise NotReadError
        self._chunk = self._source.read(self._start, length)


class Effect(NamedTuple):
    """What an opcode does to the stack when it only takes values off and puts plain data on."""

    to_mark: bool = False
    pops: int = 0
    keeps: bool = False
    """One value stays, below those taken."""
    pushes: bool = False


_DATA = (
    *("NONE", "NEWTRUE", "NEWFALSE", "EMPTY_LIST", "EMPTY_TUPLE", "EMPTY_DICT", "EMPTY_SET"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "NEXT_BUFFER"),
)
_EFFECTS = {
    **dict.fromkeys(_DATA, Effect(pushes=True)),
    **dict.fromkeys(("LIST", "DICT", "FROZENSET"), Effect(to_mark=True, pushes=True)),
    **dict.fromkeys(("APPENDS", "SETITEMS", "ADDITEMS"), Effect(to_mark=True, keeps=True)),
    **dict.fromkeys(("APPEND", "BUILD"), Effect(pops=1, keeps=True)),
    "SETITEM": Effect(pops=2, keeps=True),
    "READONLY_BUFFER": Effect(keeps=True),
}


class Opcode(NamedTuple):
    """One row of the table."""

    name: str
    length: int
    """Bytes of its argument, or one of pickletools' negative codes."""
    effect: Effect | None
    """None for those that need a look at the values."""


_ROWS = {
    ord(info.code): Opcode(info.name, info.arg.n if info.arg else 0, _EFFECTS.get(info.name))
    for info in pickletools.opcodes
}
OPCODES: tuple[Opcode | None, ...] = tuple(_ROWS.get(code) for code in range(256))
"""By the byte."""
_WIDTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_NUMBERS = frozenset({"INT", "LONG", "FLOAT", "GET", "PUT"})


def argument_of(tape: Tape, name: str, length: int) -> bytes | None:
    """The bytes behind an opcode; None when they are too many to keep."""
    if length >= 0:
        return tape.take(length) if length else b""
    if length == pickletools.UP_TO_NEWLINE:
        if name in ("GLOBAL", "INST"):
            return b"\n".join((tape.line(), tape.line()))
        return _checked(name, tape.line())
    count = int.from_bytes(tape.take(_WIDTHS[length]), "little")
    if count <= _LONGEST_NAME:
        return tape.take(count)
    tape.skip(count)
    return None


def _checked(name: str, line: bytes) -> bytes:
    """A line that the unpickler may go on from."""
    if name in _NUMBERS:
        # C reads up to the first NUL, and takes nothing before it for zero in one case.
        digits = line.split(b"\0")[0] or (b"0" if name == "INT" and line else b"")
        good = _NUMBER.fullmatch(digits) is not None
    elif name == "STRING":
        good = len(line) >= 2 and line[:1] == line[-1:] and line[:1] in (b"'", b'"')
    else:
        good = name != "PERSID" or line.isascii()
    if not good:
        raise StopsHereError
    return line
