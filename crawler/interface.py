"""What the crawler gives to the rest of forkwatch: candidates, snapshots and bytes, with what they cost.

Read this first. Everything here came from the Hub and is hostile text until somebody shows otherwise;
`Claim` holds what a repository *says*, `RepoFile` what the Hub *reports*, and neither is a proof.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NewType, Protocol

from crawler.hub_scan import NOT_TOLD, HubScan
from crawler.query import ListQuery
from crawler.refused import RefusedFile

if TYPE_CHECKING:
    from crawler.dataset import DatasetPath
    from crawler.xet import Term

RepoId = NewType("RepoId", str)
"""`namespace/name`, as `parse_repo_id` accepted it."""

Commit = NewType("Commit", str)
"""A full git commit id, 40 lower-case hex digits."""

_REPO_ID = re.compile(r"[A-Za-z0-9_.-]{1,96}/[A-Za-z0-9_.-]{1,96}", re.ASCII)


def parse_repo_id(text: str) -> RepoId:
    """Accept a Hub model id.

    Raises:
        InvalidRepoIdError: it is not `namespace/name` in the characters the Hub allows.
    """
    namespace, _, name = text.partition("/")
    if not _REPO_ID.fullmatch(text) or {namespace, name} & {".", ".."}:
        raise InvalidRepoIdError(f"{text} is not a model id")
    return RepoId(text)


class Relation(StrEnum):
    """How a repository says it derives from its base (the Hub's `base_model_relation`)."""

    FINETUNE = "finetune"
    ADAPTER = "adapter"
    MERGE = "merge"
    QUANTIZED = "quantized"


class Channel(StrEnum):
    """The public signal that led us to a candidate."""

    DECLARED = "declared"
    """`base_model` of the card, or of a PEFT configuration, names the release or a known fork of it."""
    TAG = "tag"
    """Tagged as having its refusals removed, and something else points at the release."""
    NAME = "name"
    STATEMENT = "statement"
    """A sentence of the card, or `reproduce/reproduce.json`, names the release."""
    NAMESPACE = "namespace"
    """Of an account that has published a fork before."""
    SHAPE = "shape"
    """Same architecture and parameter count, and no other origin declared."""
    DIRECT = "direct"
    """Named by the user (`forkwatch scan`)."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a repository says about its own origin. Never evidence of it."""

    base: RepoId | None
    """The repository it claims to derive from; None when only a name or a tag hints at one."""
    relation: Relation | None
    statement: str
    """The words or the metadata that make the claim, quoted, at most 300 characters."""
    faithful: bool = False
    """It claims to *be* the release, or an unmodified copy of it (official, mirror, exact copy…)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A repository that may be a fork, and every channel that found it."""

    repo: RepoId
    channels: tuple[Channel, ...]
    claims: tuple[Claim, ...]
    seen: RepoSummary | None = None
    """The row that it was recognised in; None for one named by the user."""


@dataclass(frozen=True, slots=True)
class RepoFile:
    """One file of a snapshot, as the Hub reports it."""

    path: str
    size: int
    """Bytes."""
    git_oid: str
    """Git blob id: SHA-1 of the content for a small file, of the pointer for an LFS file."""
    sha256: str | None
    """Of the content, known for LFS files only."""


class Access(StrEnum):
    """Whether the file contents of a repository can be read."""

    OPEN = "open"
    GATED = "gated"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One repository at one commit. Immutable: everything known about a fork is known about a snapshot."""

    repo: RepoId
    commit: Commit
    object_id: str = ""  # the Hub's `_id`
    files: tuple[RepoFile, ...]  # sorted by path
    tags: tuple[str, ...]
    claims: tuple[Claim, ...]
    license: str | None
    access: Access
    created_at: datetime | None
    last_modified: datetime | None
    downloads: int  # in the last 30 days, as the Hub counts
    likes: int
    refused: tuple[RefusedFile, ...] = ()
    hub_scan: HubScan = NOT_TOLD

    @property
    def total_bytes(self) -> int:
        """Sum of the sizes of all files."""
        return sum(file.size for file in self.files)

    def file(self, path: str) -> RepoFile | None:
        """The file at `path`, if there is one."""
        return next((file for file in self.files if file.path == path), None)


@dataclass(frozen=True, slots=True)
class Cost:
    """What was spent on the Hub."""

    requests: int = 0
    """All of them: `api`, `resolvers`, those to the CDN, and a few to other pages."""
    bytes_downloaded: int = 0
    api: int = 0
    """Requests that count against the Hub's limit for its API."""
    resolvers: int = 0
    """Requests that count against its limit for `/resolve/`."""
    cdn: int = 0
    """Requests to other hosts than the Hub: no limit counts them."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(*map(int.__add__, astuple(self), astuple(other)))

    def __sub__(self, other: Cost) -> Cost:
        return Cost(*map(int.__sub__, astuple(self), astuple(other)))


@dataclass(frozen=True, slots=True)
class Shape:
    """What the Hub tells of a model's weights without a read: enough to see that two cannot be the same."""

    architecture: str | None
    """`config.model_type`, or GGUF's `general.architecture`, lower case."""
    parameters: int | None
    """Of all tensors, from the safetensors or GGUF headers; quantised formats may count packed words."""
    quantized: bool = False
    """GGUF, or a `quantization_config`: `parameters` is then a hint only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoSummary:
    """A row of a model listing: a repository as the Hub showed it at one time, without its files."""

    repo: RepoId
    object_id: str = ""
    """The Hub's `_id`: survives a rename, and differs when a name is registered again."""
    commit: Commit | None = None
    """Head of `main`."""
    tags: tuple[str, ...] = ()
    access: Access = Access.OPEN
    created_at: datetime | None = None
    last_modified: datetime | None = None
    downloads: int = 0
    """In the last 30 days, as the Hub counts."""
    likes: int = 0
    shape: Shape | None = None
    adapter_base: str | None = None
    """`base_model_name_or_path` of a PEFT configuration: hostile text, often a local path."""


class ByteSource(Protocol):
    """Random access to one file of a snapshot, local or remote."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises:
            CrawlerError: they could not be had (network, truncation, a server that ignores Range).
        """
        ...


class RangeSource(ByteSource, Protocol):
    """A `ByteSource` that is told of many reads at once, so that it can join and overlap them."""

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Each `(offset, length)`, in order; near ranges are fetched as one, distant ones in parallel.

        Raises:
            CrawlerError: as `read`; nothing is returned unless every range could be had.
        """
        ...


class Progress(Protocol):
    """Told about bytes as they arrive; the null implementation is `ignore_progress`."""

    def __call__(self, path: str, done: int, total: int, /) -> None: ...


def ignore_progress(path: str, done: int, total: int) -> None:
    """A `Progress` for nobody."""


class Hub(Protocol):
    """The only door to the Hub. All reads of a repository are pinned to a commit."""

    @property
    def cost(self) -> Cost:
        """Spent by this object so far."""
        ...

    def list_models(self, query: ListQuery, *, since: datetime | None = None) -> Iterator[RepoSummary]:
        """Models that match, newest first by the query's order; ends at the first one older than `since`."""
        ...

    def summary(self, repo: RepoId) -> RepoSummary:
        """One repository as a listing would show it: one call, no files. Its id is the present one.

        Raises:
            RepoNotFoundError: it is gone, or private.
        """
        ...

    def snapshot(self, repo: RepoId, revision: str | None = None) -> Snapshot:
        """Pin a repository at a revision (default: the head of `main`)."""
        ...

    def peek(self, repo: RepoId, commit: Commit, path: str, limit: int = 1 << 20) -> str:
        """A small git file at a commit without its file list: one call, and of the resolvers' quota.

        For cards: what the headers say of commit and content is checked, and nothing more.

        Raises:
            FileMissingError: no such file.
            TooLargeError: more than `limit` bytes, or kept as LFS.
        """
        ...

    def read_text(self, snapshot: Snapshot, path: str, limit: int = 1 << 20) -> str:
        """A small text file, UTF-8 with replacement, refused above `limit` bytes."""
        ...

    def open(self, snapshot: Snapshot, path: str) -> RangeSource:
        """Ranged reads of one file, without downloading it."""
        ...

    def dataset_file(self, file: DatasetPath) -> tuple[Commit, RangeSource]:
        """Pin one large file of a dataset, without downloading it."""
        ...

    def tensor_headers(self, snapshot: Snapshot) -> Mapping[str, bytes]:
        """Safetensors header JSON by file: one call for a sharded model, else one read a file."""
        ...

    def xet_terms(self, snapshot: Snapshot, path: str) -> tuple[Term, ...] | None:
        """How the Hub's store puts a file together, see `xet`; None when it does not say."""
        ...

    def require_room(self) -> None:
        """See that the disk has room for downloads, if need be by forgetting those used longest ago.

        Raises:
            NoSpaceError: it has none.
        """
        ...

    def download(self, snapshot: Snapshot, path: str, progress: Progress = ignore_progress) -> Path:
        """The file in the local cache, its SHA-256 (or git blob id) checked while it streamed."""
        ...


class CrawlerError(Exception):
    """Root of what the crawler raises. `tip` says what the reader can do about it."""

    tip: str = ""


class InvalidRepoIdError(CrawlerError):
    """Not a model id."""

    tip = "A model id looks like 'namespace/name'."


class RepoNotFoundError(CrawlerError):
    """No such repository or revision, or it is private."""

    tip = "Check the spelling; a private repository needs HF_TOKEN."


class AccessDeniedError(CrawlerError):
    """Gated, disabled, or the token does not open it."""

    tip = "Accept the repository's conditions on the Hub and set HF_TOKEN to a read token of that account."


class BadTokenError(CrawlerError):
    """The Hub refuses the token itself."""

    tip = "Unset HF_TOKEN, or set it to a valid read token."


class HubUnavailableError(CrawlerError):
    """The Hub cannot be reached, stalls, or answers with server errors or rate limits after all retries."""

    tip = "Try again later; check HF_ENDPOINT and the network."


class CorruptDownloadError(CrawlerError):
    """The bytes are not the ones the Hub announced (length or hash)."""

    tip = "Try again; if it persists, the repository's file is damaged."


class FileMissingError(CrawlerError):
    """The snapshot has no such file."""

    tip = "Check the path against the repository's file list."


class TooLargeError(CrawlerError):
    """A file that should be small is not; it was not read."""

    tip = "The repository's file is unusual; look at it on the Hub."


class RefusedSnapshotError(CrawlerError):
    """The file list is hostile or broken: an unsafe path where only one was asked for, or countless paths."""

    tip = "Nothing of this repository was read further; look at its file list on the Hub."


class BadAnswerError(CrawlerError):
    """The Hub's answer breaks its own protocol: malformed JSON, a page link or redirect to another host."""

    tip = "Check HF_ENDPOINT: something between this machine and the Hub may alter its answers."


class RangeIgnoredError(HubUnavailableError):
    """The server answers a ranged read with the whole file, which was not read."""

    tip = "The server does not support ranged reads; download the file instead."


class BudgetExceededError(CrawlerError):
    """More bytes of one repository are asked for than it may cost; they were not requested."""

    def __init__(self, message: str, limit: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        """What it may cost."""

    tip = "Raise the budget of bytes per repository if this one is worth it."


class NoSpaceError(CrawlerError):
    """The cache would leave less free disk space than the configured floor, or outgrow its quota."""

    tip = "Free some disk space or move the state with FORKWATCH_STATE_DIR."
