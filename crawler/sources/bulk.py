"""A dump of the Hub's model table (Parquet, the schema of `hub-stats`) as rows, as a listing would give them.

A dump finds in minutes what listings find in hours, and knows repositories that are gone; it is old, has no
commits, and its schema has changed over the years. So it is a start, never the only source: nothing but the
id is required, columns that are missing are unknown, and nested values may be structs or JSON texts.

Needs pyarrow, an extra: it is imported when a dump is read.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crawler.interface import BadAnswerError, ByteSource, RepoSummary
from crawler.parse import repo_summary

if TYPE_CHECKING:
    import pyarrow as pa

_PLAIN = ("_id", "id", "sha", "tags", "createdAt", "lastModified", "downloads", "likes", "gated", "disabled")
_NESTED: Mapping[str, tuple[str, ...]] = {
    "config": ("model_type", "quantization_config", "peft"),
    "safetensors": ("total",),
    "gguf": ("architecture", "total"),
    "baseModels": ("relation", "models"),
}
"""Columns of structs, and the fields of them that are read: a chat template in each row is not."""
_BATCH = 1000
"""Rows decoded at a time."""
_MAX_JSON = 1 << 20
"""Characters of a nested value that is a text."""
_MAX_FOOTER = 256 << 20
"""Bytes of any text in the file's metadata, which is hostile too."""


def bulk_rows(source: Path | ByteSource, name: str) -> Iterator[RepoSummary]:
    """Every row with a valid id, in the file's order, a thousand in memory at a time.

    Args:
        source: a local file, or a file on the Hub of which only the columns needed are read.
        name: what errors call it.

    Raises:
        BadAnswerError: not a Parquet file, a damaged one, or one without ids.
        CrawlerError: its bytes could not be had.
    """
    import pyarrow as pa
    from pyarrow import parquet

    stream: str | io.RawIOBase = str(source) if isinstance(source, Path) else _Stream(source)
    try:
        with parquet.ParquetFile(
            stream, thrift_string_size_limit=_MAX_FOOTER, thrift_container_size_limit=10_000_000
        ) as file:
            columns = _columns(file.schema_arrow)
            if "id" not in columns:
                raise BadAnswerError(f"{name}: no column 'id'; it is no dump of the Hub's models")
            for batch in file.iter_batches(_BATCH, columns=columns, use_threads=False):
                yield from filter(None, map(repo_summary, map(_item, batch.to_pylist())))
    except (pa.ArrowException, OSError) as error:
        raise BadAnswerError(f"{name}: not a readable Parquet file: {ascii(str(error))[:200]}") from error


def _columns(schema: pa.Schema) -> list[str]:
    """Those that are there, structs by the fields that are needed; the card only when there are no tags."""
    import pyarrow as pa

    found = [name for name in _PLAIN if name in schema.names]
    if "tags" not in found and "cardData" in schema.names:
        found.append("cardData")
    for name, wanted in _NESTED.items():
        if name not in schema.names:
            continue
        kind = schema.field(name).type
        if pa.types.is_struct(kind):
            fields = {kind.field(index).name for index in range(kind.num_fields)}
            found += [f"{name}.{field}" for field in wanted if field in fields]
        else:
            found.append(name)
    return found


def _item(row: Mapping[str, Any]) -> dict[str, object]:
    """A row in the words of the Hub's API."""
    item = {key: value.isoformat() if isinstance(value, datetime) else value for key, value in row.items()}
    for name in (*_NESTED, "cardData"):
        value = item.get(name)
        value = _parsed(value) if isinstance(value, str) else value
        if isinstance(value, dict):  # a struct of nulls is how some eras write that there is none
            value = {key: field for key, field in value.items() if field is not None} or None
        item[name] = value
    tags = item.get("tags")
    if not isinstance(tags, list):
        tags = _card_tags(item.get("cardData"))
    item["tags"] = [*tags, *(tag for tag in _base_tags(item.get("baseModels")) if tag not in tags)]
    return item


def _parsed(text: str) -> object:
    try:
        return json.loads(text) if len(text) <= _MAX_JSON else None
    except (ValueError, RecursionError):
        return None


def _card_tags(card: object) -> list[object]:
    """As the Hub makes them of a card: its own, and what it declares."""
    if not isinstance(card, dict):
        return []
    own, declared = card.get("tags"), card.get("base_model")
    bases = declared if isinstance(declared, list) else [declared]
    tags = [f"base_model:{base}" for base in bases if isinstance(base, str)]
    return [*(own if isinstance(own, list) else ()), *tags]


def _base_tags(value: object) -> Iterator[str]:
    """As the Hub tags a declared base; `{"relation": …, "models": [{"id": …}]}`."""
    models = value.get("models") if isinstance(value, dict) else None
    relation = value.get("relation") if isinstance(value, dict) else None
    for model in models if isinstance(models, list) else []:
        base = model.get("id") if isinstance(model, dict) else None
        if isinstance(base, str):
            yield f"base_model:{base}"
            if isinstance(relation, str):
                yield f"base_model:{relation}:{base}"


class _Stream(io.RawIOBase):
    """A `ByteSource` as the file object that pyarrow reads from."""

    def __init__(self, source: ByteSource) -> None:
        super().__init__()
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self._source.size - self._position))
        if length:
            buffer[:length] = self._source.read(self._position, length)
        self._position += length
        return length
