"""Files that are dangerous as such, whatever the weights say: pickles, programs, remote code, false names.

Looks at content before names: the first bytes decide what a file is. Reads little (bounded below) and opens
nothing with the loader it was meant for.

Not covered: malware in general (the Hub runs scanners for that), archives other than torch's, and files
beyond `MAX_PROBED`, which are judged by name alone.
"""

from __future__ import annotations

import io
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath

from crawler.interface import ByteSource, RepoFile, Snapshot
from crawler.stream import SourceStream
from detector.interface import FileFinding
from detector.pickles import MAX_PICKLE_BYTES, PickleKind, PickleReport, inspect_stream, inspect_zip

MAX_PROBED = 256
"""Files whose first bytes are read, one ranged request each; Llama-3.1-405B is 191 shards."""
MAX_BYTES = 128 << 20
"""Read from one repository in all."""
MAX_CONFIG_BYTES = 4 << 20
"""Of a JSON configuration; real ones stay below 1 MB."""
_MAX_ARCHIVE = 2 * MAX_PICKLE_BYTES
"""Read from one zip archive: the pickle in it, twice over."""
MAX_PER_ID = 50
"""Findings listed under one id; the rest is counted."""

_PROBE_BYTES = 64
_PICKLE_SUFFIXES = frozenset(
    {".bin", ".pt", ".pth", ".th", ".pt2", ".ckpt", ".pkl", ".pickle", ".p", ".joblib", ".dill"}
)
_PROGRAM_SUFFIXES = frozenset(
    {".py", ".pyc", ".pyd", ".sh", ".bash", ".exe", ".bat", ".cmd", ".ps1", ".com", ".scr", ".msi", ".vbs"}
    | {".so", ".dll", ".dylib", ".jar", ".js", ".app", ".apk", ".deb", ".rpm", ".whl", ".egg", ".lnk"}
)
_TEXT_SUFFIXES = frozenset(
    {".md", ".txt", ".json", ".jsonl", ".jinja", ".yaml", ".yml", ".toml", ".csv", ".html", ".svg"}
    | {".png", ".jpg", ".jpeg", ".gif", ".webp", ".pdf", ".ipynb"}
)
_TEXT_NAMES = frozenset({".gitattributes", ".gitignore", "license", "notice"})
"""Never probed: neither loaded as weights nor run by opening them with what they are named for."""

