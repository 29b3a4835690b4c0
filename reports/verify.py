"""Check a built site before anybody else sees it: whole, linked, small, inert, and free of secrets.

Each check reads files as a stranger would: nothing is known of how they were made.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from html import unescape
from pathlib import Path
from urllib.parse import unquote

from reports.draft import list_files
from reports.interface import InvalidDocumentError
from reports.manifest import NAME, Manifest, read_manifest

PAGE_BYTES = 200_000
SCRIPT_BYTES = 8_000
"""Of `site.js`; the search index is data."""

POLICY = "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'"
"""How the Content-Security-Policy of every page begins."""

_LINK = re.compile(r"""\s(?:href|src)="([^"]*)\"""")
_ID = re.compile(r"""\sid="([^"]*)\"""")
_VALUE = re.compile(r"""="[^"]*\"""")
_INLINE = re.compile(
    r"""<[a-z]+\b[^<>]*?\s(?:style|on[a-z]+)\s*=|<style\b|<script(?![^>]*\ssrc=)""", re.IGNORECASE
)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):|//", re.IGNORECASE)
_ALLOWED = frozenset({"https", "mailto"})
_SECRETS = re.compile(
    rb"hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|AKIA[0-9A-Z]{16}"
    rb"|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY|\bsk-[A-Za-z0-9_-]{30,}|xox[bap]-[A-Za-z0-9-]{20,}"
)
_ANSWERS = re.compile(
    rb'"(?:answers?|completions?|generated_text|output_text|raw_output|response_text|transcripts?|messages'
    rb'|prompt_text)"\s*:'
)
"""Keys under which evaluation tools keep what a model said. None of our documents has one."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that must not be published."""

    path: str
    what: str


def verify(site: Path) -> tuple[Problem, ...]:
    """Everything that is wrong, by path; empty for a site that may be published."""
    manifest = read_manifest(site)
    if manifest is None:
        return (Problem(NAME, "there is no manifest, or it is broken"),)
    return tuple(sorted(_problems(site, manifest), key=lambda problem: (problem.path, problem.what)))


def _problems(site: Path, manifest: Manifest) -> Iterator[Problem]:
    present = set(list_files(site)) - {NAME}
    yield from (Problem(path, "is not in the manifest") for path in present - manifest.files.keys())
    yield from (Problem(path, "is missing") for path in manifest.files.keys() - present)
    targets: dict[str, frozenset[str]] = {}
    wanted: list[tuple[str, str, str]] = []
    for path in sorted(manifest.files.keys() & present):
        data = (site / path).read_bytes()
        if hashlib.sha256(data).hexdigest() != manifest.files[path].sha256:
            yield Problem(path, "has other bytes than were built")
        for check in _CHECKS:
            yield from (Problem(path, what) for what in check(path, data))
        if path.endswith(".html"):
            text = data.decode("utf-8", "replace")
            targets[path] = frozenset(unescape(name) for name in _ID.findall(text))
            wanted += [(path, *link) for link in set(_links(path, text))]
    for path, target, anchor in wanted:
        if target not in manifest.files:
            yield Problem(path, f"links to {target[:200]}, which is not there")
        elif anchor and anchor not in targets.get(target, frozenset()):
            yield Problem(path, f"links to #{anchor[:100]}, which is not in {target[:200]}")


def _links(path: str, text: str) -> Iterator[tuple[str, str]]:
    """Links within the site as path and anchor."""
    for raw in _LINK.findall(text):
        link = unescape(raw)
        if scheme := _SCHEME.match(link):
            if (scheme[1] or "").lower() not in _ALLOWED:
                yield link, ""
            continue
        place, _, anchor = link.partition("#")
        place = unquote(place.partition("?")[0])
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), place)) if place else path
        yield target, unquote(anchor)


def _budgets(path: str, data: bytes) -> Iterator[str]:
    most = PAGE_BYTES if path.endswith(".html") else SCRIPT_BYTES if path == "assets/site.js" else None
    if most is not None and len(data) > most:
        yield f"has {len(data):,} bytes; {most:,} are allowed"


def _policy(path: str, data: bytes) -> Iterator[str]:
    if not path.endswith(".html") or path.startswith("digest/"):
        return
    text = data.decode("utf-8", "replace")
    head = re.sub(r"\s+", " ", text[:600])
    if f'<meta charset="utf-8"> <meta http-equiv="Content-Security-Policy" content="{POLICY}' not in head:
        yield "does not begin with the content security policy"
    if found := _INLINE.search(_VALUE.sub('=""', text)):
        yield f"has an inline style or script: {found[0][:60]!r}"


def _schemas(path: str, data: bytes) -> Iterator[str]:
    if not path.endswith(".json") or path.startswith("api/v1/schema/"):
        return
    try:
        value = json.loads(data)
    except ValueError:
        yield "is not JSON"
        return
    name = value.get("schema") if isinstance(value, dict) else None
    read = _readers().get(name) if isinstance(name, str) else None
    if read is not None:
        try:
            read(data.decode("utf-8"))
        except InvalidDocumentError as error:
            yield f"is not a {name} document: {error}"


def _forbidden(path: str, data: bytes) -> Iterator[str]:
    if _SECRETS.search(data):
        yield "holds something that looks like a secret"
    document = path.endswith((".json", ".jsonl", ".zip")) and not path.startswith("api/v1/schema/")
    if document and (found := _ANSWERS.search(data)):
        yield f"has a key {found[0].decode()} as of a raw answer"


_CHECKS: tuple[Callable[[str, bytes], Iterator[str]], ...] = (_budgets, _policy, _schemas, _forbidden)


@cache
def _readers() -> dict[str, Callable[[str], object]]:
    from reports import document, tree_json, verdicts

    return {
        document.SCHEMA: document.from_json,
        verdicts.SCHEMA: verdicts.from_json,
        tree_json.SCHEMA: tree_json.from_json,
    }
