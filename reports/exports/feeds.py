"""Atom 1.0 (RFC 4287) and JSON Feed 1.1: changes of verdicts, disputes and withdrawals, newest first.

Ids are name-based UUIDs, the same on every site. Links are absolute when the site's address is known, else
relative to the feed; a JSON Feed, whose links must be absolute, then has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nlargest
from operator import itemgetter
from xml.etree import ElementTree as ET

from reports.context import Fork, Release, Site
from reports.exports.names import stable_uuid, zulu
from reports.interface import DisputeView, VerdictChange
from reports.pretty import pretty
from reports.routes import relative, sorted_releases
from reports.scan import VerdictLabel
from reports.text import clean
from reports.words import VERDICTS

MOST = 200
"""Entries of a feed; what is older is in `changes/<week>.json`."""

_ATOM = "http://www.w3.org/2005/Atom"
_DISPUTE = {
    "open": "verdict disputed",
    "upheld": "dispute decided, the verdict stands",
    "corrected": "dispute decided, the verdict was corrected",
    "withdrawn": "verdict withdrawn",
    "dropped": "dispute dropped",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One entry."""

    id: str
    at: str
    """RFC 3339, UTC."""
    title: str
    text: str
    page: str
    """Relative to the site's root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What both formats are made from."""

    id: str
    title: str
    page: str
    path: str
    """Where the feed lies, relative to the site's root."""
    base: str | None
    """Address of the site, with a slash at the end."""
    updated: str
    items: tuple[Item, ...]

    def link(self, page: str) -> str:
        """To a page of the site."""
        return relative(self.path, page) if self.base is None else self.base + page


def newest(releases: Iterable[Release]) -> tuple[Event, ...]:
    """What feeds of some releases tell. Found before any is put into words: there may be very many."""
    told = (each for release in releases for each in _told(release))
    found = nlargest(MOST, told, key=itemgetter(0, 1))  # as sorted with reverse: equal ones stay in order
    return tuple(Event(at, fork, what) for at, _, fork, what in found)


def release_feed(release: Release, path: str, events: Sequence[Event]) -> Feed:
    """The feed of one release."""
    repo = release.view.repo
    page = release.site.routes.release(release.view)
    feed = _uuid("feed", repo, path)
    return _feed(release.site, feed, f"forks of {clean(repo, 200)}", page, path, events)


def site_feed(site: Site, path: str, events: Sequence[Event]) -> Feed:
    """The feed of all releases."""
    feed = _uuid("feed", *(view.repo for view in sorted_releases(site.view)), path)
    return _feed(site, feed, "forks of guarded releases", "index.html", path, events)


def to_atom(feed: Feed) -> bytes:
    """Atom 1.0, UTF-8."""
    ET.register_namespace("", _ATOM)
    root = ET.Element(f"{{{_ATOM}}}feed")
    _add(root, "id", feed.id)
    _add(root, "title", feed.title)
    _add(root, "updated", feed.updated)
    _add(_add(root, "author"), "name", "forkwatch")
    _add(root, "link", href=feed.link(feed.page), rel="alternate", type="text/html")
    if feed.base is not None:
        _add(root, "link", href=feed.base + feed.path, rel="self", type="application/atom+xml")
    for item in feed.items:
        entry = _add(root, "entry")
        _add(entry, "id", item.id)
        _add(entry, "title", item.title)
        _add(entry, "updated", item.at)
        _add(entry, "link", href=feed.link(item.page), rel="alternate", type="text/html")
        _add(entry, "content", item.text, type="text")
    text = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()


def to_json_feed(feed: Feed) -> bytes:
    """JSON Feed 1.1, in ASCII."""
    document: dict[str, object] = {
        "version": "https://jsonfeed.org/version/1.1",
        "title": feed.title,
        "authors": [{"name": "forkwatch"}],
        "language": "en",
    }
    if feed.base is not None:
        document["home_page_url"] = feed.link(feed.page)
        document["feed_url"] = feed.base + feed.path
    document["items"] = [_json_item(feed, item) for item in feed.items]
    return (pretty(document) + "\n").encode("ascii")


def _feed(  # noqa: PLR0913 - what a feed is made of
    site: Site, id_: str, title: str, page: str, path: str, events: Sequence[Event]
) -> Feed:
    base = site.view.base_url
    return Feed(
        id=id_,
        title=f"forkwatch: {title}",
        page=page,
        path=path,
        base=None if base is None else base.rstrip("/") + "/",
        updated=events[0].at if events else zulu(site.view.generated_at),
        items=tuple(_item(event) for event in events),
    )


@dataclass(frozen=True)
class Event:
    """Something that a feed tells."""

    at: str
    """RFC 3339, UTC."""
    fork: Fork
    what: VerdictChange | DisputeView

    @property
    def id(self) -> str:
        """Made of what happened, so that it never changes."""
        fork, what = self.fork, self.what
        identity = "" if fork.former is None else fork.former.identity
        about = (fork.release.view.repo, fork.row.repo, identity)
        if isinstance(what, DisputeView):
            return _uuid("dispute", *about, what.id, what.status)
        return _uuid("change", *about, what.at, what.after)


def _told(release: Release) -> Iterator[tuple[str, str, Fork, VerdictChange | DisputeView]]:
    for fork in (*release.forks, *release.formers):
        for change in fork.changes:
            yield zulu(change.at), fork.path, fork, change
        for dispute in fork.disputes:
            yield zulu(dispute.decided_at or dispute.opened_at), fork.path, fork, dispute


def _item(event: Event) -> Item:
    repo, what = clean(event.fork.row.repo, 200), event.what
    if isinstance(what, DisputeView):
        title, text = _DISPUTE[what.status], clean(what.decision or what.statement, 600)
    else:
        word = VERDICTS[what.after]
        title = word.title.lower()
        text = f"{_was(what.before)}{word.meaning} Commit {clean(what.commit, 64)}."
    return Item(id=event.id, at=event.at, title=f"{repo}: {title}", text=text, page=event.fork.path)


def _was(before: VerdictLabel | None) -> str:
    return "New. " if before is None else f"Was {VERDICTS[before].title.lower()}. "


def _uuid(*parts: str) -> str:
    return f"urn:uuid:{stable_uuid(*parts)}"


def _json_item(feed: Feed, item: Item) -> dict[str, str]:
    found = {"id": item.id, "title": item.title, "content_text": item.text, "date_published": item.at}
    return found if feed.base is None else {**found, "url": feed.link(item.page)}


def _add(parent: ET.Element, name: str, text: str | None = None, **attributes: str) -> ET.Element:
    child = ET.SubElement(parent, f"{{{_ATOM}}}{name}", attributes)
    child.text = text
    return child
