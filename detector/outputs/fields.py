"""Values of one JSON line, read strictly: each of its type and within its bound, or the line is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NoReturn

from detector.outputs.interface import BadOutputsError

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


def parse_object(raw: bytes, keys: frozenset[str]) -> Mapping[str, object]:
    """The object on a line; its keys are among `keys`.

    Raises:
        BadOutputsError: it is none, repeats a key, or has another key.
    """
    try:
        value = json.loads(raw, parse_constant=_no_number, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadOutputsError(f"not JSON ({str(error)[:80]})") from error
    return member_object(value, keys, "the line")


def member_object(value: object, keys: frozenset[str], name: str) -> Mapping[str, object]:
    """An object with known keys only: a key that is spelt wrongly must not be ignored.

    Raises:
        BadOutputsError: it is none.
    """
    if not isinstance(value, dict):
        raise BadOutputsError(f"{name} is no object")
    if unknown := sorted(value.keys() - keys):
        raise BadOutputsError(f"{name} has an unknown key {unknown[0][:40]!a}")
    return value


def text(value: object, name: str, limit: int) -> str:
    """A string of any characters; hostile ones are data, but lone surrogates, which nothing can encode.

    Raises:
        BadOutputsError: it is none, or longer than `limit`.
    """
    if not isinstance(value, str) or len(value) > limit:
        raise BadOutputsError(f"{name} is not a string of at most {limit} characters")
    return value.encode("utf-8", "replace").decode()


def short_name(value: object, name: str, limit: int = 200) -> str:
    """A string of printable characters, not empty.

    Raises:
        BadOutputsError: it is none.
    """
    found = text(value, name, limit)
    if not found or not found.isprintable():
        raise BadOutputsError(f"{name} is empty or not printable")
    return found


def digest(value: object, name: str) -> str:
    """A SHA-256 in lower-case hex.

    Raises:
        BadOutputsError: it is none.
    """
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise BadOutputsError(f"{name} is no SHA-256 in hex")
    return value


def number(value: object, name: str, low: float, high: float) -> float:
    """A finite number within bounds.

    Raises:
        BadOutputsError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise BadOutputsError(f"{name} is not a number from {low:g} to {high:g}")
    return float(value)


def whole(value: object, name: str, low: int, high: int) -> int:
    """An integer within bounds.

    Raises:
        BadOutputsError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadOutputsError(f"{name} is not an integer from {low} to {high}")
    return value


def rows(value: object, name: str, limit: int) -> list[object]:
    """A list of at most `limit` entries.

    Raises:
        BadOutputsError: it is none.
    """
    if not isinstance(value, list) or len(value) > limit:
        raise BadOutputsError(f"{name} is not a list of at most {limit} entries")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is repeated")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
