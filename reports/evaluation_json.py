"""`forkwatch.eval/1` as JSON."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from reports.contract import adapter, load, schema_of
from reports.evaluation import EvaluationDocument

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = "forkwatch.eval/1"


def from_json(text: str) -> EvaluationDocument:
    """Read an evaluation strictly.

    Raises:
        InvalidDocumentError: the text is not a `forkwatch.eval/1` document.
    """
    return load(_reader(), text)


def json_schema() -> dict[str, object]:
    """JSON Schema 2020-12 of an evaluation, generated from its types."""
    return schema_of(_reader(), SCHEMA)


@cache
def _reader() -> TypeAdapter[EvaluationDocument]:
    return adapter(EvaluationDocument)
