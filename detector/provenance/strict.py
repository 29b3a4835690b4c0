"""JSON as signed documents are read: one meaning only, bounded, and of the shape that is expected.

Readers take the error class of their document, so that each fails with its own tip.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from detector.errors import DetectorError


@dataclass(frozen=True, slots=True)
class Strict:
    """Reads one kind of document; every method raises `error` with what is wrong."""

    what: str
    """E.g. `attestation`; begins every message."""
    error: type[DetectorError]

    def parse(self, text: bytes, most: int) -> dict[str, object]:
        """A JSON object of at most `most` bytes, without repeated keys and with finite numbers."""

        def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
            found = dict(pairs)
            if len(found) != len(pairs):
                self.refuse("a key is repeated")
            return found

        if len(text) > most:
            self.refuse(f"it is larger than {most} bytes")
        try:
            parsed: object = json.loads(
                text, object_pairs_hook=unique, parse_constant=self._constant, parse_float=self._finite
            )
        except (ValueError, RecursionError) as error:
            raise self.error(f"the {self.what} is not JSON ({type(error).__name__})") from error
        return self.mapping(parsed, "its top")

    def mapping(self, value: object, where: str) -> dict[str, object]:
        """A JSON object."""
        return value if isinstance(value, dict) else self.refuse(f"there is no object at {where}")

    def array(self, value: object, where: str, *, most: int | None = None) -> list[object]:
        """An array, of at most `most` elements if that is said."""
        if not isinstance(value, list):
            return self.refuse(f"there is no array at {where}")
        if most is not None and len(value) > most:
            return self.refuse(f"{where} has more than {most} elements")
        return value

    def text(self, value: object, where: str, *, most: int) -> str:
        """Text of 1 to `most` characters, without lone surrogates."""
        if not isinstance(value, str) or not value:
            return self.refuse(f"there is no text at {where}")
        if len(value) > most or any("\ud800" <= char <= "\udfff" for char in value):
            return self.refuse(f"{where} is longer than {most} characters or not Unicode")
        return value

    def number(self, value: object, where: str) -> float:
        """A number from 0 to 1."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            return self.refuse(f"{where} is not a number from 0 to 1")
        return float(value)

    def count(self, value: object, where: str) -> int:
        """A positive integer."""
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 53:
            return self.refuse(f"{where} is not a positive count")
        return value

    def expect(self, fields: Mapping[str, object], key: str, wanted: str) -> None:
        """A field with one allowed value."""
        if fields.get(key) != wanted:
            self.refuse(f"{key} is {ascii(fields.get(key))[:200]}, expected {wanted}")

    def base64(self, value: object, where: str) -> bytes:
        """Standard base64 with its padding, and nothing else."""
        if not isinstance(value, str):
            return self.refuse(f"there is no text at {where}")
        try:
            return base64.b64decode(value, validate=True)
        except ValueError as error:
            raise self.error(f"the {self.what} is malformed: {where} is not base64") from error

    def refuse(self, why: str) -> NoReturn:
        """Raise: the document is malformed."""
        raise self.error(f"the {self.what} is malformed: {why}")

    def _constant(self, constant: str) -> NoReturn:
        self.refuse(f"{constant} is not a number of JSON")

    def _finite(self, text: str) -> float:
        number = float(text)
        return number if math.isfinite(number) else self.refuse("a number is out of range")
