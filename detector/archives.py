"""What archives and model graphs would do to whoever opens them: members are listed and never extracted.

Zip (also .npz, .keras, .mar, jars), tar (also .nemo), NumPy arrays and Keras' HDF5. Only names, headers and a
few small members are read.

Not covered: archives within archives, which are named and not opened, and compressed tar files.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from crawler.interface import ByteSource, CrawlerError
from detector.filenames import hostile_reason
from detector.pickles import PickleKind, PickleReport, inspect_stream, inspect_zip

MAX_DIRECTORY = 4 << 20
"""Bytes of a zip archive's list of members, and of any other single read: 90 000 entries, listed in 0.6 s."""
MAX_MEMBERS = 4096
"""Of a tar archive: each header is a read of its own."""
MAX_GRAPH = 1 << 20
"""Bytes of a Keras model's description that are searched."""
MAX_INNER = 4 << 20
"""Bytes read of all pickles in one zip archive."""
_ENCRYPTED = 1
_MAX_ARRAYS = 64
_NUMPY_HEADER = 1 << 14
_PROGRAMS = frozenset(
    {".py", ".pyc", ".sh", ".exe", ".bat", ".cmd", ".ps1", ".so", ".dll", ".dylib", ".class"}
)
_PICKLES = frozenset({".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib"})
_ARCHIVES = frozenset({".zip", ".7z", ".gz", ".xz", ".bz2", ".zst", ".rar", ".tar", ".tgz"})
_TAR_LINKS = frozenset(b"12")
_TAR_DEVICES = frozenset(b"346")
_LAMBDA = b'"class_name":"Lambda"'


@dataclass(frozen=True, slots=True)
class ArchiveProblem:
    """One thing about an archive: the id of a finding, and a note of at most 300 ASCII characters."""

    id: str
    note: str


class BoundedReader(io.BufferedReader):
    """A file whose single reads are bounded: `zipfile` reads the list of members at once, however long."""

    def read(self, size: int | None = -1, /) -> bytes:
        """As `io.BufferedReader`.

        Raises:
            ValueError: more than `MAX_DIRECTORY` bytes at once.
        """
        rest = size is None or size < 0
        data = super().read(MAX_DIRECTORY + 1 if size is None or rest else min(size, MAX_DIRECTORY + 1))
        if len(data) > MAX_DIRECTORY:
            raise ValueError(f"more than {MAX_DIRECTORY} bytes at once")
        return data


def inspect_members(file: BinaryIO) -> Iterator[ArchiveProblem]:
    """Problems of a zip archive that is not torch's.

    Raises:
        CrawlerError: the bytes could not be had.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            names = [member.filename for member in archive.infolist()]
            yield from _named(names)
            yield from _pickles(archive)
            for name in [name for name in names if name.endswith(".npy")][:_MAX_ARRAYS]:
                with archive.open(name) as member:
                    yield from _array(member.read(_NUMPY_HEADER), name)
            if "config.json" in names and "metadata.json" in names:
                with archive.open("config.json") as member:
                    yield from _keras(member.read(MAX_GRAPH))
    except CrawlerError:
        raise
    except Exception as error:  # noqa: BLE001 - a hostile archive; zipfile has no common exception for one
        yield ArchiveProblem("packed-archive", f"cannot be read ({type(error).__name__})")


@dataclass(frozen=True, slots=True)
class TarMember:
    """A regular member of a tar archive."""

    name: str
    offset: int
    """Bytes from the start of the archive to its content."""
    size: int

    @property
    def is_pickle(self) -> bool:
        """By its name."""
        return PurePosixPath(self.name.lower()).suffix in _PICKLES


def read_tar(source: ByteSource) -> tuple[tuple[TarMember, ...], tuple[ArchiveProblem, ...]]:
    """Members and problems of a plain tar archive, read header by header.

    Raises:
        CrawlerError: the bytes could not be had.
    """
    members, links, position = list[TarMember](), list[str](), 0
    problems = list[ArchiveProblem]()
    for _ in range(MAX_MEMBERS):
        header = source.read(position, 512) if position + 512 <= source.size else b""
        if not header.strip(b"\0"):
            break
        name, size = _tar_member(header)
        if size is None or position + 512 + size > source.size:
            problems.append(
                ArchiveProblem("packed-archive", "a tar archive with a header that does not parse")
            )
            break
        if header[156] in _TAR_LINKS or header[156] in _TAR_DEVICES:
            links.append(name)
        members.append(TarMember(name, position + 512, size))
        position += 512 + -(-size // 512) * 512
    else:
        problems.append(ArchiveProblem("packed-archive", f"a tar archive of more than {MAX_MEMBERS} members"))
    if links:
        problems.append(
            ArchiveProblem("hostile-name", f"a tar archive with links or devices: {_listed(links)}")
        )
    named = _named(member.name.removeprefix("./") for member in members)
    return tuple(members), (*problems, *named)


def _tar_member(header: bytes) -> tuple[str, int | None]:
    name = header[345:500].rstrip(b"\0") if header[257:262] == b"ustar" else b""
    full = (name + b"/" if name else b"") + header[:100].split(b"\0")[0]
    field = header[124:136]
    if field[0] & 0x80:
        size: int | None = int.from_bytes(field[1:], "big")
    else:
        digits = field.rstrip(b"\0 ").lstrip(b" ") or b"0"
        size = int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else None
    return full.decode("utf-8", "replace"), size


def inspect_array(head: bytes, *, complete: bool) -> PickleReport:
    """A NumPy array: one of objects is a pickle behind a header.

    Args:
        head: the file from its first byte.
        complete: False when `head` was cut off at a limit.
    """
    length = (
        int.from_bytes(head[8:10], "little") if head[6:7] == b"\x01" else int.from_bytes(head[8:12], "little")
    )
    start = (10 if head[6:7] == b"\x01" else 12) + length
    if length > _NUMPY_HEADER or not head[:start].rstrip().endswith(b"}"):
        return PickleReport(PickleKind.UNSAFE, "an array with a header that does not parse")
    description = head[:start].partition(b"'descr'")[2].partition(b"'fortran_order'")[0]
    if b"O" not in description:
        return PickleReport(PickleKind.NONE)
    report = inspect_stream(head[start:], complete=complete)
    if report.kind is PickleKind.PLAIN:
        return report
    return PickleReport(PickleKind.UNSAFE, report.note or "an array of objects, which is a pickle")


def inspect_graph(text: bytes) -> Iterator[ArchiveProblem]:
    """Keras' description of a model, wherever it lies in these bytes: a Lambda layer holds code."""
    if _LAMBDA in text.replace(b" ", b"").replace(b"\\", b""):
        yield ArchiveProblem("remote-code", "a Keras model with a Lambda layer, which is code in the file")


