"""The JSON form of a `forkwatch.tree/1` document, and its schema."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from reports.contract import adapter, dump, load, schema_of
from reports.pretty import pretty
from reports.tree import TreeDocument

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = "forkwatch.tree/1"


def to_json(document: TreeDocument) -> str:
    """Canonical JSON: what `dump` gives, in less time, since nodes and edges have much in common."""
    text = dump(replace(document, nodes=(), edges=()))
    nodes = [
        f'"repo": {pretty(node.repo)},{_LINE}"role": "{node.role}",{_LINE}"channels": {_part(node.channels)},'
        f'{_LINE}"verdict": {_part(node.verdict)},{_LINE}"gone_at": {pretty(node.gone_at)}'
        for node in document.nodes
    ]
    edges = [
        f'"child": {pretty(edge.child)},{_LINE}"base": {_part(edge.base)},{_LINE}"kind": "{edge.kind}",'
        f'{_LINE}"relation": {_part(edge.relation)},{_LINE}"channels": {_part(edge.channels)},'
        f'{_LINE}"statement": {_part(edge.statement)}'
        for edge in document.edges
    ]
    # No text of JSON holds these, since its quotes are escaped.
    return text.replace('"nodes": []', f'"nodes": {_listed(nodes)}').replace(
        '"edges": []', f'"edges": {_listed(edges)}'
    )


_LINE = "\n      "


@lru_cache(maxsize=1 << 12)
def _part(value: object) -> str:
    return pretty(value, 6)


def _listed(items: list[str]) -> str:
    if not items:
        return "[]"
    lines = ",\n    ".join(f"{{{_LINE}{item}\n    }}" for item in items)
    return f"[\n    {lines}\n  ]"


def from_json(text: str) -> TreeDocument:
    """Read a document strictly.

    Raises:
        InvalidDocumentError: the text is not a `forkwatch.tree/1` document.
    """
    return load(_reader(), text)


def json_schema() -> dict[str, object]:
    """JSON Schema 2020-12, generated from the types above."""
    return schema_of(_reader(), SCHEMA)


@cache
def _reader() -> TypeAdapter[TreeDocument]:
    return adapter(TreeDocument)
