"""What every destination has in common.

A publisher sends what differs from what is published there, which the manifest there tells. A reader meets
the old site or the new one, also when the process is killed; the next run then completes what was begun.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from forkwatch.errors import Exit, ForkwatchError
from reports.manifest import Manifest, Record


@dataclass(frozen=True, slots=True)
class PublishResult:
    """What was done."""

    place: str
    """Where the site is now."""
    sent: int
    """Files."""
    sent_bytes: int
    removed: int
    """Files."""
    kept: int
    """Files that were there already."""

    @property
    def changed(self) -> bool:
        """Whether readers see another site than before."""
        return bool(self.sent or self.removed)


class Publisher(Protocol):
    """One destination."""

    def publish(self, build_dir: Path, manifest: Manifest) -> PublishResult:
        """Make what is published the site in `build_dir`.

        Raises:
            PublishError: the destination refuses, or is not ours.
        """
        ...


class PublishError(ForkwatchError):
    """A site could not be published; what is published is what was."""

    code = Exit.HUB


class NotOursError(PublishError):
    """What is at the destination was not published by forkwatch."""

    code = Exit.USAGE
    tip = "Choose a place that is empty or holds a site published by forkwatch."


class ChangedError(PublishError):
    """Somebody else published meanwhile."""

    tip = "Run it again: it starts from what is published now."


@dataclass(frozen=True, slots=True)
class Difference:
    """What has to be sent."""

    added: Mapping[str, Record]
    """Paths that are not there yet."""
    changed: Mapping[str, Record]
    removed: tuple[str, ...]
    kept: int

    @property
    def sent(self) -> dict[str, Record]:
        """All that is new or other."""
        return {**self.added, **self.changed}

    def result(self, place: str) -> PublishResult:
        """As done."""
        size = sum(record.size for record in self.sent.values())
        return PublishResult(place, len(self.sent), size, len(self.removed), self.kept)


def difference(there: Manifest | None, here: Manifest) -> Difference:
    """What the new site has that the published one has not, by content."""
    old = {} if there is None else there.files
    added = {path: record for path, record in here.files.items() if path not in old}
    changed = {
        path: record
        for path, record in here.files.items()
        if path in old and old[path].sha256 != record.sha256
    }
    kept = len(here.files) - len(added) - len(changed)
    return Difference(added, changed, tuple(sorted(old.keys() - here.files.keys())), kept)


def content(build_dir: Path, path: str, record: Record) -> bytes:
    """A file of the site, as the manifest has it.

    Raises:
        PublishError: it is another one, or not there.
    """
    try:
        data = (build_dir / path).read_bytes()
    except OSError as error:
        raise PublishError(f"{path}: {error.strerror}", tip=REBUILD) from error
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise PublishError(f"{path} is not what was built", tip=REBUILD)
    return data


REBUILD = "Run `forkwatch report build --full`."
