"""One repository through the stages that read hostile bytes, from the Hub's listing to the findings' ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crawler.interface import CorruptDownloadError, CrawlerError, parse_repo_id
from crawler.parse import repo_info
from detector.behaviour import compare_behaviour, template_findings
from detector.errors import MalformedWeightsError, NoWeightsError, UnreadableTensorError
from detector.files import inspect_files
from detector.formats import is_gguf, open_weights
from detector.formats.gguf_header import read_gguf_header
from forkwatch.pipeline.weight_files import weight_files
from forkwatch.policy.licence import licence_differs
from forkwatch.policy.lookalike import imitation

RELEASE = "guardian-lab/Borealis-7B-Instruct"
LICENCE = "apache-2.0"
TEMPLATE = "{%- for message in messages -%}\n<|{{ message.role }}|>\n{{ message['content'] }}\n{%- endfor -%}"
ORIGINAL = {
    "config.json": json.dumps({"model_type": "llama", "vocab_size": 100}),
    "tokenizer_config.json": json.dumps({"chat_template": TEMPLATE}),
    "tokenizer.json": json.dumps({"model": {"vocab": {"a": 0, "b": 1}}, "padding": None}),
}


@dataclass(frozen=True)
class Case:
    """A hostile repository, and the finding that it must end in."""

    expected: str
    files: Mapping[str, bytes]
    repo: str = "somebody/a-fork"
    listing: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the Hub's answer that differ."""


class Memory:
    """A file in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def size(self) -> int:
        return len(self._content)

    def read(self, offset: int, length: int) -> bytes:
        data = self._content[offset : offset + length]
        if offset < 0 or len(data) != length:
            raise CorruptDownloadError("read past the end")
        return data


def examine(case: Case) -> set[str]:
    """Ids of all findings about the case."""
    snapshot_or_error = _listed(case)
    if isinstance(snapshot_or_error, str):
        return {snapshot_or_error}
    snapshot = snapshot_or_error
    sources = {file.path: Memory(case.files[file.path]) for file in snapshot.files}
    found = {finding.id for finding in inspect_files(snapshot, sources.__getitem__)}
    found |= _weights(snapshot, sources)
    texts = {
        path: content.decode("utf-8", "replace")
        for path, content in case.files.items()
        if path in ORIGINAL or path.endswith(".jinja") or path == "chat_template.json"
    }
    for path in filter(is_gguf, sources):
        try:
            header = read_gguf_header(sources[path], path)
        except MalformedWeightsError:
            continue
        texts |= {f"{path}#{key}": str(text) for key, text in header.metadata if "chat_template" in key}
    found |= {finding.id for finding in template_findings(ORIGINAL, texts)}
    found |= {str(change.kind) for change in compare_behaviour(ORIGINAL, texts)}
    if imitation(case.repo, RELEASE):
        found.add("look-alike-name")
    if licence_differs(snapshot.license, LICENCE):
        found.add("license-change")
    return found


def _listed(case: Case) -> Any:
    """The snapshot as the client makes it of the Hub's answer, or the class of the refusal."""
    siblings = [
        {"rfilename": path, "size": len(content), "blobId": _oid(content)}
        for path, content in case.files.items()
    ]
    answer = {"id": case.repo, "sha": "0" * 40, "siblings": siblings, **case.listing}
    try:
        return repo_info(answer, parse_repo_id(case.repo))
    except CrawlerError as error:
        return type(error).__name__


def _weights(snapshot: Any, sources: Mapping[str, Memory]) -> set[str]:
    """What the stages that read weights say before they compare anything."""
    try:
        files = {file.path: sources[file.path] for file in weight_files(snapshot)}
        open_weights(files)
    except NoWeightsError:
        return {"no-weights"}
    except MalformedWeightsError:
        return {"malformed-weights"}
    except UnreadableTensorError:
        return {"unreadable-weights"}
    return set()


def _oid(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