_COMPRESSED = (
    *(b"7z\xbc\xaf\x27\x1c", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"(\xb5/\xfd", b"Rar!"),
    *(b"x\x9c", b"x\x01", b"x\xda"),
)
_PROGRAM_MAGIC = (b"\x7fELF", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xcf\xfa\xed\xfe", b"#!/", b"#! /")
_CONFIGS = frozenset(
    {"config.json", "tokenizer_config.json", "generation_config.json", "adapter_config.json"}
    | {"processor_config.json", "preprocessor_config.json"}
)


def inspect_files(snapshot: Snapshot, read: Callable[[str], ByteSource]) -> tuple[FileFinding, ...]:
    """Findings about the files of a snapshot, in path order; at most one about a file's content.

    Ids: `hostile-name`, `executable-file`, `pickle-file` (imports only constructors of tensors and plain
    data), `unsafe-pickle` (imports anything else, or cannot be read to its end), `remote-code` (a config
    that asks a loader to run code), `malformed-config`.

    Raises:
        CrawlerError: a file could not be read.
    """
    budget = _Budget(MAX_BYTES)
    findings = [*_hostile_names(snapshot.files)]
    probed = 0
    for file in sorted(snapshot.files, key=_urgency):
        name = PurePosixPath(file.path.lower())
        suffix = name.suffix
        if suffix in _PROGRAM_SUFFIXES:
            findings.append(FileFinding("executable-file", file.path, f"a program by its name ({suffix})"))
        elif name.name in _CONFIGS:
            findings.extend(_inspect_config(file, read, budget))
        elif suffix not in _TEXT_SUFFIXES and name.name not in _TEXT_NAMES and file.size:
            probed += 1
            if probed <= MAX_PROBED:
                findings.extend(_inspect_binary(file, _Source(read(file.path), budget)))
            elif suffix in _PICKLE_SUFFIXES:
                note = f"not inspected: the repository has more than {MAX_PROBED} binary files"
                findings.append(FileFinding("unsafe-pickle", file.path, note))
    return tuple(_capped(sorted(findings, key=lambda finding: (finding.path, finding.id))))


def _urgency(file: RepoFile) -> tuple[bool, str]:
    return PurePosixPath(file.path.lower()).suffix not in _PICKLE_SUFFIXES, file.path


def _inspect_binary(file: RepoFile, source: _Source) -> Iterator[FileFinding]:
    try:
        head = source.read(0, min(_PROBE_BYTES, file.size))
        if _is_program(head):
            yield FileFinding("executable-file", file.path, "a program by its first bytes")
            return
        report = _inspect_pickle(file, head, source)
    except ReadLimitError:
        report = PickleReport(PickleKind.UNSAFE, f"not inspected: more than {MAX_BYTES} bytes to read in all")
    if report.kind is PickleKind.PLAIN:
        yield FileFinding("pickle-file", file.path, "imports only constructors of tensors and plain data")
    elif report.kind is PickleKind.UNSAFE:
        yield FileFinding("unsafe-pickle", file.path, report.note)


def _inspect_pickle(file: RepoFile, head: bytes, source: _Source) -> PickleReport:
    """A pickle by its first bytes, or by its name when the bytes allow it (old protocols have no magic)."""
    named = PurePosixPath(file.path.lower()).suffix in _PICKLE_SUFFIXES
    if head.startswith(b"PK\x03\x04"):
        archive = SourceStream(_Source(source, _Budget(_MAX_ARCHIVE)))
        report = inspect_zip(io.BufferedReader(archive, buffer_size=1 << 16))
        if named and report.kind is PickleKind.NONE:
            # Archives can be built so that two readers see different members.
            return PickleReport(PickleKind.UNSAFE, "a zip archive without torch's data.pkl")
        return report
    if named and head.startswith(_COMPRESSED):
        return PickleReport(PickleKind.UNSAFE, "compressed, not looked into")
    if not named and not (head[:1] == b"\x80" and head[1:2] <= b"\x05"):
        return PickleReport(PickleKind.NONE)
    first = inspect_stream(head, complete=len(head) == file.size)
    if first.kind is PickleKind.NONE or len(head) == file.size:
        return first
    length = min(file.size, MAX_PICKLE_BYTES)
    return inspect_stream(source.read(0, length), complete=length == file.size)


def _is_program(head: bytes) -> bool:
    # A DOS header ends with the offset of the real one; two letters alone occur in random weights.
    windows = head.startswith(b"MZ") and 64 <= int.from_bytes(head[60:64], "little") <= 4096
    return windows or head.startswith(_PROGRAM_MAGIC)


def _inspect_config(
    file: RepoFile, read: Callable[[str], ByteSource], budget: _Budget
) -> Iterator[FileFinding]:
    if file.size > MAX_CONFIG_BYTES:
        yield FileFinding(
            "malformed-config", file.path, f"{file.size} bytes are too many for a configuration"
        )
        return
    try:
        config: object = json.loads(_Source(read(file.path), budget).read(0, file.size))
    except ReadLimitError:
        yield FileFinding("malformed-config", file.path, f"not inspected: more than {MAX_BYTES} bytes in all")
        return
    except (ValueError, RecursionError) as error:
        yield FileFinding("malformed-config", file.path, f"not JSON ({type(error).__name__})")
        return
    requests = sorted(set(_code_requests(config)))
    if requests:
        yield FileFinding("remote-code", file.path, f"asks the loader to run code: {', '.join(requests)}")


def _code_requests(config: object) -> Iterator[str]:
    """Keys that make a loader import code: from the repository (auto_map) or from another one (kernels)."""
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(value)
        if not isinstance(value, dict):
            continue
        pending.extend(value.values())
        for key in ("auto_map", "trust_remote_code", "custom_pipelines"):
            if value.get(key):
                yield key
        # transformers fetches and imports a kernel repository named here (CVE-2026-4372).
        for key in ("attn_implementation", "_attn_implementation", "_attn_implementation_internal"):
            if "/" in str(value.get(key, "")):
                yield key


def _hostile_names(files: Iterable[RepoFile]) -> Iterator[FileFinding]:
    for file in files:
        reason = _name_problem(file.path)
        if reason:
            yield FileFinding("hostile-name", file.path, reason)


def _name_problem(path: str) -> str:
    """Why a name misleads a reader or a file system; other scripts, emoji and full-width marks do not."""
    for index, character in enumerate(path):
        # Joiners are ordinary spelling inside emoji and several scripts, and nowhere else.
        joined = character in "\u200c\u200d" and 0 < index < len(path) - 1
        if joined and not (path[index - 1] + path[index + 1]).isascii():
            continue
        if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}:
            return "contains control, invisible or text-direction characters"
        if not character.isascii() and _is_plain_ascii(unicodedata.normalize("NFKC", character)):
            return "contains letters that look like ASCII ones and are not"
    parts = path.split("/")
    if "\\" in path or {"", ".", ".."} & set(parts):
        return "is not a plain relative path"
    if any(len(part.encode()) > 255 for part in parts):
        return "is longer than file systems allow"
    return ""


def _is_plain_ascii(text: str) -> bool:
    return text.isascii() and text.isalnum()


def _capped(findings: Iterable[FileFinding]) -> Iterator[FileFinding]:
    findings = list(findings)
    totals, seen = Counter(finding.id for finding in findings), Counter[str]()
    for finding in findings:
        seen[finding.id] += 1
        if seen[finding.id] < MAX_PER_ID or totals[finding.id] == seen[finding.id] == MAX_PER_ID:
            yield finding
        elif seen[finding.id] == MAX_PER_ID:
            more = totals[finding.id] - MAX_PER_ID
            yield FileFinding(finding.id, finding.path, f"{finding.note}; and {more} more files")


class ReadLimitError(Exception):
    """The repository makes us read more than `MAX_BYTES`."""


class _Budget:
    """Bytes left to read in one repository."""

    def __init__(self, left: int) -> None:
        self._left = left

    def spend(self, count: int) -> None:
        """Raise `ReadLimitError` before the bytes are asked for."""
        self._left -= count
        if self._left < 0:
            raise ReadLimitError


class _Source:
    """A `ByteSource` that spends a budget."""

    def __init__(self, source: ByteSource, budget: _Budget) -> None:
        self._source, self._budget = source, budget

    @property
    def size(self) -> int:
        return self._source.size

    def read(self, offset: int, length: int) -> bytes:
        self._budget.spend(length)
        return self._source.read(offset, length)
