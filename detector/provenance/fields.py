"""Reading JSON that somebody else wrote: no repeated keys, and every field of the type that is expected."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from detector.errors import InvalidBundleError


def strict_json(text: bytes, where: str) -> object:
    """JSON without repeated keys, so that no two parsers can read it differently.

    Raises:
        InvalidBundleError: as everything here.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise InvalidBundleError(f"the {where} repeats a key")
        return found

    try:
        parsed: object = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise InvalidBundleError(f"the {where} is not JSON ({type(error).__name__})") from error
    return parsed


def as_object(value: object, where: str) -> dict[str, object]:
    """`value`, which must be a JSON object."""
    if not isinstance(value, dict):
        raise InvalidBundleError(f"the bundle has no object at {where}")
    return value


def as_array(value: object, where: str) -> list[object]:
    """`value`, which must be a JSON array."""
    if not isinstance(value, list):
        raise InvalidBundleError(f"the bundle has no array at {where}")
    return value


def as_bytes(value: object, where: str) -> bytes:
    """The bytes that `value` encodes in base64."""
    if not isinstance(value, str):
        raise InvalidBundleError(f"the bundle has no text at {where}")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise InvalidBundleError(f"{where} is not base64") from error


def expect(fields: Mapping[str, object], key: str, wanted: str) -> None:
    """`fields[key]` must be exactly `wanted`."""
    if fields.get(key) != wanted:
        raise InvalidBundleError(f"{key} is {ascii(fields.get(key))[:200]}, expected {wanted}")
