"""A folder on this machine, from which a web server serves `current`.

    root/releases/20261130T120000Z-0f343b093112/   one a publication, whole
    root/current -> releases/...                   replaced by one rename, which is atomic

Former publications stay for a rollback. Files that two of them share are one file on the disk.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from forkwatch.publish.interface import NotOursError, PublishError, PublishResult, content, difference
from reports.draft import link
from reports.manifest import NAME, Manifest, read_manifest
from reports.switch import sole_builder

_RELEASE = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{12}", re.ASCII)
_UNFINISHED = ".unfinished"
_POINTER = ".current-next"


@dataclass(frozen=True, slots=True)
class DirectoryPublisher:
    """Publishes to `root`."""

    root: Path
    now: Callable[[], datetime]
    keep: int = 5
    """Publications that stay, the present one included."""

    def publish(self, build_dir: Path, manifest: Manifest) -> PublishResult:
        """See `Publisher`."""
        with sole_builder(self.root / "releases"):
            self._refuse_foreign()
            current = self._current()
            there = None if current is None else read_manifest(current)
            changes = difference(there, manifest)
            if current is None or changes.sent or changes.removed:
                new = self._fill(build_dir, manifest, current, there)
                self._point_to(new)
            self._prune()
        return changes.result(str(self.root / "current"))

    def rollback(self) -> str:
        """Point to the publication before the present one; its name.

        Raises:
            PublishError: there is none.
        """
        if not (self.root / "releases").is_dir():  # the lock would make it
            raise self._nothing_earlier()
        with sole_builder(self.root / "releases"):
            current = self._current()
            names = [path.name for path in self._releases()]
            at = names.index(current.name) if current is not None and current.name in names else 0
            if at == 0:
                raise self._nothing_earlier()
            self._point_to(self.root / "releases" / names[at - 1])
            return names[at - 1]

    def _nothing_earlier(self) -> PublishError:
        tip = "Only what --keep left can come back; `report build` and `report publish` make a new one."
        return PublishError(f"{self.root} has no earlier publication", tip=tip)

    def _fill(
        self, build_dir: Path, manifest: Manifest, current: Path | None, there: Manifest | None
    ) -> Path:
        """A new publication, whole and on the disk before anybody sees it."""
        unfinished = self.root / "releases" / _UNFINISHED
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        had = {} if there is None else there.files
        made: set[Path] = set()
        for path, record in manifest.files.items():
            target = unfinished / path
            if target.parent not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            old = had.get(path)
            if current is not None and old is not None and old.sha256 == record.sha256:
                link(f"{current}/{path}", str(target))
            else:
                _write(target, content(build_dir, path, record))
        text = manifest.to_text().encode()
        _write(unfinished / NAME, text)
        for folder in (*made, unfinished):
            _sync(folder)
        name = f"{self.now():%Y%m%dT%H%M%SZ}-{hashlib.sha256(text).hexdigest()[:12]}"
        new = unfinished.with_name(name)
        if new.exists():  # published, rolled back and published again within a second
            shutil.rmtree(unfinished)
            return new
        unfinished.rename(new)
        _sync(new.parent)
        return new

    def _point_to(self, release: Path) -> None:
        pointer = self.root / _POINTER
        pointer.unlink(missing_ok=True)
        pointer.symlink_to(Path("releases") / release.name)
        pointer.replace(self.root / "current")
        _sync(self.root)

    def _current(self) -> Path | None:
        pointer = self.root / "current"
        if not pointer.is_symlink():
            return None
        target = self.root / pointer.readlink()
        return target if target.is_dir() else None

    def _releases(self) -> list[Path]:
        """Oldest first."""
        return sorted(path for path in (self.root / "releases").glob("*") if _RELEASE.fullmatch(path.name))

    def _prune(self) -> None:
        current = self._current()
        for old in self._stale():
            if current is None or old.name != current.name:
                shutil.rmtree(old)

    def _stale(self) -> Iterator[Path]:
        yield from self._releases()[: -self.keep]
        unfinished = self.root / "releases" / _UNFINISHED
        if unfinished.exists():
            yield unfinished

    def _refuse_foreign(self) -> None:
        pointer = self.root / "current"
        if pointer.exists() and not pointer.is_symlink():
            raise NotOursError(f"{pointer} is there and is no link of ours")
        current = self._current()
        if current is not None and not (current / NAME).is_file():
            raise NotOursError(f"{current} was not published by forkwatch")
        releases = self.root / "releases"
        releases.mkdir(parents=True, exist_ok=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
