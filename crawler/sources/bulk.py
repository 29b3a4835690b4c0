"""A dump of the Hub's model table (Parquet, the schema of `hub-stats`) as rows, as a listing would give them.

A dump finds in minutes what listings find in hours, and knows repositories that are gone; it is old, has no
commits, and its schema has changed over the years. So it is a start, never the only source: nothing but the
id is required, columns that are missing are unknown, and nested values may be structs or JSON texts.

A dump on the Hub is not downloaded: `fetch_columns` copies the few columns that are read, a tenth of it or
less, into a sparse local file, which is then read as often as it takes.

Needs pyarrow, an extra: it is imported when a dump is read.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crawler.cache import space_errors
from crawler.interface import BadAnswerError, Progress, RangeSource, RepoSummary, ignore_progress
from crawler.parse import repo_summary
from crawler.ranges import Span, plan
from crawler.room import Pins, make_room
from crawler.stream import SourceStream

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet as pq

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
_AT_ONCE = 32 << 20
"""Bytes of a dump on the Hub that are fetched at a time."""


def bulk_rows(path: Path, name: str) -> Iterator[RepoSummary]:
    """Every row with a valid id, in the file's order, a thousand in memory at a time.

    Args:
        path: a local file, or what `fetch_columns` made of one on the Hub.
        name: what errors call it.

    Raises:
        BadAnswerError: not a Parquet file, a damaged one, or one without ids.
    """
    with _opened(str(path), name) as (file, columns):
        for batch in file.iter_batches(_BATCH, columns=columns, use_threads=False):
            yield from filter(None, map(repo_summary, map(_item, batch.to_pylist())))


def fetch_columns(
    source: RangeSource, into: Path, name: str, *, floor: int = 0, progress: Progress = ignore_progress
) -> None:
    """Copy what `bulk_rows` reads of a dump, and nothing else, to where it stands in the dump.

    Every byte is asked for once, near ones in one request, a few of these at a time.

    Args:
        source: the dump.
        into: the copy, made or overwritten; the rest of it are holes, which need no space on the disk.
        name: what errors call it.
        floor: bytes of free disk space that are never used.
        progress: told how much of it came.

    Raises:
        BadAnswerError: not a Parquet file, or one without ids.
        NoSpaceError: the disk is too full.
        CrawlerError: its bytes could not be had.
    """
    with into.open("wb") as stream:
        copy = _Copy(source, stream.fileno(), into)
        copy.extend()
        with _opened(SourceStream(copy), name) as (file, columns):
            spans = plan(_chunks(file.metadata, columns), 1)
        wanted = sum(span.length for span in spans)
        make_room(into.parent, wanted, floor=floor, quota=None, pins=Pins())
        done = 0
        for group in _groups(spans):
            done += sum(map(len, copy.read_many(group)))
            progress(name, done, wanted)


@contextmanager
def _opened(stream: str | io.RawIOBase, name: str) -> Iterator[tuple[pq.ParquetFile, list[str]]]:
    """A dump, and the columns of it that are read."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    try:
        with pq.ParquetFile(
            stream, thrift_string_size_limit=_MAX_FOOTER, thrift_container_size_limit=10_000_000
        ) as file:
            columns = _columns(file.schema_arrow)
            if "id" not in columns:
                raise BadAnswerError(f"{name}: no column 'id'; it is no dump of the Hub's models")
            yield file, columns
    except (pa.ArrowException, OSError) as error:
        raise BadAnswerError(f"{name}: not a readable Parquet file: {ascii(str(error))[:200]}") from error


def _chunks(metadata: pq.FileMetaData, columns: Sequence[str]) -> Iterator[tuple[int, int]]:
    """(offset, length) of the columns' parts in every row group: hostile numbers, which the source checks."""
    if metadata.num_row_groups == 0:
        return
    first = metadata.row_group(0)
    paths = [first.column(index).path_in_schema for index in range(first.num_columns)]
    roots = tuple(f"{column}." for column in columns)
    wanted = [index for index, path in enumerate(paths) if f"{path}.".startswith(roots)]
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for index in wanted:
            chunk = group.column(index)
            # as Arrow reads them (ComputeColumnChunkRange): a dictionary stands before the data
            offset, dictionary = chunk.data_page_offset, chunk.dictionary_page_offset
            yield min(offset, dictionary or offset), chunk.total_compressed_size


def _groups(spans: Sequence[Span]) -> Iterator[list[tuple[int, int]]]:
    """The spans in pieces, by groups that fit into memory."""
    group: list[tuple[int, int]] = []
    room = _AT_ONCE
    for span in spans:
        offset = span.offset
        while offset < span.end:
            length = min(room, span.end - offset)
            group.append((offset, length))
            offset, room = offset + length, room - length
            if room == 0:
                yield group
                group, room = [], _AT_ONCE
    if group:
        yield group


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


class _Copy:
    """A `RangeSource` that keeps what is read of it, each byte at its place in a local file."""

    def __init__(self, source: RangeSource, descriptor: int, path: Path) -> None:
        self._source = source
        self._descriptor = descriptor
        self._path = path

    @property
    def size(self) -> int:
        """Bytes."""
        return self._source.size

    def extend(self) -> None:
        """Give the local file its size."""
        with space_errors(self._path.parent):
            os.truncate(self._descriptor, self.size)

    def read(self, offset: int, length: int) -> bytes:
        """As the source's."""
        data = self._source.read(offset, length)
        self._keep(offset, data)
        return data

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """As the source's."""
        pieces = self._source.read_many(ranges)
        for (offset, _), data in zip(ranges, pieces, strict=True):
            self._keep(offset, data)
        return pieces

    def _keep(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        with space_errors(self._path.parent):
            while view:
                written = os.pwrite(self._descriptor, view, offset)
                offset, view = offset + written, view[written:]
