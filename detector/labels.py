"""What other scanners say of a pickle: labels beside our own finding, which never decide.

picklescan goes by a list of dangerous names, fickling by what a decompiled pickle does; both are optional,
load nothing and run nothing. They are given small files only, because neither bounds its time by much else.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from crawler.interface import ByteSource, CrawlerError
from crawler.stream import SourceStream
from detector.archives import BoundedReader
from detector.interface import Evidence, FileFinding

LABELLED = frozenset({"pickle-file", "unsafe-pickle", "unread-pickle"})
MAX_LABELLED = 8
"""Files of one repository."""
MAX_FILE = 1 << 20
"""Bytes of a pickle that is no archive, from which on it is not given away."""
_PICKLESCAN_BYTES, _FICKLING_BYTES = 256 << 10, 16 << 10
"""Bytes of a pickle, each scanned within half a second; records of trainers have 5 KB."""
_NAMES = 3

Scanner = Callable[[bytes], Evidence]


def scanners() -> Mapping[str, Scanner]:
    """Those that are installed, by name."""
    found: dict[str, Scanner] = {}
    for name, make in (("picklescan", _picklescan), ("fickling", _fickling)):
        try:
            found[name] = make()
        except ImportError:
            continue
    return found


def labelled(
    findings: Iterable[FileFinding], read: Callable[[str], ByteSource], installed: Mapping[str, Scanner]
) -> Iterator[FileFinding]:
    """The findings, those about pickles with what the scanners say of the file.

    Raises:
        CrawlerError: a file could not be read.
    """
    said: dict[str, tuple[Evidence, ...]] = {}
    for finding in findings:
        path = finding.path
        if finding.id in LABELLED and installed and path not in said and len(said) < MAX_LABELLED:
            data = _pickle_of(read(path))
            said[path] = () if data is None else tuple(scan(data) for scan in installed.values())
        yield replace(finding, labels=said[path]) if finding.id in LABELLED and path in said else finding


def _pickle_of(source: ByteSource) -> bytes | None:
    """A small pickle, or the one in torch's archive."""
    head = source.read(0, min(4, source.size))
    if head != b"PK\3\4":
        return source.read(0, source.size) if source.size <= MAX_FILE else None
    try:
        with zipfile.ZipFile(BoundedReader(SourceStream(source), buffer_size=1 << 16)) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith("data.pkl")]
            if len(members) != 1 or max(members[0].file_size, members[0].compress_size) > MAX_FILE:
                return None
            with archive.open(members[0]) as member:
                return member.read(MAX_FILE)
    except CrawlerError:
        raise
    except Exception:  # noqa: BLE001 - a hostile archive, of which our own finding tells
        return None


def _guarded(name: str, limit: int, scan: Callable[[bytes], Evidence]) -> Scanner:
    def guarded(data: bytes) -> Evidence:
        if len(data) > limit:
            return Evidence(name, "not scanned", f"{len(data)} bytes, more than {limit}")
        try:
            return scan(data)
        except Exception as error:  # noqa: BLE001 - hostile bytes in somebody else's parser
            return Evidence(name, "failed", type(error).__name__)

    return guarded


def _picklescan() -> Scanner:
    from picklescan.scanner import SafetyLevel, scan_pickle_bytes

    logging.getLogger("picklescan").setLevel(logging.CRITICAL)  # it tells its findings to the log as well

    def scan(data: bytes) -> Evidence:
        found = scan_pickle_bytes(io.BytesIO(data), "file")
        for level in (SafetyLevel.Dangerous, SafetyLevel.Suspicious):
            names = sorted(f"{each.module}.{each.name}" for each in found.globals if each.safety is level)
            if names:
                return Evidence("picklescan", level.value, _listed(names))
        return Evidence("picklescan", "failed" if found.scan_err else "innocuous")

    return _guarded("picklescan", _PICKLESCAN_BYTES, scan)


def _fickling() -> Scanner:
    from fickling.analysis import check_safety
    from fickling.fickle import Pickled

    def scan(data: bytes) -> Evidence:
        return Evidence("fickling", check_safety(Pickled.load(data)).severity.name.lower().replace("_", " "))

    return _guarded("fickling", _FICKLING_BYTES, scan)


def _listed(names: list[str]) -> str:
    shown = ascii(", ".join(name[:60] for name in names[:_NAMES]))[1:-1]
    return shown if len(names) <= _NAMES else f"{shown} and {len(names) - _NAMES} more"
