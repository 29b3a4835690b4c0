"""What a site is made of: a plan of files, each with a key that says whether it has to be rendered again.

A builder that kept the keys of the last build renders only what has another key now. So a key must cover
everything the bytes depend on: the values the file is made from (`digest`), and the code, templates and
assets (`template_set`). A plan is cheap: no document is read and nothing is rendered before `Entry.render`.
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

_SOURCES = (".py", ".html", ".svg", ".css", ".js", ".json", ".xml")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the site."""

    path: str
    """Relative to the site's root."""
    key: str
    """Of all inputs, see `digest`. The same key means the same bytes."""
    render: Callable[[], str | bytes]
    """The content; text is written as UTF-8."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """Files about one fork, which are as they were while one key holds: the builder then asks no further."""

    name: str
    """Path of the first of them."""
    key: str
    """Covers the keys of all of them."""
    entries: Callable[[], Iterable[Entry]]
    """In a fixed order, `name` first."""


def digest(*inputs: object) -> str:
    """A digest of values by their `repr`: texts, numbers, tuples, lists, dicts, frozen dataclasses of these.

    Not for sets, whose order differs between two processes.
    """
    found = hashlib.sha256()
    for value in inputs:
        found.update(repr(_plain(value)).encode("utf-8", "surrogatepass"))
        found.update(b"\0")
    return found.hexdigest()


def digest_of(values: tuple[Any, ...]) -> str:
    """The same of texts, numbers, and tuples and lists of these: for what is asked of every fork.

    Version 2 of `marshal` writes equal values alike, takes lone surrogates, and refuses all other types.
    """
    return hashlib.sha256(marshal.dumps(values, 2)).hexdigest()


_ATOMS = frozenset({str, int, float, bool, type(None)})


def _plain(value: object) -> object:
    """Dataclasses as tuples of what their `repr` shows, whose own `repr` takes a third of the time."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return [(_plain(key), _plain(each)) for key, each in value.items()]
    names: tuple[str, ...] | None = _shown(cast("Any", kind))
    return value if names is None else (kind.__name__, *[_plain(getattr(value, name)) for name in names])


@cache
def _shown(kind: Any) -> tuple[str, ...] | None:
    """Fields of a dataclass that speaks of itself by its fields."""
    if not is_dataclass(kind) or "__repr__" not in vars(kind):
        return None
    return tuple(field.name for field in fields(kind) if field.repr)


def fixed(path: str, text: str) -> Entry:
    """A file whose text is known."""
    return Entry(path, digest("fixed", text), lambda: text)


@cache
def template_set() -> str:
    """A digest of this package's code, templates and assets, and of the template engine's version."""
    found = hashlib.sha256(f"jinja2 {version('jinja2')}\n".encode())
    root = Path(__file__).parent
    for path in sorted(root.rglob("*")):
        if path.suffix in _SOURCES and path.is_file():
            data = path.read_bytes()
            found.update(f"{path.relative_to(root).as_posix()} {len(data)}\n".encode())
            found.update(data)
    return found.hexdigest()
