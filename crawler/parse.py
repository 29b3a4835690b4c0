"""The Hub's JSON into our types. What has the wrong type is refused where it matters, else dropped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeGuard

from crawler.interface import (
    Access,
    BadAnswerError,
    Commit,
    InvalidRepoIdError,
    RepoFile,
    RepoId,
    RepoSummary,
    parse_repo_id,
)
from crawler.paths import check_paths

_HEX40 = re.compile(r"[0-9a-f]{40}", re.ASCII)
_HEX64 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAX_TAGS = 1000
_MAX_TAG = 256
"""Characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoInfo:
    """One answer of `GET /api/models/{id}[/revision/{rev}]?blobs=true`."""

    repo: RepoId
    """The canonical id: the Hub redirects renamed repositories."""
    commit: Commit
    files: tuple[RepoFile, ...]
    tags: tuple[str, ...]
    card: Mapping[str, object]
    access: Access
    created_at: datetime | None
    last_modified: datetime | None
    downloads: int
    likes: int

    @property
    def license(self) -> str | None:
        """As the card states it, or as the Hub tags it."""
        stated = self.card.get("license")
        names = [stated] if isinstance(stated, str) else stated if isinstance(stated, list) else []
        names = [name for name in names if isinstance(name, str)] or [
            tag.removeprefix("license:") for tag in self.tags if tag.startswith("license:")
        ]
        return ", ".join(names)[:_MAX_TAG] or None


def repo_info(answer: object, asked: RepoId) -> RepoInfo:
    """Read a model's info.

    Raises:
        BadAnswerError: it is not what the Hub's API promises.
        RefusedSnapshotError: its file list is hostile.
    """
    if not _is_object(answer):
        raise BadAnswerError(f"{asked}: the Hub's answer is not a JSON object")
    try:
        repo = parse_repo_id(_text(answer, "id"))
        commit = _hex(answer, "sha", _HEX40)
        files = _files(answer.get("siblings", []))
    except (BadAnswerError, InvalidRepoIdError) as error:
        raise BadAnswerError(f"{asked}: malformed model info: {ascii(str(error))[:200]}") from error
    check_paths(file.path for file in files)
    card = answer.get("cardData")
    return RepoInfo(
        repo=repo,
        commit=Commit(commit),
        files=tuple(sorted(files, key=lambda file: file.path)),
        tags=_tags(answer.get("tags")),
        card=card if _is_object(card) else {},
        access=_access(answer),
        created_at=_date(answer.get("createdAt")),
        last_modified=_date(answer.get("lastModified")),
        downloads=_count(answer.get("downloads")),
        likes=_count(answer.get("likes")),
    )


def repo_summary(item: object) -> RepoSummary | None:
    """A row of a listing; None for one without a `namespace/name` (a few old models have no namespace)."""
    if not _is_object(item):
        return None
    name = item.get("id")
    try:
        repo = parse_repo_id(name if isinstance(name, str) else "")
    except InvalidRepoIdError:
        return None
    return RepoSummary(repo, _tags(item.get("tags")), _date(item.get("createdAt")))


def _files(siblings: object) -> list[RepoFile]:
    if not isinstance(siblings, list):
        raise BadAnswerError("siblings is not a list")
    return [_file(entry) for entry in siblings]


def _file(entry: object) -> RepoFile:
    if not _is_object(entry):
        raise BadAnswerError("a sibling is not an object")
    path, oid = _text(entry, "rfilename"), _hex(entry, "blobId", _HEX40)
    lfs = entry.get("lfs")
    if not _is_object(lfs):
        return RepoFile(path, _size(entry), oid, None)
    return RepoFile(path, _size(lfs), oid, _hex(lfs, "sha256", _HEX64))


def _access(answer: Mapping[str, object]) -> Access:
    if answer.get("disabled"):
        return Access.DISABLED
    return Access.GATED if answer.get("gated") else Access.OPEN


def _is_object(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, dict)


def _text(entry: Mapping[str, object], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise BadAnswerError(f"{key} is not a text")
    return value


def _hex(entry: Mapping[str, object], key: str, form: re.Pattern[str]) -> str:
    value = _text(entry, key)
    if not form.fullmatch(value):
        raise BadAnswerError(f"{key} is not a hash")
    return value


def _size(entry: Mapping[str, object]) -> int:
    value = entry.get("size")
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadAnswerError("size is not a number of bytes")
    return value


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _tags(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(tag for tag in value[:_MAX_TAGS] if isinstance(tag, str) and len(tag) <= _MAX_TAG)


def _date(value: object) -> datetime | None:
    try:
        date = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return date.replace(tzinfo=UTC) if date and date.tzinfo is None else date
