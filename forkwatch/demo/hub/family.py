"""A model family on the disk, served as repositories of a loopback hub."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from forkwatch.demo.hub.server import LoopbackHub

SCHEMA = "forkwatch.demo-hub/1"


class FamilyLayoutError(Exception):
    """The folder is not a family: no `hub.json`, or one that does not fit what lies beside it."""


def serve_family(root: Path) -> LoopbackHub:
    """The repositories that `root/hub.json` lists; their files lie in `root/repos/<namespace>/<name>`.

    It is not started yet, and reads the files where they lie.

    Raises:
        FamilyLayoutError: see there.
        OSError: a file cannot be read.
    """
    try:
        listed = json.loads((root / "hub.json").read_bytes())
        if listed["schema"] != SCHEMA:
            raise FamilyLayoutError(f"hub.json has schema {listed['schema']!r}, expected {SCHEMA!r}")
        hub = LoopbackHub()
        for entry in listed["repos"]:
            name = entry["repo"]
            folder = root / "repos" / name
            if not folder.is_dir():
                raise FamilyLayoutError(f"hub.json lists {name}, but there is no such folder under repos/")
            created = entry.get("created_at")
            hub.create_repo(
                name,
                gated=entry.get("gated", False),
                disabled=entry.get("disabled", False),
                private=entry.get("private", False),
                downloads=entry.get("downloads", 0),
                likes=entry.get("likes", 0),
                created_at=None if created is None else datetime.fromisoformat(created),
            )
            hub.commit(name, _files(folder))
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise FamilyLayoutError(f"{root} is not a demo family: {error}") from error
    return hub


def _files(folder: Path) -> dict[str, bytes | Path]:
    """Every regular file below a folder."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
