"""Feeds that readers of feeds understand, and whose ids never change."""

from __future__ import annotations

import json
from dataclasses import replace
from urllib.parse import urljoin
from xml.etree import ElementTree as ET

import feedparser
import jsonschema
import pytest

from tests.reports.exports.built import BASE, built, exports, hostile_built, view

URL = {"type": "string", "format": "uri", "pattern": "^https?://"}
JSON_FEED = {
    "type": "object",
    "required": ["version", "title", "items"],
    "properties": {
        "version": {"const": "https://jsonfeed.org/version/1.1"},
        "title": {"type": "string", "minLength": 1},
        "home_page_url": URL,
        "feed_url": URL,
        "language": {"type": "string"},
        "authors": {
            "type": "array",
            "items": {"type": "object", "minProperties": 1, "properties": {"name": {"type": "string"}}},
        },
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id"],
                "anyOf": [{"required": ["content_text"]}, {"required": ["content_html"]}],
                "properties": {
                    "id": {"type": "string", "minLength": 1},
                    "url": URL,
                    "title": {"type": "string"},
                    "content_text": {"type": "string"},
                    "date_published": {"type": "string", "format": "date-time"},
                },
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}
"""JSON Feed 1.1, of what we write; the format has no schema of its own."""

BOTH = pytest.mark.parametrize("files", [built, hostile_built], ids=["sample", "hostile"])


def _of(files: dict[str, bytes], name: str) -> list[tuple[str, bytes]]:
    found = [(path, data) for path, data in files.items() if path.endswith(name)]
    assert len(found) == 2  # the site's and the release's
    return found


@BOTH
def test_a_feed_reader_reads_the_atom_feeds(files):
    """Without a complaint; each entry has its id, time, title and text, and ids are unique."""
    for path, data in _of(files(), "atom.xml"):
        parsed = feedparser.parse(data)
        assert not parsed.bozo, (path, parsed.get("bozo_exception"))
        assert parsed.version == "atom10"
        assert parsed.entries
        assert len({entry.id for entry in parsed.entries}) == len(parsed.entries)
        assert all(entry.id.startswith("urn:uuid:") for entry in parsed.entries)
        assert all(entry.title and entry.updated_parsed and entry.summary for entry in parsed.entries)
        assert parsed.feed.updated == parsed.entries[0].updated


@BOTH
def test_json_feeds_are_json_feeds(files):
    """By the rules of version 1.1."""
    check = jsonschema.Draft202012Validator(JSON_FEED, format_checker=jsonschema.FormatChecker())
    for _path, data in _of(files(), "feed.json"):
        check.validate(json.loads(data))


def test_newest_first_with_disputes_and_links_to_pages():
    """A withdrawal is news."""
    (_, data), _release = _of(built(), "feed.json")
    items = json.loads(data)["items"]
    assert items[0]["title"] == "rp/smollm2-roleplay: verdict withdrawn"
    assert items[1]["title"] == "abl/smollm2-directional: verdict disputed"
    times = [item["date_published"] for item in items]
    assert times == sorted(times, reverse=True)
    assert items[0]["url"] == f"{BASE}/forks/rp/smollm2-roleplay/index.html"


def test_without_an_address_links_are_relative_or_missing():
    """A feed on a disk still leads to its pages."""
    made = exports(replace(view(), base_url=None))
    for path, data in _of(made, "atom.xml"):
        root = ET.fromstring(data)
        links = [each.attrib["href"] for each in root.iter("{http://www.w3.org/2005/Atom}link")]
        pages = {urljoin(f"file:///site/{path}", link) for link in links}
        assert "file:///site/forks/rp/smollm2-roleplay/index.html" in pages
    assert all("url" not in item for item in json.loads(_of(made, "feed.json")[0][1])["items"])


def test_an_entry_keeps_its_id():
    """Whatever else happens to the site, and wherever it moves."""
    (release,) = view().releases
    calm = replace(view(), base_url="https://other.example", releases=(replace(release, disputes=()),))
    moved = exports(calm)
    before = {item["id"] for item in json.loads(built()["api/v1/feed.json"])["items"]}
    after = {item["id"] for item in json.loads(moved["api/v1/feed.json"])["items"]}
    assert after < before
    assert len(before - after) == 2  # the dispute and the withdrawal
