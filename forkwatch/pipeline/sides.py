"""What `forkwatch diff` is pointed at: a folder, a file, a repository, or one file of a repository."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from crawler.interface import (
    ByteSource,
    FileMissingError,
    Hub,
    InvalidRepoIdError,
    RepoId,
    Snapshot,
    parse_repo_id,
)
from crawler.local import LocalFile
from detector.errors import NoWeightsError
from detector.interface import WeightReader
from detector.match import content_id
from forkwatch.errors import SettingsError
from forkwatch.pipeline.small import open_for_sketch

if TYPE_CHECKING:
    from detector.formats.peft import PeftReader

WEIGHTS = (".safetensors", ".gguf")
BESIDE = (
    "adapter_config.json",
    "config.json",
    "model.safetensors.index.json",
    "quantize_config.json",
    "quant_config.json",
)
"""What says how weights are read: the index of the shards, an adapter's scale, a quantisation's layout."""
_FORMS = "a folder, a .safetensors or .gguf file, ORG/NAME[@REVISION], or ORG/NAME[@REVISION]:path/in/repo"
_POINTER = b"version https://git-lfs"

FileProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class LocalSide:
    """Something on this machine."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class RepoSide:
    """A repository on the Hub, or one of its files."""

    name: str
    repo: RepoId
    revision: str | None
    path: str | None


Side = LocalSide | RepoSide


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The files of a side, unread as yet."""

    name: str
    commit: str | None
    """Of a repository."""
    files: Mapping[str, ByteSource]
    identity: tuple[str, ...]
    """Changes whenever a byte of the files may have: what a journal of this side is filed under."""
    size: int
    """Bytes of its weight files."""
    contents: Mapping[str, str] = field(default_factory=dict)
    """File → what it holds, where that is known without reading it: `sha256:<hex>` or `git:<oid>` as the Hub
    reports them, `inode:<device>:<number>` of a local file."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint whose headers were read."""

    checkpoint: Checkpoint
    reader: WeightReader
    adapter: PeftReader | None
    """Lies beside full weights, and is applied on top of them when they are loaded."""
    contents: tuple[str, ...] = ()
    """What each file of the opened weights holds, where that is known; see `Checkpoint.contents`."""


def parse_side(name: str) -> Side:
    """Which of the four it is. What exists on the disk wins; nothing is read, and nobody asked.

    Raises:
        SettingsError: it is none of them.
    """
    try:
        path = Path(name).expanduser()
        if name and path.exists():
            return LocalSide(name, path)
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, no permission, no such user
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError(f"cannot look at {name:.200}: {reason}", tip=f"Give {_FORMS}.") from error
    if not name or name.startswith((".", "/", "~")) or (path.suffix.lower() in WEIGHTS and ":" not in name):
        raise SettingsError(f"no such file or folder: {name or '(empty)'}", tip=f"Give {_FORMS}.")
    place, colon, inside = name.partition(":")
    repo, at, revision = place.partition("@")
    try:
        parsed = parse_repo_id(repo)
    except InvalidRepoIdError as error:
        raise SettingsError(
            f"{name} is neither on this disk nor a repository's name", tip=f"Give {_FORMS}."
        ) from error
    if (at and not revision) or (colon and not inside):
        raise SettingsError(
            f"{name} names no {'revision' if at and not revision else 'file'}", tip=f"Give {_FORMS}."
        )
    return RepoSide(name, parsed, revision or None, inside or None)


def open_local(side: LocalSide) -> Checkpoint:
    """The weight files of a folder, or the one file and what describes it.

    Raises:
        NoWeightsError: there are none, or they are pointers to files that were not fetched.
        SettingsError: they cannot be read, or are no files.
    """
    try:
        paths = _listed(side.path)
        sources = {path.name: LocalFile(path) for path in paths}
        stats = [path.stat() for path in paths]
    except OSError as error:
        raise SettingsError(
            f"cannot read {error.filename or side.name}: {error.strerror}", tip="Check the path."
        ) from error
    weights = [name for name in sources if name.lower().endswith(WEIGHTS)]
    if not weights:
        raise NoWeightsError(f"{side.name} holds no .safetensors or .gguf file")
    for name in weights:
        head = sources[name].read(0, min(len(_POINTER), sources[name].size))
        if head == _POINTER:
            raise NoWeightsError(
                f"{side.name}: {name} is a Git LFS pointer, not the file itself (`git lfs pull`)"
            )
    identity = tuple(
        f"{path.absolute()}:{stat.st_size}:{stat.st_mtime_ns}"
        for path, stat in zip(paths, stats, strict=True)
    )
    size = sum(sources[name].size for name in weights)
    contents = {
        path.name: f"inode:{stat.st_dev}:{stat.st_ino}"
        for path, stat in zip(paths, stats, strict=True)
        if stat.st_ino  # 0 where the file system has no such numbers
    }
    return Checkpoint(side.name, None, sources, identity, size, contents)


