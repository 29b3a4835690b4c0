"""A model family on the disk, as repositories of a loopback hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from crawler.interface import InvalidRepoIdError
from forkwatch.demo.hub.server import LoopbackHub

SCHEMA = "forkwatch.demo-hub/1"


class FamilyLayoutError(Exception):
    """The folder is not a family: no `hub.json`, or one that does not fit what lies beside it."""


def load_family(hub: LoopbackHub, root: Path) -> None:
    """Add the repositories that `root/hub.json` lists, with the files of `root/repos/<namespace>/<name>/`.

    The files are served from where they lie.

    Raises:
        FamilyLayoutError: see there.
        OSError: a file cannot be read.
    """
    try:
        listed = json.loads((root / "hub.json").read_bytes())
        if listed["schema"] != SCHEMA:
            raise FamilyLayoutError(f"hub.json has schema {listed['schema']!r}, expected {SCHEMA!r}")
        for entry in listed["repos"]:
            _add(hub, root, entry)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, InvalidRepoIdError) as error:
        raise FamilyLayoutError(f"{root} is not a demo family: {error!r}") from error


def _add(hub: LoopbackHub, root: Path, entry: Mapping[str, Any]) -> None:
    """One row of hub.json; its values are checked where they are used."""
    name, created = entry["repo"], entry.get("created_at")
    folder = root / "repos" / name
    if not folder.is_dir():
        raise FamilyLayoutError(f"hub.json lists {name}, but there is no such folder under repos/")
    hub.create_repo(
        name,
        gated=entry.get("gated", False),
        disabled=entry.get("disabled", False),
        private=entry.get("private", False),
        downloads=entry.get("downloads", 0),
        likes=entry.get("likes", 0),
        created_at=None if created is None else datetime.fromisoformat(created),
    )
    hub.commit(
        name, {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    )
