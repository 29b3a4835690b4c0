"""The Hub's JSON into our types. What has the wrong type is refused where it matters, else dropped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeGuard

from crawler.hub_scan import HubScan, hub_scan
from crawler.interface import (
    Access,
    BadAnswerError,
    Commit,
    InvalidRepoIdError,
    RepoFile,
    RepoId,
    RepoSummary,
    Shape,
    parse_repo_id,
)
from crawler.paths import sift_paths
from crawler.refused import RefusedFile

_HEX40 = re.compile(r"[0-9a-f]{40}", re.ASCII)
_HEX64 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAX_TAGS = 1000
_MAX_TAG = 256
"""Characters."""
_MAX_WORD = 64
"""Characters of an object id or an architecture."""
_MAX_COUNT = (1 << 63) - 1
"""What a database column holds."""
_MAX_BASE = 300
"""Characters of an adapter's base, which is often a path on its author's disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoInfo:
    """One answer of `GET /api/models/{id}[/revision/{rev}]?blobs=true&securityStatus=true`."""

    repo: RepoId
    """The canonical id: the Hub redirects renamed repositories."""
    object_id: str
    commit: Commit
    files: tuple[RepoFile, ...]
    refused: tuple[RefusedFile, ...]
    tags: tuple[str, ...]
    card: Mapping[str, object]
    access: Access
    created_at: datetime | None
    last_modified: datetime | None
    downloads: int
    likes: int
    hub_scan: HubScan

    @property
    def license(self) -> str | None:
        """As the card states it, or as the Hub tags it; `other: NAME` where the card names one of its own."""
        stated = self.card.get("license")
        names = [stated] if isinstance(stated, str) else stated if isinstance(stated, list) else []
        names = [name for name in names if isinstance(name, str)] or [
            tag.removeprefix("license:") for tag in self.tags if tag.startswith("license:")
        ]
        own = self.card.get("license_name")
        if names == ["other"] and isinstance(own, str) and own.strip():
            names = [f"other: {own.strip()}"]
        return ", ".join(names)[:_MAX_TAG] or None


def repo_info(answer: object, asked: RepoId) -> RepoInfo:
    """Read a model's info.

    Raises:
        BadAnswerError: it is not what the Hub's API promises.
        RefusedSnapshotError: its file list is countless.
    """
    if not _is_object(answer):
        raise BadAnswerError(f"{asked}: the Hub's answer is not a JSON object")
    try:
        repo = parse_repo_id(_text(answer, "id"))
        commit = _hex(answer, "sha", _HEX40)
        files = _files(answer.get("siblings", []))
    except (BadAnswerError, InvalidRepoIdError) as error:
        raise BadAnswerError(f"{asked}: malformed model info: {ascii(str(error))[:200]}") from error
    kept, refused = sift_paths(file.path for file in files)
    card = answer.get("cardData")
    return RepoInfo(
        repo=repo,
        object_id=_word(answer.get("_id")) or "",
        commit=Commit(commit),
        files=tuple(file for path, file in sorted({f.path: f for f in files}.items()) if path in kept),
        refused=refused,
        tags=_tags(answer.get("tags")),
        card=card if _is_object(card) else {},
        access=_access(answer),
        created_at=_date(answer.get("createdAt")),
        last_modified=_date(answer.get("lastModified")),
        downloads=_count(answer.get("downloads")),
        likes=_count(answer.get("likes")),
        hub_scan=hub_scan(answer.get("securityRepoStatus")),
    )


def repo_summary(item: object) -> RepoSummary | None:
    """A row of a listing, of which only what we need is kept: the rest, a huge `config` say, can be freed.

    None for one without a `namespace/name` (a few old models have no namespace). What has the wrong type
    counts as not told.
    """
    if not _is_object(item):
        return None
    name = item.get("id")
    try:
        repo = parse_repo_id(name if isinstance(name, str) else "")
    except InvalidRepoIdError:
        return None
    config = _object(item.get("config"))
    commit = item.get("sha")
    return RepoSummary(
        repo=repo,
        object_id=_word(item.get("_id")) or "",
        commit=Commit(commit) if isinstance(commit, str) and _HEX40.fullmatch(commit) else None,
        tags=_tags(item.get("tags")),
        access=_access(item),
        created_at=_date(item.get("createdAt")),
        last_modified=_date(item.get("lastModified")),
        downloads=_count(item.get("downloads")),
        likes=_count(item.get("likes")),
        shape=_shape(config, _object(item.get("safetensors")), _object(item.get("gguf"))),
        adapter_base=_adapter_base(config),
    )


def _shape(
    config: Mapping[str, object], safetensors: Mapping[str, object], gguf: Mapping[str, object]
) -> Shape | None:
    architecture = _word(config.get("model_type")) or _word(gguf.get("architecture"))
    parameters = _count(safetensors.get("total")) or _count(gguf.get("total")) or None
    quantized = bool(gguf) or bool(config.get("quantization_config"))
    if architecture is None and parameters is None and not quantized:
        return None
    return Shape(architecture and architecture.lower(), parameters, quantized)


def _adapter_base(config: Mapping[str, object]) -> str | None:
    """`config.peft` on the live Hub."""
    for place in (_object(config.get("peft")), config):
        base = place.get("base_model_name_or_path")
        if isinstance(base, str) and base:
            return base[:_MAX_BASE]
    return None


def _object(value: object) -> Mapping[str, object]:
    return value if _is_object(value) else {}


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= _MAX_WORD else None


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
    return (
        min(value, _MAX_COUNT) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
    )


def _tags(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(tag for tag in value[:_MAX_TAGS] if isinstance(tag, str) and len(tag) <= _MAX_TAG)


def _date(value: object) -> datetime | None:
    """In UTC, which the Hub means where it does not say."""
    try:
        date = datetime.fromisoformat(value) if isinstance(value, str) else None
        return date and (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
