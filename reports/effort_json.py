"""The JSON form of a `forkwatch.effort/1` document, and its schema."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from reports.contract import adapter, dump, load, schema_of
from reports.effort import EffortDocument

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = "forkwatch.effort/1"


def to_json(document: EffortDocument) -> str:
    """Canonical JSON."""
    return dump(document)


def from_json(text: str) -> EffortDocument:
    """Read a document strictly.

    Raises:
        InvalidDocumentError: the text is not a `forkwatch.effort/1` document.
    """
    return load(_reader(), text)


def json_schema() -> dict[str, object]:
    """JSON Schema 2020-12, generated from the types above."""
    return schema_of(_reader(), SCHEMA)


@cache
def _reader() -> TypeAdapter[EffortDocument]:
    return adapter(EffortDocument)
