"""A pickle walked on a stack of stand-ins: what it would import, and where loading would stop.

Nothing is built, called or imported. A stand-in says only what matters: a text, a name that was imported,
plain data that is neither, or anything at all. Where Python's unpickler is sure to stop (no such opcode, an
empty stack, a memo that holds nothing, a call of plain data, more bytes announced than there are), nothing
behind that place can be imported; raw weights that happen to begin like a pickle end there after a few bytes.
Where its two implementations or this walk could differ, the walk goes on as if nothing had stopped them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from detector.opcodes import OPCODES, Effect, StopsHereError, Tape, argument_of


class Imported(NamedTuple):
    """A name that the pickle imports."""

    module: str
    name: str


class _Arguments(NamedTuple):
    """A tuple of up to three."""

    items: tuple[object, ...]


_MARK: Final = object()
_ANYTHING: Final = object()
_DATA: Final = None
_UNKNOWN: Final = Imported("?", "?")
_GETATTR: Final = Imported("builtins", "getattr")
"""Some Pythons pickle a member of an enumeration as `getattr(Class, "NAME")`; no other use passes."""


class Walk:
    """One pickle, from the tape's place to its STOP."""

    def __init__(
        self, is_enumeration: Callable[[Imported], bool], is_record: Callable[[Imported], bool]
    ) -> None:
        """Make one.

        Args:
            is_enumeration: classes of which a member may be fetched by its name.
            is_record: classes of which an object may be made, but which may not be called.
        """
        self._is_enumeration, self._is_record = is_enumeration, is_record
        self._stack: list[object] = []
        self._memo: dict[int, object] = {}
        self._declared = False
        self._frame = 0
        """Where the present frame ends."""
        self._found: list[Imported] = []
        self._handlers: dict[str, Callable[[str, bytes | None], None]] = {
            "MARK": self._mark,
            **dict.fromkeys(("POP", "POP_MARK"), self._drop),
            "DUP": self._double,
            **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"), self._text),
            **dict.fromkeys(
                ("STRING", "BINSTRING", "SHORT_BINSTRING", "PERSID", "BINPERSID"), self._anything
            ),
            **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), self._get),
            **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), self._put),
            **dict.fromkeys(("TUPLE1", "TUPLE2", "TUPLE3", "TUPLE"), self._tuple),
            **dict.fromkeys(("GLOBAL", "INST"), self._global),
            "STACK_GLOBAL": self._stack_global,
            **dict.fromkeys(("EXT1", "EXT2", "EXT4"), self._extension),
            "REDUCE": self._reduce,
            **dict.fromkeys(("NEWOBJ", "NEWOBJ_EX", "OBJ"), self._object),
            "PROTO": self._proto,
            "FRAME": self._nothing,
            "STOP": self._stop,
        }

    def imports(self, tape: Tape, spend: Callable[[], None]) -> Iterator[Imported]:
        """What the pickle imports, in order; `spend` is called for each opcode.

        Raises:
            StopsHereError, NotReadError: see there.
        """
        name = ""
        while name != "STOP":
            opcode = OPCODES[tape.byte()]
            if opcode is None:
                raise StopsHereError
            spend()
            name, length, effect = opcode
            inside = tape.place < self._frame
            try:
                argument = argument_of(tape, name, length) if length else b""
                if inside and (tape.place > self._frame or name == "FRAME"):
                    self._found.append(_UNKNOWN)
                elif name == "FRAME":
                    self._start_frame(tape, argument)
                inside = False
                if effect is None:
                    self._handlers[name](name, argument)
                else:
                    self._apply(effect)
            except StopsHereError:
                yield from self._found or [_UNKNOWN] * inside
                raise
            if self._found:
                yield from self._found
                self._found.clear()

    def _start_frame(self, tape: Tape, argument: bytes | None) -> None:
        """Of what crosses the end of a frame, one of the two implementations drops what lies within it."""
        end = tape.place + int.from_bytes(argument or b"", "little")
        self._frame = end if end <= tape.size else 0

    # --- stack -----------------------------------------------------------------------------------

    def _pop(self) -> object:
        """One value; a mark is none."""
        if not self._stack or self._stack[-1] is _MARK:
            raise StopsHereError
        return self._stack.pop()

    def _used(self) -> object:
        """One value that goes into another, where `getattr` has no business."""
        value = self._pop()
        if _is_getattr(value):
            self._found.append(_GETATTR)
        return value

    def _to_mark(self) -> list[object]:
        values = list[object]()
        while self._stack and self._stack[-1] is not _MARK:
            values.append(self._used())
        if not self._stack:
            raise StopsHereError
        self._stack.pop()
        return values[::-1]

    def _apply(self, effect: Effect) -> None:
        """An opcode that only takes values off and puts plain ones on."""
        to_mark, pops, keeps, pushes = effect
        if to_mark:
            self._to_mark()
        for _ in range(pops):
            self._used()
        if keeps:
            self._stack.append(self._pop())
        if pushes:
            self._stack.append(_DATA)

    # --- opcodes ---------------------------------------------------------------------------------

    def _mark(self, _name: str, _argument: bytes | None) -> None:
        self._stack.append(_MARK)

    def _drop(self, name: str, _argument: bytes | None) -> None:
        if name == "POP_MARK":
            self._to_mark()
        elif self._stack:
            self._stack.pop()
        else:
            raise StopsHereError

    def _double(self, _name: str, _argument: bytes | None) -> None:
        self._stack += [self._pop()] * 2

    def _text(self, name: str, argument: bytes | None) -> None:
        if argument is None:
            self._stack.append(_ANYTHING)
        else:
            self._stack.append(_unescaped(argument) if name == "UNICODE" else _decoded(argument))

    def _anything(self, name: str, _argument: bytes | None) -> None:
        if name == "BINPERSID":
            self._used()
        self._stack.append(_ANYTHING)

    def _get(self, name: str, argument: bytes | None) -> None:
        index = _index(name, argument or b"")
        if index is None:
            self._import(_UNKNOWN)
        elif index in self._memo:
            self._stack.append(self._memo[index])
        else:
            raise StopsHereError

    def _put(self, name: str, argument: bytes | None) -> None:
        value = self._pop()
        self._stack.append(value)
        index = len(self._memo) if name == "MEMOIZE" else _index(name, argument or b"")
        if index is None:
            self._found.append(_UNKNOWN)
        else:
            self._memo[index] = value

    def _tuple(self, name: str, _argument: bytes | None) -> None:
        values = self._to_mark() if name == "TUPLE" else [self._used() for _ in range(int(name[-1]))][::-1]
        # Only the arguments of a call are looked into, and not those within them.
        items = tuple(_DATA if isinstance(value, _Arguments) else value for value in values[:3])
        self._stack.append(_Arguments(items) if len(values) <= 3 else _DATA)

    def _import(self, what: Imported) -> None:
        if not _is_getattr(what):
            self._found.append(what)
        self._stack.append(what)

    def _global(self, opcode: str, argument: bytes | None) -> None:
        module, _, name = (argument or b"").partition(b"\n")
        if b"\0" in module:
            raise StopsHereError  # no module can have such a name
        try:
            what = Imported(module.decode(), name.decode())
        except UnicodeDecodeError as error:
            raise StopsHereError from error
        if opcode == "GLOBAL":
            self._import(what)
        else:
            self._found.append(what)  # one of the two implementations imports before it looks at the stack
            self._to_mark()
            self._call(what)

    def _stack_global(self, _name: str, _argument: bytes | None) -> None:
        name, module = self._used(), self._used()
        if isinstance(name, str) and isinstance(module, str):
            self._import(Imported(module, name))
        elif all(isinstance(part, str) or part is _ANYTHING for part in (name, module)):
            self._import(_UNKNOWN)
        else:
            raise StopsHereError

    def _extension(self, _name: str, _argument: bytes | None) -> None:
        # Nobody registers extensions; only bytes that say that they are a pickle are taken at their word.
        if not self._declared:
            raise StopsHereError
        self._import(_UNKNOWN)

    def _reduce(self, _name: str, _argument: bytes | None) -> None:
        arguments, function = self._used(), self._pop()
        if _is_getattr(function):
            match arguments:
                case _Arguments((Imported() as owner, str(member))) if self._is_enumeration(owner):
                    allowed = member.isupper()
                case _:
                    allowed = False
            if not allowed:
                self._found.append(_GETATTR)
        self._call(function)

    def _object(self, name: str, _argument: bytes | None) -> None:
        if name == "OBJ":
            values = self._to_mark()
            self._call(values[0] if values else _DATA)
            return
        for _ in range(1 if name == "NEWOBJ" else 2):
            self._used()
        self._call(self._used(), runs=False)

    def _call(self, function: object, *, runs: bool = True) -> None:
        if not isinstance(function, Imported) and function is not _ANYTHING:
            raise StopsHereError
        if runs and isinstance(function, Imported) and self._is_record(function):
            self._found.append(Imported(function.module, f"{function.name}()"))
        self._stack.append(_ANYTHING)

    def _proto(self, _name: str, argument: bytes | None) -> None:
        if argument is None or argument > b"\x05":
            raise StopsHereError
        self._declared = True

    def _nothing(self, _name: str, _argument: bytes | None) -> None:
        pass

    def _stop(self, _name: str, _argument: bytes | None) -> None:
        self._used()


def _index(name: str, argument: bytes) -> int | None:
    """The memo's index; None where it is written in a way that parsers may read differently."""
    if name in ("GET", "PUT"):
        return int(argument) if argument.isdigit() and len(argument) < 19 else None
    return int.from_bytes(argument, "little")


def _is_getattr(value: object) -> bool:
    return (
        isinstance(value, Imported)
        and value.name == "getattr"
        and value.module in ("builtins", "__builtin__")
    )


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise StopsHereError from error


def _unescaped(text: bytes) -> object:
    """A text of protocol 0; one with an escape in it is not read."""
    return _ANYTHING if b"\\" in text else text.decode("latin-1")
