"""What a pickle would import if somebody loaded it, read from its opcodes. Nothing is ever unpickled here.

An allow-list, because deny-lists of dangerous names are routinely bypassed (arXiv 2508.19774: 133 gadgets
pass the published scanners). A name outside the list, an opcode that hides a name, or bytes that another
parser might read differently count against the file.

Not covered: whether an import outside the list is malicious; we only say that loading the file runs code that
the file chooses.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import IO, BinaryIO

from crawler.interface import CrawlerError

MAX_PICKLE_BYTES = 8 << 20
"""Far above real ones (measured: 36 kB for 291 tensors); tensor data lies outside the pickle."""
MAX_OPCODES = 1_000_000
"""Parsed in 0.7 s; a 291-tensor checkpoint has 9 300."""
_MAX_NAMED = 8
"""Foreign imports listed; the first one decides."""

_TORCH = (
    "FloatStorage HalfStorage BFloat16Storage DoubleStorage LongStorage IntStorage ShortStorage CharStorage "
    "ByteStorage BoolStorage Size Tensor device bool float32 float16 bfloat16 float64 float8_e4m3fn "
    "float8_e5m2 int64 int32 int16 int8 uint8"
)
ALLOWED = frozenset(
    {
        *(("torch", name) for name in _TORCH.split()),
        *(("torch.storage", name) for name in ("UntypedStorage", "TypedStorage")),
        *(("torch._utils", name) for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")),
        ("torch.nn.parameter", "Parameter"),
        ("torch.serialization", "_get_layout"),
        ("collections", "OrderedDict"),
        *((module, name) for module in ("builtins", "__builtin__") for name in ("set", "bytes", "bytearray")),
        *(("numpy", name) for name in ("dtype", "ndarray")),
        *(
            (f"numpy.{core}.multiarray", name)
            for core in ("core", "_core")
            for name in ("_reconstruct", "scalar")
        ),
        ("_codecs", "encode"),
        # What transformers' Trainer leaves in training_args.bin beside its fine-tunes: enums and records.
        *(("transformers.training_args", name) for name in ("TrainingArguments", "OptimizerNames")),
        *(
            ("transformers.trainer_utils", f"{name}Strategy")
            for name in ("Hub", "Interval", "Save", "Evaluation")
        ),
        ("transformers.trainer_utils", "SchedulerType"),
        ("transformers.trainer_pt_utils", "AcceleratorConfig"),
        ("accelerate.state", "PartialState"),
        ("accelerate.utils.dataclasses", "DistributedType"),
        *((f"trl.trainer.{kind.lower()}_config", f"{kind}Config") for kind in ("SFT", "DPO", "GRPO", "ORPO")),
        ("datetime", "timedelta"),
    }
)
"""Constructors of plain data; none runs, imports or opens anything that its arguments name."""

_IMPORTS = frozenset({"GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"})
_TEXT = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"})
_GET = frozenset({"GET", "BINGET", "LONG_BINGET"})
_PUT = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_NAMES = {info.code: info.name for info in pickletools.opcodes}
_STACK_UNTOUCHED = frozenset({"PROTO", "FRAME"})
_SIZED = frozenset({"BINUNICODE", "BINUNICODE8", "BINBYTES", "BINBYTES8", "BYTEARRAY8", "BINSTRING", "LONG4"})

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


@dataclass(frozen=True, slots=True)
class PickleReport:
    """Outcome for one file."""

    kind: PickleKind
    note: str = ""
    """Why it is unsafe: the foreign imports, or what could not be read. ASCII, at most 300 characters."""


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


def inspect_stream(data: bytes, *, complete: bool, opcodes: Opcodes | None = None) -> PickleReport:
    """Inspect a raw pickle, several in a row, or torch's legacy container.

    Args:
        data: the file from its first byte.
        complete: False when `data` was cut off at a limit.
        opcodes: how many may be parsed; a stream that needs more is unsafe.
    """
    opcodes = opcodes or Opcodes()
    stream = io.BytesIO(data)
    legacy = data.startswith(_LEGACY_MAGIC)
    foreign: list[str] = []
    count = 0
    while stream.tell() < len(data) and not (legacy and count == _LEGACY_PICKLES):
        scan = _Scan(opcodes)
        problem = scan.run(stream)
        foreign.extend(scan.foreign)
        if problem and not count and not scan.imports and scan.stops_unpickler(data, complete=complete):
            return PickleReport(PickleKind.NONE)
        if problem or foreign:
            return _unsafe(foreign, problem)
        count += 1
    if not complete and not legacy:
        return _unsafe(foreign, f"longer than the {len(data)} bytes that are inspected")
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


class _Scan:
    """One pickle of a stream, opcode by opcode."""

    def __init__(self, opcodes: Opcodes) -> None:
        self._opcodes = opcodes
        self.foreign: list[str] = []
        self.imports = 0
        self._next = 0
        """Where the opcode after the last good one starts."""

    def run(self, stream: io.BytesIO) -> str:
        """Read up to STOP; the reason why that failed, or an empty string."""
        self._next = stream.tell()
        try:
            for module, name in self._imported(stream):
                self.imports += 1
                if (module, name) not in ALLOWED:
                    self.foreign.append(f"{module[:60]}.{name[:60]}")
                if len(self.foreign) == _MAX_NAMED:
                    return ""
        except Exception as error:  # noqa: BLE001 - hostile bytes; pickletools has no common exception for them
            return f"does not parse ({type(error).__name__})"
        return ""

    def stops_unpickler(self, data: bytes, *, complete: bool) -> bool:
        """Whether Python's own unpickler would stop where we did, so that nothing later can be imported.

        True for a byte that is no opcode, and for data that announces more than the file holds. Everywhere
        else the two parsers differ in details (number formats, missing newlines) that a file could use.
        """
        if self._next >= len(data):
            return complete
        name = _NAMES.get(chr(data[self._next]))
        return name is None or (complete and name in _SIZED)

    def _imported(self, stream: io.BytesIO) -> Iterator[tuple[str, str]]:
        """(module, name) of every import, in order.

        `STACK_GLOBAL` takes both from the stack. They are followed only through what pickle itself writes,
        text constants and memo look-ups right before it; anything else yields `("?", "?")`, never allowed.
        """
        memo: dict[int, str] = {}
        top: list[str] = []
        for opcode, argument, _ in pickletools.genops(stream):
            self._next = stream.tell()
            self._opcodes.spend()
            name = opcode.name
            if name in _TEXT:
                top.append(str(argument))
            elif name in _GET:
                top.append(memo.get(int(str(argument)), "?"))
            elif name in _PUT:
                memo[len(memo) if argument is None else int(argument)] = top[-1] if top else "?"
            elif name not in _STACK_UNTOUCHED:
                if name in _IMPORTS:
                    yield _target(name, argument, top)
                top.clear()


class TooManyOpcodesError(Exception):
    """The stream is longer than any real checkpoint's."""


def _target(opcode: str, argument: object, top: list[str]) -> tuple[str, str]:
    if opcode in {"GLOBAL", "INST"}:
        module, _, name = str(argument).partition(" ")
        return module, name
    if opcode == "STACK_GLOBAL" and len(top) >= 2:
        return top[-2], top[-1]
    return "?", "?"
