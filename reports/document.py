"""`forkwatch.scan/1` as JSON: what `forkwatch scan --json` prints, the store keeps and the site publishes."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from reports.contract import adapter, dump, load, schema_of
from reports.scan import ScanDocument

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = "forkwatch.scan/1"


def to_json(document: ScanDocument) -> str:
    """Canonical JSON of a scan; see `reports.contract` for what canonical means.

    Raises:
        InvalidDocumentError: it holds a number that is not finite.
    """
    return dump(document)


def from_json(text: str) -> ScanDocument:
    """Read a scan strictly.

    Raises:
        InvalidDocumentError: the text is not a `forkwatch.scan/1` document.
    """
    return load(_reader(), text)


def json_schema() -> dict[str, object]:
    """JSON Schema 2020-12 of a scan, generated from `reports.scan`."""
    return schema_of(_reader(), SCHEMA)


@cache
def _reader() -> TypeAdapter[ScanDocument]:
    return adapter(ScanDocument)
