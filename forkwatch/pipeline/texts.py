"""The files beside the weights: fetch what differs from the original's, and compare it as text."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from crawler.interface import RepoFile, Snapshot, TooLargeError
from detector.behaviour import BEHAVIOUR_FILES, EMBEDDED_TEMPLATE, TOKENIZER_FILES, compare_behaviour
from detector.errors import MalformedWeightsError, NoWeightsError
from detector.formats.gguf_header import read_gguf_header
from detector.interface import FileMatch, TextChange
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.originals import Original
from forkwatch.pipeline.weight_files import weight_files

MAX_TEXT = 64 << 20
"""Bytes of one file; a tokenizer of 260,000 tokens takes about 33 MB when it is indented."""
BINARY = frozenset({"tokenizer.model"})
"""Compared by digest."""


def compare_texts(
    context: Context, original: Original, snapshot: Snapshot, match: FileMatch
) -> tuple[TextChange, ...]:
    """Template, configuration and tokenizer files against the original's; only what differs is fetched."""
    ours = {
        path: _own_text(original.folder / path)
        for path in (*BEHAVIOUR_FILES, *TOKENIZER_FILES)
        if (original.folder / path).is_file()
    }
    theirs = {}
    for path in (*BEHAVIOUR_FILES, *TOKENIZER_FILES):
        file = snapshot.file(path)
        if path in match.identical and path in ours:
            theirs[path] = ours[path]
        elif file is not None and (path in ours or path in BEHAVIOUR_FILES):
            theirs[path] = _fork_text(context, snapshot, file)
    return compare_behaviour(ours, theirs | _embedded_templates(context, snapshot))


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
        return context.hub.read_text(snapshot, file.path, limit=MAX_TEXT)
    except TooLargeError:
        return f"not read: {file.size:,} bytes"


def _embedded_templates(context: Context, snapshot: Snapshot) -> dict[str, str]:
    """The chat template of a GGUF file; missing or damaged weights are the weight stages' business."""
    found = {}
    with suppress(NoWeightsError, MalformedWeightsError):
        for file in weight_files(snapshot):
            if file.path.lower().endswith(".gguf"):
                header = read_gguf_header(context.hub.open(snapshot, file.path), file.path)
                if isinstance(template := header.get(EMBEDDED_TEMPLATE), str):
                    found[f"{file.path}#{EMBEDDED_TEMPLATE}"] = template
    return found
