"""Files that are dangerous as such, whatever the weights say: pickles, programs, remote code, false names.

Looks at content before names: the first bytes decide what a file is. Reads little (bounded below) and opens
nothing with the loader it was meant for.

Not covered: malware in general (the Hub runs scanners for that), text files and images beyond
`MAX_TEXT_PROBED`, and other files beyond `MAX_PROBED`, which are judged by name alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import PurePosixPath

from crawler.interface import ByteSource, RepoFile, Snapshot
from crawler.stream import SourceStream
from detector.archives import (
    MAX_GRAPH,
    BoundedReader,
    inspect_array,
    inspect_graph,
    inspect_members,
    read_tar,
)
from detector.configs import CONFIGS, CodeRequests, inspect_config
from detector.filenames import hostile_reason, name_findings
from detector.interface import FileFinding
from detector.pickles import (
    MAX_PICKLE_BYTES,
    Opcodes,
    PickleKind,
    PickleReport,
    inspect_pickle,
    inspect_zip,
)
from detector.sniff import PROBE_BYTES, Content, sniff

MAX_PROBED = 256
"""Files whose first bytes are read, one ranged request each; Llama-3.1-405B is 191 shards."""
MAX_TEXT_PROBED = 16
"""Text files and images that are probed too, those that the Hub stores apart first: a request each, and a
program under such a name needs somebody else to start it."""
MAX_BYTES = 128 << 20
"""Read from one repository in all."""
MAX_OPCODES = 1_000_000
"""Of all pickles of a repository, parsed in 1 s; a checkpoint of 300 tensors has 9 300."""
_MAX_CONFIGS = 8 << 20
"""Bytes of all configurations."""
_CONFIGS_READ = 64
"""Those nearest to the root; a request each."""
_MAX_ARCHIVE = 2 * MAX_PICKLE_BYTES
"""Read from one archive: the pickle in it, twice over."""
_CHUNK = 1 << 16
"""Read at once of a tar archive."""
_MAX_INNER = 8
"""Pickles looked into in one tar archive."""
MAX_PER_ID = 50
"""Findings listed under one id; the rest is counted."""

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
_CARDS = frozenset({"readme.md", ".gitattributes"})
"""The Hub itself reads these as text."""

_EXPECTED = {".safetensors": Content.SAFETENSORS, ".gguf": Content.GGUF}
_NO_PICKLES = frozenset({Content.ZIP, Content.COMPRESSED})
"""torch opens the one as a zip archive; nothing unpickles the other as it is, and it is a finding anyway."""
_DATA_SUFFIXES = frozenset({".pkl", ".pickle", ".p", ".joblib", ".dill"})
"""Of pickles that tools compress; weights they do not."""


def inspect_files(
    snapshot: Snapshot,
    read: Callable[[str], ByteSource],
    known: frozenset[str] = frozenset(),
    owned: Callable[[str], CodeRequests | None] = lambda _: None,
) -> tuple[FileFinding, ...]:
    """Findings about the files of a snapshot, in path order.

    Ids: `hostile-name`, `unportable-name`, `colliding-names`, `executable-file`, `pickle-file` (imports only
    constructors of tensors and plain data), `unsafe-pickle` (imports anything else, or is made so that
    parsers differ), `unread-pickle` (too long, one of too many, or packed), `remote-code` (a config or graph
    that makes a loader run code), `disguised-file` (content of another kind than its name says),
    `packed-archive` (not looked into), `malformed-config`.

    Args:
        snapshot: the file list.
        read: path → its bytes.
        known: paths of files that are the publisher's own, which are not read.
        owned: path → what the publisher's own configuration of that path asks a loader to run, if it has one.
            A copy that asks for the same is no finding, as long as the code is the publisher's too.

    Raises:
        CrawlerError: a file could not be read.
    """
    budget, opcodes = _Budget(MAX_BYTES), Opcodes(MAX_OPCODES)
    findings = [*_refused(snapshot), *name_findings(snapshot.files)]
    groups = _grouped(file for file in snapshot.files if file.path not in known)
    for file in groups[_Group.PROGRAM]:
        note = f"a program by its name ({PurePosixPath(file.path.lower()).suffix})"
        findings.append(FileFinding("executable-file", file.path, note))
    spare = _Budget(_MAX_CONFIGS)
    pure = not groups[_Group.PROGRAM]
    nearest = sorted(groups[_Group.CONFIG], key=lambda file: (file.path.count("/"), file.path))
    for number, file in enumerate(nearest):
        source = _Source(read(file.path), spare if number < _CONFIGS_READ else _Budget(-1))
        asked = owned(file.path) if pure else None
        findings.extend(_inspect_config(file, source, asked))
    for number, file in enumerate(sorted(groups[_Group.BINARY], key=_urgency)):
        if number < MAX_PROBED:
            findings.extend(_inspect_binary(file, _Source(read(file.path), budget), opcodes))
        elif _is_named_pickle(file):
            note = f"not inspected: the repository has more than {MAX_PROBED} binary files"
            findings.append(FileFinding("unread-pickle", file.path, note))
    texts = sorted(groups[_Group.TEXT], key=lambda file: (file.sha256 is None, file.path))
    for file in texts[:MAX_TEXT_PROBED]:
        findings.extend(_inspect_text(file, _Source(read(file.path), budget), opcodes))
    return tuple(_capped(sorted(set(findings), key=lambda found: (found.path, found.id, found.note))))


class _Group(Enum):
    """How a file is looked at, by its name."""

    PROGRAM = 1
    CONFIG = 2
    TEXT = 3
    BINARY = 4
    NONE = 5


def _grouped(files: Iterable[RepoFile]) -> dict[_Group, list[RepoFile]]:
    groups: dict[_Group, list[RepoFile]] = {group: [] for group in _Group}
    for file in files:
        name = PurePosixPath(file.path.lower())
        if name.suffix in _PROGRAM_SUFFIXES:
            group = _Group.PROGRAM
        elif name.name in CONFIGS:
            group = _Group.CONFIG
        elif not file.size or name.name in _CARDS:
            group = _Group.NONE
        else:
            is_text = name.suffix in _TEXT_SUFFIXES or name.name in _TEXT_NAMES
            group = _Group.TEXT if is_text else _Group.BINARY
        groups[group].append(file)
    return groups


def _refused(snapshot: Snapshot) -> Iterator[FileFinding]:
    """Files that were left out of the snapshot because of their names."""
    for file in snapshot.refused:
        # Names are given escaped here. A folder written the way of Windows is a careless upload.
        unix = file.path.replace("\\\\", "/")
        careless = unix != file.path and "\\" not in unix and not hostile_reason(unix) and unix[1:2] != ":"
        kept = "unportable-name" if careless else "hostile-name"
        identifier = "colliding-names" if file.collides else kept
        yield FileFinding(identifier, file.path, f"{file.reason}; the file was not looked at")


def _is_named_pickle(file: RepoFile) -> bool:
    return PurePosixPath(file.path.lower()).suffix in _PICKLE_SUFFIXES


def _urgency(file: RepoFile) -> tuple[bool, int, str]:
    """Pickles first, those nearest to the root before all: a trainer leaves hundreds in sub-folders."""
    return not _is_named_pickle(file), file.path.count("/"), file.path


def _inspect_text(file: RepoFile, source: _Source, opcodes: Opcodes) -> Iterator[FileFinding]:
    """A file that is text or an image by its name: is it?"""
    try:
        kind = sniff(source.read(0, min(PROBE_BYTES, file.size)))
    except ReadLimitError:
        return
    if kind is not Content.OTHER:
        yield FileFinding("disguised-file", file.path, f"the first bytes are those of {kind}")
        yield from _inspect_binary(file, source, opcodes)


def _inspect_binary(file: RepoFile, source: _Source, opcodes: Opcodes) -> Iterator[FileFinding]:
    try:
        head = source.read(0, min(PROBE_BYTES, file.size))
        kind = sniff(head)
        expected = _EXPECTED.get(PurePosixPath(file.path.lower()).suffix)
        if expected and kind not in {Content.OTHER, expected}:
            yield FileFinding(
                "disguised-file", file.path, f"the first bytes are those of {kind}, not {expected}"
            )
        yield from _inspect_content(file, kind, source, opcodes)
        if _is_named_pickle(file) and kind not in _NO_PICKLES:
            # A loader that is told to unpickle does not look at the first bytes.
            yield from _pickled(file, inspect_pickle(source, opcodes))
    except ReadLimitError:
        note = f"not inspected: more than {MAX_BYTES} bytes to read in all"
        yield FileFinding("unread-pickle" if _is_named_pickle(file) else "packed-archive", file.path, note)


def _inspect_content(
    file: RepoFile, kind: Content, source: _Source, opcodes: Opcodes
) -> Iterator[FileFinding]:
    match kind:
        case Content.PROGRAM:
            yield FileFinding("executable-file", file.path, "a program by its first bytes")
        case Content.ZIP:
            yield from _inspect_zip(file, source, opcodes)
        case Content.TAR:
            yield from _inspect_tar(file, source, opcodes)
        case Content.COMPRESSED:
            suffix = PurePosixPath(file.path.lower()).suffix
            identifier = (
                "unread-pickle"
                if suffix in _DATA_SUFFIXES
                else "unsafe-pickle"
                if _is_named_pickle(file)
                else "packed-archive"
            )
            yield FileFinding(identifier, file.path, "compressed, not looked into")
        case Content.NUMPY:
            length = min(file.size, MAX_PICKLE_BYTES)
            yield from _pickled(file, inspect_array(source.read(0, length), complete=length == file.size))
        case Content.HDF5:
            for problem in inspect_graph(source.read(0, min(file.size, MAX_GRAPH))):
                yield FileFinding(problem.id, file.path, problem.note)
        case Content.PICKLE if not _is_named_pickle(file):
            yield from _pickled(file, inspect_pickle(source, opcodes))


def _pickled(file: RepoFile, report: PickleReport) -> Iterator[FileFinding]:
    if report.kind is not PickleKind.NONE:
        note = report.note or "imports only constructors of tensors and plain data"
        yield FileFinding(report.finding, file.path, note)


def _inspect_zip(file: RepoFile, source: ByteSource, opcodes: Opcodes) -> Iterator[FileFinding]:
    def opened() -> BoundedReader:
        archive = SourceStream(_Source(source, _Budget(_MAX_ARCHIVE)))
        return BoundedReader(archive, buffer_size=1 << 16)

    if not _is_named_pickle(file):
        for problem in inspect_members(opened()):
            yield FileFinding(problem.id, file.path, problem.note)
        return
    report = inspect_zip(opened(), opcodes)
    if report.kind is PickleKind.NONE:
        # Archives can be built so that two readers see different members.
        report = PickleReport(PickleKind.UNSAFE, "a zip archive without torch's data.pkl")
    yield from _pickled(file, report)


def _inspect_tar(file: RepoFile, source: ByteSource, opcodes: Opcodes) -> Iterator[FileFinding]:
    members, problems = read_tar(_Chunked(source))
    for problem in problems:
        yield FileFinding(problem.id, file.path, problem.note)
    pickles = [member for member in members if member.is_pickle]
    for member in pickles[:_MAX_INNER]:
        inner = RepoFile(f"{file.path}/{member.name}", member.size, "", None)
        window = _Source(_Window(source, member.offset, member.size), _Budget(_MAX_ARCHIVE))
        for finding in _inspect_binary(inner, window, opcodes) if member.size else ():
            note = f"in the archive, {ascii(member.name[:80])[1:-1]}: {finding.note}"
            yield FileFinding(finding.id, file.path, note[:300])
    if len(pickles) > _MAX_INNER:
        note = f"{len(pickles) - _MAX_INNER} pickles in the archive were not looked into"
        yield FileFinding("unread-pickle", file.path, note)
    if _is_named_pickle(file):
        note = "a tar archive, torch's oldest container, whose pickles were not looked into"
        yield FileFinding("unsafe-pickle", file.path, note)


def _inspect_config(file: RepoFile, source: _Source, owned: CodeRequests | None) -> Iterator[FileFinding]:
    try:
        for identifier, note in inspect_config(source, owned):
            yield FileFinding(identifier, file.path, note)
    except ReadLimitError:
        note = "not inspected: more or larger configurations than any model has"
        yield FileFinding("malformed-config", file.path, note)


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


class _Chunked:
    """A `ByteSource` read in chunks, so that the bound on bytes is one on requests as well."""

    def __init__(self, source: ByteSource) -> None:
        self._source, self.size = source, source.size
        self._chunk, self._start = b"", 0

    def read(self, offset: int, length: int) -> bytes:
        if not self._start <= offset <= offset + length <= self._start + len(self._chunk):
            wanted = min(max(length, _CHUNK), max(self.size - offset, length))
            self._start, self._chunk = offset, self._source.read(offset, wanted)
        return self._chunk[offset - self._start : offset - self._start + length]


class _Window:
    """Part of a `ByteSource`."""

    def __init__(self, source: ByteSource, offset: int, size: int) -> None:
        self._source, self._offset, self.size = source, offset, size

    def read(self, offset: int, length: int) -> bytes:
        return self._source.read(self._offset + offset, length)
