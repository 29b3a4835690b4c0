"""`/api/models/{id}` and below: properties, files, commits, refs and tensor headers of one repository."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import PurePosixPath
from urllib.parse import parse_qs

from forkwatch.demo.hub import tensors
from forkwatch.demo.hub.ask import Ask
from forkwatch.demo.hub.blobs import Blob
from forkwatch.demo.hub.listing import checked_expand
from forkwatch.demo.hub.paging import MAX_PAGE, sequence_page
from forkwatch.demo.hub.repo import Commit, Repo, object_id
from forkwatch.demo.hub.state import DATASETS, SPACES
from forkwatch.demo.hub.views import PROPERTIES, date_text, describe, sibling
from forkwatch.demo.hub.wire import BadRequestError, Json, Reply, Request, error_reply, json_reply
from forkwatch.demo.hub.xet import xet_hash

_EXPANDED_PAGE = 50
_MAX_PATHS = 2000
_INDEX_LIMIT = 25 << 20
"""Bytes."""
_EXPAND_ONLY = frozenset(
    {"baseModels", "childrenModelCount", "downloadsAllTime", "evalResults", "trendingScore"}
)


def info(ask: Ask) -> Reply:
    """Properties of a repository at a commit.

    Raises:
        BadRequestError: an unknown property.
    """
    if ask.repo.name.startswith((DATASETS, SPACES)):
        return _dataset_info(ask)
    expand = checked_expand(ask.request, PROPERTIES)
    names = expand or tuple(name for name in PROPERTIES if name not in _EXPAND_ONLY)
    shown = describe(ask.repo.at(ask.commit), ask.site.state, names)
    if not expand:
        shown["modelId"] = ask.repo.name
    if "siblings" in names and ask.request.flag("blobs"):
        shown["siblings"] = [sibling(path, blob) for path, blob in ask.commit.files.items()]
    if ask.request.flag("securityStatus"):
        issues: list[Json] = [{"path": path, "level": level} for path, level in ask.repo.flagged]
        shown["securityRepoStatus"] = {"scansDone": ask.repo.scanned, "filesWithIssues": issues}
    return json_reply(shown)


def _dataset_info(ask: Ask) -> Reply:
    names = (
        "createdAt",
        "disabled",
        "downloads",
        "gated",
        "lastModified",
        "likes",
        "private",
        "sha",
        "siblings",
    )
    shown = describe(ask.repo.at(ask.commit), ask.site.state, names)
    shown["id"] = ask.repo.name.removeprefix(DATASETS).removeprefix(SPACES)
    if ask.request.flag("blobs"):
        shown["siblings"] = [sibling(path, blob) for path, blob in ask.commit.files.items()]
    return json_reply(shown)


def tree(ask: Ask) -> Reply:
    """Files and directories below a path, or at the top.

    Raises:
        BadRequestError: a foreign cursor.
    """
    prefix = f"{ask.path}/" if ask.path else ""
    below = {path: blob for path, blob in ask.commit.files.items() if path.startswith(prefix)}
    if prefix and not below:
        return error_reply(404, f"{ask.path} does not exist on this revision", "EntryNotFound")
    expand, recursive = ask.request.flag("expand"), ask.request.flag("recursive")
    entries = [
        _entry(path, blob, ask, expand=expand)
        for path, blob in _with_directories(below)
        if path.startswith(prefix) and (recursive or "/" not in path[len(prefix) :])
    ]
    return sequence_page(ask, entries, _EXPANDED_PAGE if expand else MAX_PAGE)


def paths_info(ask: Ask) -> Reply:
    """The named files and directories; those that do not exist are left out, as on the live Hub.

    Raises:
        BadRequestError: the body is neither a form nor JSON with a list of paths, or names too many.
    """
    paths, expand = _paths_form(ask.request)
    if len(paths) > _MAX_PATHS:
        raise BadRequestError(f'"paths" must contain at most {_MAX_PATHS} items')
    present = dict(_with_directories(ask.commit.files))
    found = (path for path in dict.fromkeys(paths) if path in present)
    return json_reply([_entry(path, present[path], ask, expand=expand) for path in found])


def commits(ask: Ask) -> Reply:
    """The history of a commit, newest first.

    Raises:
        BadRequestError: a foreign cursor.
    """
    past = ask.repo.at(ask.commit).history
    return sequence_page(ask, [_commit_entry(ask.repo, commit) for commit in reversed(past)], MAX_PAGE)


def refs(ask: Ask) -> Reply:
    """Branches and tags: this hub has `main`, and nothing else."""
    branches: Json = [{"name": "main", "ref": "refs/heads/main", "targetCommit": ask.repo.head.id}]
    found: dict[str, Json] = {"branches": branches, "tags": [], "converts": []}
    return json_reply(found | {"pullRequests": []} if ask.request.flag("include_prs") else found)


def safetensors_metadata(ask: Ask) -> Reply:
    """The headers of all shards that an index names."""
    files = ask.commit.files
    if ask.path not in files:
        return error_reply(404, f"{ask.path} does not exist on this revision", "EntryNotFound")
    try:
        index = json.loads(files[ask.path].read(0, _INDEX_LIMIT))
        shards = sorted(set(index["weight_map"].values()))
        metadata = index.get("metadata", {})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return error_reply(422, f"{ask.path} is not a safetensors index")
    headers = {name: tensors.header(files[name]) if name in files else None for name in shards}
    if broken := [name for name, header in headers.items() if header is None]:
        return error_reply(422, f"Cannot read the safetensors header of {', '.join(broken)}")
    return json_reply({"index": {"metadata": metadata}, "headers": headers})


def _with_directories(files: Mapping[str, Blob]) -> Iterator[tuple[str, Blob | None]]:
    """Files and the directories that they imply (None), sorted by path."""
    directories = {str(parent) for path in files for parent in PurePosixPath(path).parents if parent.name}
    for path in sorted(directories | files.keys()):
        yield path, files.get(path)


def _entry(path: str, blob: Blob | None, ask: Ask, *, expand: bool) -> dict[str, Json]:
    if blob is None:
        oid = _directory_oid(path, ask.commit)
        entry: dict[str, Json] = {"type": "directory", "oid": oid, "size": 0, "path": path}
    else:
        entry = {"type": "file", "oid": blob.git_oid, "size": blob.size, "path": path}
        if blob.sha256 is not None:
            entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": blob.pointer_size}
            if ask.site.xet:
                ask.site.state.remember(blob)
                entry["xetHash"] = xet_hash(blob.sha256)
    if expand:
        last = _last_change(path, ask.repo.at(ask.commit).history)
        entry["lastCommit"] = {"id": last.id, "title": last.title, "date": date_text(last.date)}
        if blob is not None:
            status = dict(ask.repo.flagged).get(path, "safe" if ask.repo.scanned else "queued")
            entry["securityFileStatus"] = {"status": status, "avScan": None, "pickleImportScan": None}
    return entry


def _last_change(path: str, past: Sequence[Commit]) -> Commit:
    for before, after in reversed(list(pairwise(past))):
        if _content_id(path, before) != _content_id(path, after):
            return after
    return past[0]


def _content_id(path: str, commit: Commit) -> str:
    blob = commit.files.get(path)
    return _directory_oid(path, commit) if blob is None else blob.git_oid


def _directory_oid(path: str, commit: Commit) -> str:
    """40 hex digits that change with anything below; not the id that git would compute."""
    below = [(name, blob.git_oid) for name, blob in commit.files.items() if name.startswith(f"{path}/")]
    return (object_id(f"{path} {below}") * 2)[:40]


def _commit_entry(repo: Repo, commit: Commit) -> Json:
    return {
        "id": commit.id,
        "title": commit.title,
        "message": commit.message.partition("\n")[2].strip(),
        "authors": [{"user": repo.name.partition("/")[0]}],
        "date": date_text(commit.date),
    }


def _paths_form(request: Request) -> tuple[list[str], bool]:
    try:
        text = request.body.decode()
        if "json" not in request.headers.get("content-type", ""):
            form = parse_qs(text, keep_blank_values=True)
            return form.get("paths", []), form.get("expand", ["false"])[-1].lower() in {"true", "1"}
        parsed = json.loads(text)
        paths, expand = parsed["paths"], parsed.get("expand", False)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadRequestError('"paths" is required') from error
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise BadRequestError('"paths" must be a list of strings')
    return paths, expand is True
