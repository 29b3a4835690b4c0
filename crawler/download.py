"""Whole files into the cache: streamed, hashed on the way, resumed after a break, never left half done."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from crawler.cache import ContentCache, Part
from crawler.errors_map import TransientError
from crawler.interface import CorruptDownloadError, Progress
from crawler.remote import Location, check_content_range


def fetch(location: Location, cache: ContentCache, progress: Progress) -> Path:
    """The file in the cache, its bytes those the Hub announced; downloaded only if they are not here yet.

    Raises:
        CorruptDownloadError: twice in a row the bytes are not the ones announced.
        NoSpaceError: the free-space floor.
        CrawlerError: see `errors_map`.
    """
    file = location.file
    if found := cache.find(file):
        progress(file.path, file.size, file.size)
        return found
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
    size = location.file.size
    if part.missing <= 0:
        return
    wanted = f"bytes={part.received}-{size - 1}" if part.received else ""
    with closing(location.open(wanted)) as response:
        if response.status_code == 206:
            check_content_range(response, location.about, part.received, part.missing, size)
        else:
            part.restart()
        for chunk in location.session.body(response, location.about):
            part.write(chunk)
            progress(location.file.path, part.received, size)
            if part.missing < 0:
                return
    if part.missing:
        raise TransientError(f"{location.about}: the answer ended after {part.received} of {size} bytes")
