"""Repositories of which only the metadata is real, so that a hundred thousand fit into one process.

A sketch says what its card, configuration and headers hold. Its small files are written when somebody reads
them, its weights are `Hollow`: a header that says what the sketch says, then zeros. What the Hub derives from
those files is what it shows of the sketch (`card.derive` of its files are its facts), only cheaper.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType

from forkwatch.demo.hub import gguf, tensors
from forkwatch.demo.hub.blobs import Blob, BlobFactory, Hollow
from forkwatch.demo.hub.card import Facts, front_matter, make_facts, shown_config
from forkwatch.demo.hub.gguf import Gguf
from forkwatch.demo.hub.repo import Commit
from forkwatch.demo.hub.wire import Json

_GGUF_PATH = "model-Q4_K_M.gguf"
_BLOBS = BlobFactory()
_NO_FILES: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sketch:
    """The metadata of one commit."""

    card: Mapping[str, Json] | None = None
    """Front matter of README.md: JSON values, whose keys need no quoting in YAML."""
    body: str = ""
    """Text of README.md below the front matter; without both there is no README."""
    config: Mapping[str, Json] | None = None
    """config.json."""
    adapter: Mapping[str, Json] | None = None
    """adapter_config.json."""
    weights: Mapping[str, int] | None = None
    """Parameters by dtype of model.safetensors."""
    gguf: Gguf | None = None
    files: Mapping[str, bytes] = field(default_factory=lambda: _NO_FILES)
    """Other small files; a README.md here stands for `card` and `body`."""
    salt: str = ""
    """Weights of the same shape have the same (invented) SHA-256 only if this is equal too."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Its files, sorted."""
        there = {
            "README.md": self.card is not None or bool(self.body),
            "config.json": self.config is not None,
            "adapter_config.json": self.adapter is not None,
            "model.safetensors": self.weights is not None,
            _GGUF_PATH: self.gguf is not None,
        }
        return tuple(sorted({*(path for path, present in there.items() if present), *self.files}))

    @property
    def readme(self) -> bytes:
        """README.md; JSON is YAML too, and quicker to write."""
        if self.card is None:
            return self.body.encode()
        lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in self.card.items())
        return f"---\n{''.join(lines)}---\n{self.body}".encode()


def sketch_commit(sketch: Sketch, message: str, date: datetime, parents: tuple[Commit, ...]) -> Commit:
    """A commit of a sketch; its id is a function of the sketch, the message and the parents alone."""
    digest = hashlib.sha1(usedforsecurity=False)
    rest = (sketch.config, sketch.adapter, sketch.weights, sketch.salt, sorted(sketch.files.items()))
    for part in (f"{sketch.gguf} {rest}", message, *(parent.id for parent in parents)):
        digest.update(part.encode(errors="replace") + b"\0")
    digest.update(sketch.readme)
    return Commit(digest.hexdigest(), message, date, SketchFiles(sketch), _facts(sketch))


class SketchFiles(Mapping[str, Blob]):
    """The files of a sketch, made when they are looked at."""

    __slots__ = ("_sketch",)

    def __init__(self, sketch: Sketch) -> None:
        self._sketch = sketch

    def __getitem__(self, path: str) -> Blob:
        return _materialise(self._sketch)[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sketch.paths)

    def __len__(self) -> int:
        return len(self._sketch.paths)

    def __contains__(self, path: object) -> bool:
        return path in self._sketch.paths


def _facts(sketch: Sketch) -> Facts:
    readme = sketch.files.get("README.md")
    card = sketch.card if readme is None else _parsed(readme)
    config = shown_config(sketch.config or {}, sketch.adapter or {}, {})
    return make_facts(sketch.paths, card, config, sketch.weights, sketch.gguf)


@lru_cache(maxsize=32)
def _parsed(readme: bytes) -> Mapping[str, Json] | None:
    """Front matter of a card that is given whole: many sketches may share one that takes long to parse."""
    return front_matter(_BLOBS.blob("README.md", readme))


@lru_cache(maxsize=256)
def _materialise(sketch: Sketch) -> Mapping[str, Blob]:
    sources: dict[str, bytes | Hollow] = {}
    if sketch.card is not None or sketch.body:
        sources["README.md"] = sketch.readme
    if sketch.config is not None:
        sources["config.json"] = json.dumps(sketch.config).encode()
    if sketch.adapter is not None:
        sources["adapter_config.json"] = json.dumps(sketch.adapter).encode()
    if sketch.weights is not None:
        header, size = tensors.write(sketch.weights)
        sources["model.safetensors"] = Hollow(header, size, sketch.salt)
    if sketch.gguf is not None:
        header = gguf.write(sketch.gguf)
        sources[_GGUF_PATH] = Hollow(header, len(header) + sketch.gguf.total * 9 // 16, sketch.salt)
    sources |= sketch.files
    return {path: _BLOBS.blob(path, sources[path]) for path in sketch.paths}
