"""The JSON form of a `forkwatch.output-classifier/1` document, and its schema."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from reports.classifier import ClassifierDocument
from reports.contract import adapter, dump, load, schema_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = "forkwatch.output-classifier/1"


def to_json(document: ClassifierDocument) -> str:
    """Canonical JSON."""
    return dump(document)


def from_json(text: str) -> ClassifierDocument:
    """Read a document strictly.

    Raises:
        InvalidDocumentError: the text is not a `forkwatch.output-classifier/1` document.
    """
    return load(_reader(), text)


def json_schema() -> dict[str, object]:
    """JSON Schema 2020-12, generated from the types above."""
    return schema_of(_reader(), SCHEMA)


@cache
def _reader() -> TypeAdapter[ClassifierDocument]:
    return adapter(ClassifierDocument)
