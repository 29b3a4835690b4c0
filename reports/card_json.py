"""`forkwatch.release-card/1` as JSON."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from reports.card import ReleaseCardDocument
from reports.contract import adapter, load, schema_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = "forkwatch.release-card/1"


def from_json(text: str) -> ReleaseCardDocument:
    """Read a card strictly.

    Raises:
        InvalidDocumentError: the text is not a `forkwatch.release-card/1` document.
    """
    return load(_reader(), text)


def json_schema() -> dict[str, object]:
    """JSON Schema 2020-12 of a card, generated from its types."""
    return schema_of(_reader(), SCHEMA)


@cache
def _reader() -> TypeAdapter[ReleaseCardDocument]:
    return adapter(ReleaseCardDocument)
