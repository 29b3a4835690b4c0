"""A bucket of an S3-compatible store, which a web server or a content network serves.

An object store has no rename, so that a site of many objects cannot be replaced at once. What holds instead:
each object is whole, old or new; pages that nothing links to yet go first, then assets and pages, then lists,
the first page last, then the manifest; what is gone is deleted after that. No link leads nowhere meanwhile.

    .forkwatch-site        the manifest of what is published
    .forkwatch-sending     paths that a publication under way may leave; the next one completes what died
    .forkwatch-lock        who publishes; made and replaced on condition (`If-None-Match`, `If-Match`)
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from forkwatch.errors import SettingsError
from forkwatch.jobs.owner import is_dead, machine
from forkwatch.publish.interface import (
    ChangedError,
    NotOursError,
    PublishError,
    PublishResult,
    content,
    difference,
)
from forkwatch.publish.objects import CONNECTIONS, Objects, opened
from reports.manifest import NAME, Manifest, Record, from_text, is_inside

SENDING = ".forkwatch-sending"
LOCK = ".forkwatch-lock"
LEASE = 600.0
"""Seconds after its last sign of life that a publication on another machine is taken for dead."""
RENEW = 60.0
"""Seconds between signs of life."""


@dataclass(frozen=True, slots=True)
class BucketPublisher:
    """Publishes to `bucket`, below `prefix`."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    """None: as AWS_ENDPOINT_URL says, else Amazon's."""

    def publish(self, build_dir: Path, manifest: Manifest) -> PublishResult:
        """See `Publisher`."""
        below = f"{self.prefix.strip('/')}/".removeprefix("/")
        place = f"s3://{self.bucket}/{below}"
        with opened(self.bucket, below, self.endpoint) as objects:
            there = _published(objects, place)
            died = objects.read(SENDING) or objects.read(LOCK)  # or is under way, which the lock tells
            changes = difference(there, manifest)
            if there is not None and died is None and not changes.sent and not changes.removed:
                return changes.result(place)
            with _lock(objects, place) as alive:
                return _replace(objects, build_dir, manifest, place, alive)


def parse_bucket(text: str) -> tuple[str, str]:
    """`s3://bucket/prefix`, or without `s3://`.

    Raises:
        SettingsError: it is none.
    """
    bucket, _, prefix = text.removeprefix("s3://").strip("/").partition("/")
    if not bucket or ":" in bucket or (prefix and not is_inside(prefix)):
        raise SettingsError(f"{text[:200]} is no bucket", tip="Say s3://bucket or s3://bucket/prefix.")
    return bucket, prefix


def _published(objects: Objects, place: str) -> Manifest | None:
    """The manifest there; None where there is nothing yet, or what a first publication left that died."""
    found = objects.read(NAME)
    if found is not None:
        return from_text(found.data.decode(errors="replace")) or Manifest({}, "")
    some = {path for path, _ in islice(objects.tags(), 3)}
    if some - {SENDING, LOCK} and objects.read(SENDING) is None:
        raise NotOursError(f"{place} was not published by forkwatch")
    return None


def _replace(
    objects: Objects, build_dir: Path, manifest: Manifest, place: str, alive: Callable[[], None]
) -> PublishResult:
    """Under the lock: what is there by now is read again."""
    manifest_there = objects.read(NAME)
    there = None if manifest_there is None else from_text(manifest_there.data.decode(errors="replace"))
    left = objects.read(SENDING)
    begun = frozenset() if left is None else _paths(left.data)
    changes = difference(there, manifest)
    gone = sorted(({*changes.removed} | begun) - manifest.files.keys())
    known = sorted({*(there.files if there else ()), *begun, *manifest.files})
    objects.put(SENDING, "".join(f"{path}\n" for path in known).encode())
    sent = dict(changes.sent)
    if left is not None:  # a publication died: what it sent is not sent again
        sent = dict(_missing(objects, build_dir, sent))
    for phase in _phases(changes.added, sent):
        _each(lambda path: objects.put(path, content(build_dir, path, sent[path])), phase, alive)
    condition = {"IfNoneMatch": "*"} if manifest_there is None else {"IfMatch": manifest_there.etag}
    if objects.put(NAME, manifest.to_text().encode(), **condition) is None:
        raise ChangedError(f"somebody else published to {place} meanwhile")
    _each(objects.delete, gone, alive)
    objects.delete(SENDING)
    size = sum(record.size for record in sent.values())
    return PublishResult(place, len(sent), size, len(gone), len(manifest.files) - len(sent))


def _phases(added: Mapping[str, Record], sent: Mapping[str, Record]) -> Iterator[list[str]]:
    """What goes before what: each of these is sent when all before it is there."""
    ranks = [_rank(path, new=path in added) for path in sent]
    for rank in sorted(set(ranks)):
        yield [path for path, its in zip(sent, ranks, strict=True) if its == rank]


def _rank(path: str, *, new: bool) -> int:
    if path == "index.html":
        return 4
    if path == "verdicts.json" or path.startswith(("releases/", "changes/", "digest/", "api/v1/index")):
        return 3
    if path.startswith("assets/"):
        return 1
    return 0 if new else 2


def _missing(objects: Objects, build_dir: Path, files: Mapping[str, Record]) -> Iterator[tuple[str, Record]]:
    """The files that the store does not have as they are here."""
    tags = dict(objects.tags())
    for path, record in files.items():
        data = content(build_dir, path, record) if path in tags else b""
        if tags.get(path) != hashlib.md5(data, usedforsecurity=False).hexdigest():
            yield path, record


def _each(work: Callable[[str], object], paths: Iterable[str], alive: Callable[[], None]) -> None:
    """Some at a time; the first error ends it."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for _ in pool.map(work, paths):
            alive()


def _paths(data: bytes) -> frozenset[str]:
    return frozenset(path for path in data.decode(errors="replace").splitlines() if is_inside(path))


@contextmanager
def _lock(objects: Objects, place: str) -> Iterator[Callable[[], None]]:
    """One publication at a time, where the store knows conditions; yields what says that we live."""
    tag, told = _taken(objects, place), time.monotonic()

    def alive() -> None:
        nonlocal tag, told
        if time.monotonic() - told < RENEW:
            return
        renewed = objects.put(LOCK, _owner(), IfMatch=tag)
        if renewed is None:
            raise ChangedError(f"somebody else took over the publication to {place}")
        tag, told = renewed, time.monotonic()

    try:
        yield alive
    except ChangedError:  # the lock is theirs
        raise
    except PublishError:
        objects.delete(LOCK)
        raise
    objects.delete(LOCK)


def _taken(objects: Objects, place: str) -> str:
    """The lock's tag."""
    tag = objects.put(LOCK, _owner(), IfNoneMatch="*")
    if tag is not None:
        return tag
    held = objects.read(LOCK)
    if held is not None and (held.age > LEASE or _is_over(held.data.decode(errors="replace"))):
        tag = objects.put(LOCK, _owner(), IfMatch=held.etag)
    if tag is None:
        tip = f"Run it again when that is done; one that died is taken over after {LEASE / 60:.0f} minutes."
        raise ChangedError(f"somebody else is publishing to {place}", tip=tip)
    return tag


def _owner() -> bytes:
    """This process. The bucket may be public: the machine's name stays here."""
    return f"{_here()}:{os.getpid()}".encode()


def _is_over(owner: str) -> bool:
    """Whether it was a process of this machine that is gone."""
    place, _, number = owner.partition(":")
    return place == _here() and is_dead(f"{machine()}:{number}")


def _here() -> str:
    return hashlib.sha256(machine().encode()).hexdigest()[:16]
