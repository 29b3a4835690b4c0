"""What the Hub derives from a repository's files: card data, tags, base models, config, parameter counts.

The card is whatever somebody wrote: a value that does not have the documented type is kept in `cardData`, and
makes no tag.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeGuard

import yaml

from forkwatch.demo.hub import gguf, tensors
from forkwatch.demo.hub.blobs import Blob
from forkwatch.demo.hub.gguf import Gguf
from forkwatch.demo.hub.wire import Json

_TEXT_LIMIT = 4 << 20
"""Bytes read of a card or a JSON file."""
_DEPTH_LIMIT = 20

RELATIONS = ("adapter", "finetune", "merge", "quantized")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the Hub says about one commit besides its files."""

    card: Mapping[str, Json] | None
    """Front matter of README.md; None when there is none or it is not a YAML mapping."""
    tags: tuple[str, ...]
    base_models: tuple[str, ...]
    relation: str
    """One of `RELATIONS`; meaningless without base models."""
    library: str | None
    pipeline: str | None
    config: Mapping[str, Json] | None
    parameters: Mapping[str, int] | None
    """Parameters by dtype, from the safetensors headers."""
    gguf: Gguf | None

    @property
    def total(self) -> int | None:
        """Number of parameters; None when no header tells."""
        if self.parameters is not None:
            return sum(self.parameters.values())
        return None if self.gguf is None else self.gguf.total


def derive(files: Mapping[str, Blob]) -> Facts:
    """Facts about a commit with these files."""
    model, adapter, tokenizer = (
        _json_object(files.get(path))
        for path in ("config.json", "adapter_config.json", "tokenizer_config.json")
    )
    return make_facts(
        files,
        front_matter(files.get("README.md")),
        shown_config(model, adapter, tokenizer),
        tensors.parameters(files),
        gguf.summary(files),
    )


def make_facts(
    paths: Collection[str],
    card: Mapping[str, Json] | None,
    config: Mapping[str, Json] | None,
    parameters: Mapping[str, int] | None,
    header: Gguf | None,
) -> Facts:
    """Facts about a commit with files at these paths, of which the rest has been read."""
    data = card or {}
    library = _library(paths, data)
    pipeline = _string(data.get("pipeline_tag")) or _pipeline(config)
    bases = _strings(data.get("base_model"))
    relation = _relation(paths, data)
    tags = _tags(paths, data, config, (library, pipeline), (bases, relation))
    return Facts(card, tags, bases, relation, library, pipeline, config, parameters, header)


def _tags(
    paths: Collection[str],
    card: Mapping[str, Json],
    config: Mapping[str, Json] | None,
    task: tuple[str | None, str | None],
    origin: tuple[tuple[str, ...], str],
) -> tuple[str, ...]:
    """In the Hub's order: library, formats, architecture, task, the card's own, then the prefixed ones."""
    library, pipeline = task
    bases, relation = origin
    formats = (name for name in ("safetensors", "gguf") if any(path.endswith(f".{name}") for path in paths))
    pickled = "pytorch" if any(path.endswith(".bin") for path in paths) else None
    plain = (library, pickled, *formats, _string((config or {}).get("model_type")), pipeline)
    own = (*_strings(card.get("tags")), *_strings(card.get("language")))
    datasets = (f"dataset:{name}" for name in _strings(card.get("datasets")))
    declared = (tag for base in bases for tag in (f"base_model:{base}", f"base_model:{relation}:{base}"))
    licence = (f"license:{name}" for name in _strings(card.get("license")))
    everything = (*plain, *own, *datasets, *declared, *licence, "region:us")
    return tuple(dict.fromkeys(sys.intern(tag) for tag in everything if tag))


def _relation(paths: Collection[str], card: Mapping[str, Json]) -> str:
    """The card's own word, else what the files suggest (Hub docs, model-cards: specifying a base model)."""
    given = _string(card.get("base_model_relation"))
    if given in RELATIONS:
        return given
    if any(path.endswith(".gguf") for path in paths):
        return "quantized"
    if "adapter_config.json" in paths:
        return "adapter"
    return "merge" if len(_strings(card.get("base_model"))) > 1 else "finetune"


def _library(paths: Collection[str], card: Mapping[str, Json]) -> str | None:
    if named := _string(card.get("library_name")):
        return named
    if "adapter_config.json" in paths:
        return "peft"
    if "config.json" in paths:
        return "transformers"
    return "gguf" if any(path.endswith(".gguf") for path in paths) else None


def _pipeline(config: Mapping[str, Json] | None) -> str | None:
    architectures = _strings((config or {}).get("architectures"))
    return "text-generation" if any(name.endswith("ForCausalLM") for name in architectures) else None


def shown_config(
    model: Mapping[str, Json], adapter: Mapping[str, Json], tokenizer: Mapping[str, Json]
) -> Mapping[str, Json] | None:
    """The part of config.json, adapter_config.json and tokenizer_config.json that the Hub shows."""
    keys = ("architectures", "auto_map", "model_type", "quantization_config")
    shown: dict[str, Json] = {key: model[key] for key in keys if key in model}
    if adapter:
        shown["peft"] = {
            key: adapter[key] for key in ("base_model_name_or_path", "task_type") if key in adapter
        }
    special = ("bos_token", "chat_template", "eos_token", "pad_token", "unk_token")
    if kept := {key: tokenizer[key] for key in special if key in tokenizer}:
        shown["tokenizer_config"] = kept
    return shown or None


def front_matter(readme: Blob | None) -> Mapping[str, Json] | None:
    """The YAML mapping at the top of a card; None without one."""
    if readme is None:
        return None
    lines = readme.read(0, _TEXT_LIMIT).decode(errors="replace").splitlines()
    if not lines or lines[0].strip() != "---" or "---" not in (rest := [line.rstrip() for line in lines[1:]]):
        return None
    text = "\n".join(rest[: rest.index("---")])
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            return None  # aliases of aliases grow without bound when they are written out
        parsed: object = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date like 2026-99-99
        return None
    value = _as_json(parsed)
    return value if _is_object(value) else None


def _json_object(blob: Blob | None) -> Mapping[str, Json]:
    if blob is None or blob.size > _TEXT_LIMIT:
        return {}
    try:
        value = _as_json(json.loads(blob.read(0, blob.size)))
    except (ValueError, RecursionError):
        return {}
    return value if _is_object(value) else {}


def _as_json(value: object, depth: int = 0) -> Json:
    """YAML's dates, odd keys and NaN as strict JSON; what is nested deeper than the limit becomes null."""
    if depth > _DEPTH_LIMIT or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): _as_json(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_json(item, depth + 1) for item in value]
    return str(value)


def _is_object(value: Json) -> TypeGuard[Mapping[str, Json]]:
    return isinstance(value, Mapping)


def _string(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def _strings(value: Json) -> tuple[str, ...]:
    return tuple(_iterate(value))


def _iterate(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from (item for item in value if isinstance(item, str))
