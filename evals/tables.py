"""Rows of a file that the user names: CSV, JSON, JSON lines or Parquet, read strictly and bounded.

Public prompt sets and labelled answers come in all four. What does not fit is an error with its row: nothing
is skipped in silence, and a carriage return inside a cell starts no new row (pandas writes such cells without
quotes; read naively, one prompt becomes two rows of rubbish).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from evals.interface import EvalsError

Row = Mapping[str, object]

MAX_BYTES = 256 << 20
MAX_ROWS = 250_000
KEY = "(key)"
"""Column with the key of each list, where a JSON file is an object of lists."""

SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")

_RETURN = "\ue00d"
"""Stands for a carriage return that ends no line while a CSV is parsed; private use, never in real text."""

_LONE_RETURN = re.compile(r"\r(?!\n)")


class InputFileError(EvalsError):
    """A file that the user named cannot be read as what it should be."""

    tip = "Check the path and the format: CSV with a header, JSON, JSON lines or Parquet, in UTF-8."


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, by its suffix.

    Raises:
        InputFileError: it cannot be read, is too large, is damaged, or holds no row.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputFileError(f"{path}: {error.strerror}") from error
    try:
        return parse_rows(raw, path.suffix.lower())
    except InputFileError as error:
        raise InputFileError(f"{path}: {error}") from error


def parse_rows(raw: bytes, suffix: str) -> list[Row]:
    """The rows of a file's bytes; `suffix` is one of `SUFFIXES`.

    Raises:
        InputFileError: as `read_rows`.
    """
    if len(raw) > MAX_BYTES:
        raise InputFileError(f"larger than {MAX_BYTES >> 20} MiB")
    readers = {".csv": _csv, ".json": _json, ".jsonl": _jsonl, ".parquet": _parquet}
    if suffix not in readers:
        raise InputFileError(f"the name must end in {', '.join(SUFFIXES)}")
    rows = readers[suffix](raw)
    if not rows:
        raise InputFileError("it holds no row")
    if len(rows) > MAX_ROWS:
        raise InputFileError(f"it holds more than {MAX_ROWS:,} rows")
    return rows


def cell(row: Row, column: str, where: str, *, most: int = 200_000) -> str:
    """A cell with text.

    Raises:
        InputFileError: it is missing, empty, no text, or longer than `most` characters.
    """
    value = optional_cell(row, column, where, most=most)
    if not value.strip():
        raise InputFileError(f"{where}: {column!r} is empty")
    return value


def optional_cell(row: Row, column: str, where: str, *, most: int = 200_000) -> str:
    """A cell's text; empty where there is nothing. Numbers and truth values as JSON writes them.

    Raises:
        InputFileError: it is a list or an object, longer than `most` characters, or not Unicode.
    """
    value = row.get(column)
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if not isinstance(value, str):
        raise InputFileError(f"{where}: {column!r} is no text")
    if len(value) > most:
        raise InputFileError(f"{where}: {column!r} is longer than {most:,} characters")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise InputFileError(f"{where}: {column!r} is not Unicode")
    return value


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputFileError(f"not UTF-8 at byte {error.start}") from error


def _csv(raw: bytes) -> list[Row]:
    text = _text(raw)
    if "\n" not in text:
        text = text.replace("\r", "\n")
    if _RETURN in text:
        raise InputFileError("it holds a character of the private use area (U+E00D)")
    text = _LONE_RETURN.sub(_RETURN, text)
    # Not `splitlines`: that ends lines at form feeds and other separators too.
    reader = csv.reader((f"{line}\n" for line in text.removesuffix("\n").split("\n")), strict=True)
    rows: list[Row] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        if len(set(header)) != len(header):
            raise InputFileError("two columns share a name")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise InputFileError(
                    f"the row that ends in line {reader.line_num} has {len(cells)} cells, "
                    f"the header {len(header)}"
                )
            rows.append(dict(zip(header, (value.replace(_RETURN, "\r") for value in cells), strict=True)))
    except csv.Error as error:
        raise InputFileError(f"line {reader.line_num}: {error}") from error
    return rows


def _json(raw: bytes) -> list[Row]:
    document = _parsed(_text(raw), "it is not JSON")
    if isinstance(document, dict) and all(isinstance(value, list) for value in document.values()):
        document = [
            {KEY: key, **item} if isinstance(item, dict) else item
            for key, items in document.items()
            for item in items
        ]
    if not isinstance(document, list):
        raise InputFileError("it is neither a list of rows nor an object of such lists")
    return _objects(document, "row")


def _jsonl(raw: bytes) -> list[Row]:
    lines = io.StringIO(_text(raw), newline="\n")
    parsed = [
        _parsed(line, f"line {number}: not JSON") for number, line in enumerate(lines, 1) if line.strip()
    ]
    return _objects(parsed, "line")


def _parsed(text: str, complaint: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputFileError(complaint) from error


def _objects(items: Sequence[object], what: str) -> list[Row]:
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict):
            raise InputFileError(f"{what} {number} is no object")
    return [item for item in items if isinstance(item, dict)]


def _parquet(raw: bytes) -> list[Row]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise InputFileError("reading Parquet needs pyarrow: pip install 'forkwatch[bulk]'") from error
    try:
        file = parquet.ParquetFile(io.BytesIO(raw))
        if file.metadata.num_rows > MAX_ROWS:
            raise InputFileError(f"it holds more than {MAX_ROWS:,} rows")
        rows: list[Row] = file.read().to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputFileError("it is damaged, or not Parquet") from error
    return rows