def local_files(side: LocalSide) -> tuple[Path, ...]:
    """Paths of the weight files of a folder, or of the one file, and of what describes them.

    Raises:
        NoWeightsError: as `open_local`.
        SettingsError: as `open_local`.
    """
    return tuple(
        side.path.parent / name if side.path.is_file() else side.path / name
        for name in open_local(side).files
    )


def _listed(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.is_file():
            raise SettingsError(f"{path} is neither a file nor a folder", tip=f"Give {_FORMS}.")
        beside = [path.with_name(name) for name in BESIDE]
        # The index names shards that were not asked for.
        return [path, *(file for file in beside if file.is_file() and "index" not in file.name)]
    return sorted(
        file
        for file in path.iterdir()
        if (file.suffix.lower() in WEIGHTS or file.name in BESIDE) and file.is_file()
    )


def open_repo(side: RepoSide, hub: Hub, *, download: bool, progress: FileProgress) -> Checkpoint:
    """The weight files of a repository at one commit; bytes come when they are read.

    Args:
        side: the repository.
        hub: where it is.
        download: fetch and verify a file as a whole when its first byte is read; else read ranges of it.
        progress: told about downloads.

    Raises:
        FileMissingError: there is no such file in it.
        NoWeightsError: there are no weights in it.
        CrawlerError: see `Hub.snapshot`.
    """
    snapshot = hub.snapshot(side.repo, side.revision)
    wanted = _wanted(side, snapshot)
    sources: dict[str, ByteSource] = (
        {path: Fetched(hub, snapshot, path, progress) for path in wanted}
        if download
        else open_for_sketch(hub, snapshot, wanted)
    )
    identity = tuple(f"{snapshot.repo}@{snapshot.commit}:{path}" for path in wanted)
    size = sum(sources[path].size for path in wanted if path.lower().endswith(WEIGHTS))
    contents = {file.path: content_id(file) for file in snapshot.files if file.path in sources}
    return Checkpoint(side.name, snapshot.commit, sources, identity, size, contents)


def _wanted(side: RepoSide, snapshot: Snapshot) -> list[str]:
    paths = [file.path for file in snapshot.files]
    if side.path is not None:
        if side.path not in paths:
            raise FileMissingError(f"{snapshot.repo}@{snapshot.commit[:12]} has no file {side.path!a}")
        folder = PurePosixPath(side.path).parent
        beside = {str(folder / name) for name in BESIDE if "index" not in name}
        return [side.path, *(path for path in paths if path in beside)]
    wanted = [path for path in paths if path.lower().endswith(WEIGHTS) or PurePosixPath(path).name in BESIDE]
    if not any(path.lower().endswith(WEIGHTS) for path in wanted):
        raise NoWeightsError(f"{snapshot.repo} holds no .safetensors or .gguf file")
    return wanted


class Fetched:
    """A file of a repository that is downloaded and verified when its first byte is read.

    `open_weights` decides which of a repository's files make the checkpoint; no other is fetched.
    """

    def __init__(self, hub: Hub, snapshot: Snapshot, path: str, progress: FileProgress) -> None:
        """Ask nobody yet."""
        file = snapshot.file(path)
        if file is None:
            raise FileMissingError(f"{snapshot.repo} has no file {path!a}")
        self._hub, self._snapshot, self._path, self._progress = hub, snapshot, path, progress
        self._size = file.size
        self._local: LocalFile | None = None

    @property
    def size(self) -> int:
        """Bytes, as the Hub announces them; the download is refused if it has others."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises:
            CrawlerError: the file could not be had, or is too short.
        """
        return self._file().read(offset, length)

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Each `(offset, length)`, in order. Raises as `read`."""
        return self._file().read_many(ranges)

    def _file(self) -> LocalFile:
        if self._local is None:
            self._local = LocalFile(self._hub.download(self._snapshot, self._path, self._progress))
        return self._local
