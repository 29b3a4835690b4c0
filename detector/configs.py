"""Configurations that make a loader import code, and those that break JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from crawler.interface import ByteSource

CONFIGS = frozenset(
    {"config.json", "tokenizer_config.json", "generation_config.json", "adapter_config.json"}
    | {"processor_config.json", "preprocessor_config.json", "modules.json", "model_index.json"}
)
MAX_CONFIG_BYTES = 4 << 20
"""Of a JSON configuration; real ones stay below 1 MB."""
_KERNELS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
"""transformers fetches and imports a kernel repository named here (CVE-2026-4372)."""


@dataclass(frozen=True, slots=True)
class CodeRequests:
    """What a publisher's configuration asks a loader to run."""

    publisher: str
    """Repository id, by which a copy may name the same code: `org/name--module.Class`."""
    asked: frozenset[tuple[str, str]]
    """Key and value."""


def code_requests(publisher: str, text: bytes) -> CodeRequests:
    """What the publisher's own configuration asks for; nothing, where it cannot be read."""
    try:
        config: object = json.loads(text)
    except (ValueError, RecursionError):
        config = None
    return CodeRequests(publisher, frozenset(_requests(config)))


def inspect_config(source: ByteSource, owned: CodeRequests | None) -> Iterator[tuple[str, str]]:
    """Findings (id, note) about one configuration.

    Args:
        source: its bytes.
        owned: what a loader is asked for by the release as well, from the same code.
    """
    if source.size > MAX_CONFIG_BYTES:
        yield "malformed-config", f"{source.size} bytes are too many for a configuration"
        return
    try:
        config: object = json.loads(source.read(0, source.size))
    except (ValueError, RecursionError) as error:
        yield "malformed-config", f"not JSON ({type(error).__name__})"
        return
    fresh = {
        key
        for key, value in _requests(config)
        if owned is None or (key, value.removeprefix(f"{owned.publisher}--")) not in owned.asked
    }
    if fresh:
        yield "remote-code", f"asks the loader to run code: {', '.join(sorted(fresh))}"


def _requests(config: object) -> Iterator[tuple[str, str]]:
    """Keys that make a loader import code, from the repository (auto_map) or from another one (kernels)."""
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(value)
        if not isinstance(value, dict):
            continue
        pending.extend(value.values())
        for key in ("auto_map", "trust_remote_code", "custom_pipelines"):
            if value.get(key):
                yield from ((key, leaf) for leaf in _leaves(value[key]))
        if _imports_module(value):
            yield "type", str(value["type"])
        for key in _KERNELS:
            if "/" in str(value.get(key, "")):
                yield key, str(value[key])


def _leaves(value: object) -> Iterator[str]:
    """Every text or number in a value."""
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)
        else:
            yield str(part)


def _imports_module(entry: dict[str, object]) -> bool:
    """A row of sentence-transformers' modules.json whose class is not one of the library's."""
    kind = entry.get("type")
    return (
        isinstance(kind, str)
        and {"idx", "path"} <= entry.keys()
        and not kind.startswith("sentence_transformers.")
    )
