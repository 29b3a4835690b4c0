"""Whole files into the cache: streamed, hashed on the way, resumed after a break, never left half done."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from crawler.cache import ContentCache, Part
from crawler.errors_map import TransientError
from crawler.interface import CorruptDownloadError, NoSpaceError, Progress
from crawler.remote import Location, check_content_range


def fetch(location: Location, cache: ContentCache, progress: Progress) -> Path:
    """The file in the cache, its bytes those the Hub announced; downloaded only if they are not here yet.

    Raises:
        CorruptDownloadError: twice in a row the bytes are not the ones announced.
        NoSpaceError: the free-space floor, or the cache's quota.
        CrawlerError: see `errors_map`.
    """
    file = location.file
    if found := cache.find(file):
        progress(file.path, file.size, file.size)
        return found
    if found := _download(location, cache, progress):
        return found
    raise NoSpaceError(f"{location.about}: others needed its room in the cache at once")


def _download(location: Location, cache: ContentCache, progress: Progress) -> Path | None:
    """The file, pinned while it was still locked; None when it was evicted all the same."""
    file = location.file
    with cache.part(file) as part:
        if found := cache.find(file):  # another process finished it while we waited
            progress(file.path, file.size, file.size)
            return found
        cache.require_room(part.missing)
        for _ in range(2):  # a part left by an interrupted run, or one bad answer, may be to blame
            location.session.retry(lambda: _receive(location, part, progress))
            if part.complete():
                return part.commit()
            part.restart()
    raise CorruptDownloadError(f"{location.about}: the bytes are not the ones the Hub announced")


def _receive(location: Location, part: Part, progress: Progress) -> None:
    """Append what is missing; stops early when more than that arrives."""
    size, wanted = location.file.size, part.missing
    if wanted <= 0:
        return
    budget, snapshot = location.budget, location.snapshot
    budget.take(snapshot, wanted)
    came = 0
    try:
        with closing(location.open(f"bytes={part.received}-{size - 1}" if part.received else "")) as response:
            if response.status_code == 206:
                check_content_range(response, location.about, part.received, part.missing, size)
            else:
                budget.take(snapshot, part.received)  # they come once more
                wanted = size
                part.restart()
            for chunk in location.session.body(response, location.about):
                came += len(chunk)
                part.write(chunk)
                progress(location.file.path, part.received, size)
                if part.missing < 0:
                    return
    finally:
        budget.give_back(snapshot, wanted - came)
    if part.missing:
        raise TransientError(f"{location.about}: the answer ended after {part.received} of {size} bytes")
