"""One file of a dataset on the Hub, e.g. a dump of its model table: `hf://datasets/org/name[@revision]/path`.

The head of its `/resolve/` tells commit, size and hash: one call, of the resolvers' quota. The API's would
name every file of the dataset, and none of their sizes. Reads are pinned to that commit, as a model's are.
"""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from crawler.interface import (
    Access,
    BadAnswerError,
    Commit,
    CrawlerError,
    InvalidRepoIdError,
    RepoFile,
    RepoId,
    Snapshot,
    parse_repo_id,
)
from crawler.paths import check_path

if TYPE_CHECKING:
    import httpx2

    from crawler.budget import ByteBudget
    from crawler.remote import RemoteFile
    from crawler.transport import Session

SCHEME = "hf://"
_ADDRESS = re.compile(
    r"hf://datasets/([^/@]+/[^/@]+)(?:@(refs/convert/[^/]+|refs/pr/\d+|[^/@]+))?/(.+)", re.ASCII | re.DOTALL
)
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SIZE = re.compile(r"[0-9]{1,15}", re.ASCII)
_PREFIX = "datasets/"


class InvalidDatasetPathError(InvalidRepoIdError):
    """Not the address of a file in a dataset."""

    tip = "It looks like 'hf://datasets/org/name/models.parquet', or '…/name@revision/…'."


@dataclass(frozen=True, slots=True)
class DatasetPath:
    """A file of a dataset, at a revision."""

    repo: RepoId
    revision: str
    path: str

    def __str__(self) -> str:
        return f"{SCHEME}{_PREFIX}{self.repo}@{quote(self.revision, safe='')}/{self.path}"


def parse_dataset_path(text: str) -> DatasetPath:
    """Accept an address as `HfFileSystem` writes it; a slash in a revision is quoted, but for `refs/…`.

    Law: `parse_dataset_path(str(path)) == path`.

    Raises:
        InvalidDatasetPathError: it is none.
    """
    found = _ADDRESS.fullmatch(text)
    try:
        if found is None:
            raise InvalidDatasetPathError("no hf://datasets/org/name/path")
        repo, revision, path = found[1], unquote(found[2] or "main"), found[3]
        check_path(path)
        if not revision.isprintable():
            raise InvalidDatasetPathError("not a revision")
        return DatasetPath(parse_repo_id(repo), revision, path)
    except CrawlerError as error:
        raise InvalidDatasetPathError(f"{text[:300]!a} is not a file of a dataset on the Hub") from error


def pin(session: Session, wanted: DatasetPath, budget: ByteBudget) -> tuple[Commit, RemoteFile]:
    """The commit that the revision is at now, and ranged reads of the file there. Reads no byte.

    Raises:
        BadAnswerError: the Hub does not tell commit, size and hash, as it does for large files.
        CrawlerError: see `errors_map`.
    """
    from crawler.remote import Location, RemoteFile

    about = ascii(str(wanted))[1:-1]
    revision = quote(wanted.revision, safe="")
    url = f"{session.endpoint}/{_PREFIX}{wanted.repo}/resolve/{revision}/{quote(wanted.path)}"

    def head() -> httpx2.Headers:
        with closing(session.open(url, about, method="HEAD")) as response:
            return response.headers

    headers = session.retry(head)
    commit = headers.get("X-Repo-Commit", "")
    size, sha256 = headers.get("X-Linked-Size", ""), headers.get("X-Linked-Etag", "").strip('"')
    if not (_COMMIT.fullmatch(commit) and _SIZE.fullmatch(size) and _SHA256.fullmatch(sha256)):
        raise BadAnswerError(f"{about}: the Hub does not tell its commit, size and hash")
    file = RepoFile(wanted.path, int(size), git_oid="", sha256=sha256)
    snapshot = _snapshot(wanted.repo, Commit(commit), file)
    return snapshot.commit, RemoteFile(Location(session, snapshot, file, budget, prefix=_PREFIX))


def _snapshot(repo: RepoId, commit: Commit, file: RepoFile) -> Snapshot:
    """The dataset with this one file; it has a byte budget of its own, whatever model has its name."""
    return Snapshot(
        repo=repo,
        commit=commit,
        object_id=f"{_PREFIX}{repo}",
        files=(file,),
        tags=(),
        claims=(),
        license=None,
        access=Access.OPEN,
        created_at=None,
        last_modified=None,
        downloads=0,
        likes=0,
    )