def _keras(text: bytes) -> Iterator[ArchiveProblem]:
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        yield ArchiveProblem("malformed-config", f"config.json in the archive: {type(error).__name__}")
        return
    yield from inspect_graph(text)


def _pickles(archive: zipfile.ZipFile) -> Iterator[ArchiveProblem]:
    """What the pickles in an archive would import; small ones are read, others told."""
    left, unread = MAX_INNER, list[str]()
    for member in archive.infolist():
        name = member.filename
        if PurePosixPath(name.lower()).suffix not in _PICKLES:
            continue
        if max(member.file_size, member.compress_size) > left or member.flag_bits & _ENCRYPTED:
            unread.append(name)
            continue
        report = _member_report(archive, member, left)
        left -= member.file_size
        if report.kind is not PickleKind.NONE:
            note = f"in the archive, {_listed([name])}: {report.note or 'builds tensors and plain data'}"
            yield ArchiveProblem(report.finding, note[:300])
    if unread:
        yield ArchiveProblem("unread-pickle", f"in the archive, too large to be read: {_listed(unread)}")


def _member_report(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> PickleReport:
    try:
        with archive.open(member) as opened:
            data = opened.read(limit)  # what it unfolds to is bounded, whatever the list of members says
    except CrawlerError:
        raise
    except Exception as error:  # noqa: BLE001 - as above; other readers may not mind what ours does
        return PickleReport(PickleKind.UNREAD, f"cannot be read ({type(error).__name__})")
    if data.startswith(b"PK\3\4"):
        return inspect_zip(io.BytesIO(data))
    return inspect_stream(data, complete=len(data) == member.file_size)


def _array(head: bytes, name: str) -> Iterator[ArchiveProblem]:
    if not head.startswith(b"\x93NUMPY") or inspect_array(head, complete=False).kind is not PickleKind.NONE:
        yield ArchiveProblem(
            "unsafe-pickle", f"holds an array of objects, which is a pickle: {_listed([name])}"
        )


def _named(names: Iterable[str]) -> Iterator[ArchiveProblem]:
    """What the names of the members tell."""
    groups: dict[str, list[str]] = {"hostile-name": [], "executable-file": []}
    packed = list[str]()
    for name in names:
        suffix = PurePosixPath(name.lower()).suffix
        if hostile_reason(name.removesuffix("/")):
            groups["hostile-name"].append(name)
        elif suffix in _PROGRAMS or name.upper() == "META-INF/MANIFEST.MF":
            groups["executable-file"].append(name)
        elif suffix in _ARCHIVES:
            packed.append(name)
    notes = {
        "hostile-name": "an archive with a member that leads out of it or misleads",
        "executable-file": "an archive with programs",
    }
    for identifier, found in groups.items():
        if found:
            yield ArchiveProblem(identifier, f"{notes[identifier]}: {_listed(found)}")
    if packed:
        yield ArchiveProblem("packed-archive", f"an archive with archives in it: {_listed(packed)}")


def _listed(names: list[str]) -> str:
    shown = ", ".join(ascii(name[:60])[1:-1] for name in names[:3])
    return shown[:200] if len(names) <= 3 else f"{shown[:200]} and {len(names) - 3} more"
