"""Frozen dataclasses as JSON text, and back: what every document that leaves forkwatch goes through.

The text is canonical: keys in declaration order (`schema` first), two-space indent, ASCII only (so that bidi
and control characters are inert in a terminal), finite numbers, one newline at the end. Law: for a document
`d` without lone surrogates, `load(adapter(type(d)), dump(d)) == d`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn, TypeVar

from reports.interface import InvalidDocumentError
from reports.pretty import pretty
from reports.text import without_surrogates

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import TypeAdapter

T = TypeVar("T")

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def adapter(kind: type[T]) -> TypeAdapter[T]:
    """Pydantic's reader of a document type. Costs some 10 ms: callers keep it."""
    # Imported here: it costs 0.2 s, and most commands never read a document.
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def dump(document: DataclassInstance) -> str:
    """Canonical JSON of a document.

    Raises:
        InvalidDocumentError: it holds a number that is not finite.
    """
    try:
        return pretty(document) + "\n"
    except ValueError as error:
        raise InvalidDocumentError(f"{type(document).__name__}: a number is not finite") from error


def load(reader: TypeAdapter[T], text: str) -> T:
    """Read a document, strictly: right types, no coercion, finite numbers, every required field.

    Fields that this version does not know are ignored, since documents only ever gain fields.

    Raises:
        InvalidDocumentError: the text is not such a document.
    """
    from pydantic import ValidationError

    try:
        json.loads(text, parse_constant=_refuse, parse_float=_finite)
        return reader.validate_json(text, strict=True)
    except ValidationError as error:
        where = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in where["loc"]) or "document"
        raise InvalidDocumentError(f"{path}: {where['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidDocumentError(f"not JSON: {error}") from error


def schema_of(reader: TypeAdapter[T], name: str) -> dict[str, object]:
    """JSON Schema 2020-12 of a document type whose `schema` field is `name`, e.g. `forkwatch.scan/1`."""
    body = reader.json_schema()
    body["required"] = ["schema", *(key for key in body["required"] if key != "schema")]
    urn = "urn:" + name.replace("/", ":").replace(".", ":")
    return {"$schema": DIALECT, "$id": urn, **body, "title": name}


def plain_value(value: object) -> object:
    """Dataclasses to dicts, tuples to lists, text without lone surrogates (which UTF-8 cannot carry)."""
    match value:
        case str():
            return without_surrogates(value)
        case tuple() | list():
            return [plain_value(item) for item in value]
        case Mapping():
            return {without_surrogates(str(key)): plain_value(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        return {field.name: plain_value(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is out of range")
    return number
