"""The files beside the weights: fetch what differs from the original's, and compare it as text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from crawler.interface import RepoFile, Snapshot, TooLargeError
from detector.behaviour import (
    ADDITIONAL_TEMPLATES,
    BEHAVIOUR_FILES,
    EMBEDDED_TEMPLATE,
    TOKENIZER_FILES,
    compare_behaviour,
    template_findings,
)
from detector.errors import MalformedWeightsError
from detector.formats import checkpoints, is_gguf
from detector.formats.gguf_header import read_gguf_header
from detector.interface import FileFinding, FileMatch, TextChange
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.originals import Original

MAX_TEXT = 8 << 20
"""Bytes of one template or configuration."""
MAX_TOKENIZER = 64 << 20
"""Bytes of one file; a tokenizer of 260,000 tokens takes about 33 MB when it is indented."""
MAX_ADDITIONAL = 16
"""Named templates in files of their own; transformers writes a handful."""
MAX_GGUF_HEADERS = 192 << 20
"""Bytes read of all GGUF headers, 6 to 12 MB each."""
BINARY = frozenset({"tokenizer.model"})
"""Compared by digest."""


@dataclass(frozen=True, slots=True)
class Texts:
    """How the files beside the weights differ, and what the fork's templates do beyond the original's."""

    changes: tuple[TextChange, ...]
    findings: tuple[FileFinding, ...]


def compare_texts(context: Context, original: Original, snapshot: Snapshot, match: FileMatch) -> Texts:
    """Template, configuration and tokenizer files against the original's; only what differs is fetched."""
    ours = {
        path: _own_text(original.folder / path)
        for path in (
            *BEHAVIOUR_FILES,
            *TOKENIZER_FILES,
            *_additional(file.path for file in original.manifest.files),
        )
        if (original.folder / path).is_file()
    }
    theirs = {}
    for path in (*BEHAVIOUR_FILES, *TOKENIZER_FILES, *_additional(file.path for file in snapshot.files)):
        file = snapshot.file(path)
        if path in match.identical and path in ours:
            theirs[path] = ours[path]
        elif file is not None and (path in ours or path not in TOKENIZER_FILES):
            theirs[path] = _fork_text(context, snapshot, file)
    embedded, unread = _embedded_templates(context, snapshot)
    theirs.update(embedded)
    return Texts(compare_behaviour(ours, theirs), (*template_findings(ours, theirs), *unread))


def _additional(paths: Iterable[str]) -> list[str]:
    """Named templates in files of their own."""
    found = (path for path in paths if path.startswith(f"{ADDITIONAL_TEMPLATES}/"))
    return sorted(path for path in found if path.endswith(".jinja"))[:MAX_ADDITIONAL]


def _own_text(path: Path) -> str:
    """The text of a behaviour file, or the digest of one that is not text."""
    if path.name in BINARY:
        with path.open("rb") as stream:
            return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    return path.read_text("utf-8", "replace")


def _fork_text(context: Context, snapshot: Snapshot, file: RepoFile) -> str:
    if file.path in BINARY:
        return f"sha256:{file.sha256}" if file.sha256 is not None else f"git:{file.git_oid}"
    try:
        limit = MAX_TOKENIZER if file.path in TOKENIZER_FILES else MAX_TEXT
        return context.hub.read_text(snapshot, file.path, limit=limit)
    except TooLargeError:
        return f"not read: {file.size:,} bytes"


def _embedded_templates(
    context: Context, snapshot: Snapshot
) -> tuple[dict[str, str], tuple[FileFinding, ...]]:
    """The chat templates of the GGUF files, each its own, and the files whose template was not read.

    Somebody can poison one quantisation of twenty, so all are read up to a bound; of a checkpoint in shards
    the first describes it. Damaged weights are the weight stages' business.
    """
    found, unread, read = dict[str, str](), list[FileFinding](), 0
    files = {file.path: file for file in snapshot.files if is_gguf(file.path)}
    for path, *_ in checkpoints(files):
        if read > MAX_GGUF_HEADERS:
            note = f"not read: the headers of the other GGUF files took {read:,} bytes"
            unread.append(FileFinding("odd-template", path, note))
            continue
        try:
            header = read_gguf_header(context.hub.open(snapshot, path), path)
        except MalformedWeightsError:
            read += 1 << 20
            continue
        read += header.nbytes
        for key, value in header.metadata:
            if key.startswith(EMBEDDED_TEMPLATE) and isinstance(value, str):
                found[f"{path}#{key}"] = value
    return found, tuple(unread)
