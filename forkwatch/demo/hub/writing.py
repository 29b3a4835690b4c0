"""Writing to Spaces: what huggingface_hub's `create_repo` and `create_commit` ask for.

What is not covered: Xet and multipart uploads, pull requests, copies, other branches, models and datasets.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from forkwatch.demo.hub.ask import Ask, Site
from forkwatch.demo.hub.blobs import is_lfs
from forkwatch.demo.hub.repo import Commit, Repo, make_commit, object_id
from forkwatch.demo.hub.state import SPACES
from forkwatch.demo.hub.wire import BadRequestError, Reply, Request, error_reply, json_of, json_reply


def create_repo(request: Request, site: Site) -> Reply:
    """`POST /api/repos/create`, of a static Space.

    Raises:
        BadRequestError: of something else.
    """
    asked = json_of(request.body)
    if asked.get("type") != "space" or asked.get("sdk") != "static":
        raise BadRequestError("this hub creates static Spaces only")
    name = f"{asked.get('organization') or 'demo'}/{asked.get('name')}"
    url = f"{site.origin}/{SPACES}{name}"
    if site.state.find(f"{SPACES}{name}") is not None:
        return json_reply({"error": "You already created this repo", "url": url}, 409)
    at = datetime.fromtimestamp(site.now(), UTC)
    first = make_commit({}, "initial commit", at, ())
    site.state.create(
        Repo(
            name=f"{SPACES}{name}",
            object_id=object_id(name),
            created_at=at,
            history=(first,),
            private=asked.get("visibility") == "private",
        )
    )
    return json_reply({"url": url, "name": name})


def validate_yaml(_request: Request) -> Reply:
    """`POST /api/validate-yaml`: any card will do."""
    return json_reply({"errors": [], "warnings": []})


def preupload(ask: Ask) -> Reply:
    """How files are to be sent: inline, or by LFS.

    Raises:
        BadRequestError: no list of files.
    """
    files = json_of(ask.request.body).get("files")
    if not isinstance(files, list):
        raise BadRequestError('"files" is required')
    answers: list[dict[str, str | bool | None]] = []
    for file in files:
        blob = ask.commit.files.get(file["path"])
        oid = None if blob is None else blob.git_oid
        mode = "lfs" if is_lfs(file["path"], file["size"]) else "regular"
        answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return json_reply({"files": answers})


@dataclass
class _Wanted:
    summary: str = ""
    parent: str | None = None
    added: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, str] = field(default_factory=dict)
    """SHA-256 of files that were sent before."""
    deleted: set[str] = field(default_factory=set)


def commit(ask: Ask) -> Reply:
    """One commit on `main`, if its parent is the head.

    Raises:
        BadRequestError: the body is no commit.
    """
    wanted = _wanted(ask.request.body.splitlines())
    if missing := sorted(wanted.deleted - ask.repo.head.files.keys()):
        return error_reply(404, f"A file with this name doesn't exist: {missing[0]}", "EntryNotFound")
    blobs = ask.site.state.blobs(wanted.added)
    for path, oid in wanted.large.items():
        blob = ask.site.state.blob(oid)
        if blob is None:
            return error_reply(400, f"Your push was rejected: {path} was not uploaded")
        blobs[path] = blob
    refused: list[str] = []

    def build(repo: Repo, at: datetime) -> Commit:
        if wanted.parent is not None and wanted.parent != repo.head.id:
            refused.append(repo.head.id)
            return repo.head
        kept = {path: blob for path, blob in repo.head.files.items() if path not in wanted.deleted}
        return make_commit(kept | blobs, wanted.summary, at, (repo.head,))

    oid = ask.site.state.push(ask.repo.name, build, None, squash=False)
    if refused:
        return error_reply(412, "A commit has happened since. Please refresh and try again.")
    return json_reply(
        {"commitUrl": f"{ask.site.origin}/{ask.repo.name}/commit/{oid}", "commitOid": oid, "success": True}
    )


def _wanted(lines: Iterable[bytes]) -> _Wanted:
    wanted = _Wanted()
    try:
        for line in lines:
            item = json.loads(line)
            value = item["value"]
            match item["key"]:
                case "header":
                    wanted.summary, wanted.parent = value["summary"], value.get("parentCommit")
                case "file":
                    wanted.added[value["path"]] = base64.b64decode(value["content"], validate=True)
                case "lfsFile":
                    wanted.large[value["path"]] = value["oid"]
                case "deletedFile":
                    wanted.deleted.add(value["path"])
                case other:
                    raise BadRequestError(f"this hub does not take {other}")
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise BadRequestError("not a commit") from error
    return wanted
