"""Prompt suites: `forkwatch.prompts/1` files, read strictly. Ours is `CORE`.

Prompts only ask, in general terms; no file of ours holds an answer to a harmful one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from evals.interface import Prompt, PromptKind, PromptSuite, SuiteError

CORE: Final = Path(__file__).parent / "prompts" / "core.json"
"""72 harmful requests over 12 topics, each with a close benign twin, and 40 plain ones; English."""

SCHEMA = "forkwatch.prompts/1"
MAX_BYTES = 16 << 20
MAX_TEXT = 4000
"""Characters of one prompt: far above ours, far below a context window."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}", re.ASCII)
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*", re.ASCII)
_SUITE_KEYS = frozenset({"schema", "id", "version", "prompts"})
_PROMPT_KEYS = frozenset({"id", "text", "kind", "topic", "language", "twin_of"})


def load_suite(path: Path) -> PromptSuite:
    """Read and check a suite file.

    Raises:
        SuiteError: it cannot be read, breaks the format, repeats an id, has a stray twin, or is empty.
    """
    try:
        raw = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
        document = json.loads(raw)
    except OSError as error:
        raise SuiteError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"{path}: not JSON, or larger than {MAX_BYTES >> 20} MiB") from error
    try:
        return _suite(document, f"sha256:{hashlib.sha256(raw).hexdigest()}")
    except SuiteError as error:
        raise SuiteError(f"{path}: {error}") from error


def _suite(document: object, digest: str) -> PromptSuite:
    fields = _object(document, _SUITE_KEYS, "the suite")
    if fields["schema"] != SCHEMA:
        raise SuiteError(f"schema is not {SCHEMA!r}")
    rows = fields["prompts"]
    if not isinstance(rows, list) or not rows:
        raise SuiteError("'prompts' holds no prompt")
    prompts = tuple(_prompt(row, f"prompt {number}") for number, row in enumerate(rows, 1))
    _check_ids(prompts)
    suite_id = _text(fields["id"], _NAME, "suite id")
    return PromptSuite(suite_id, _text(fields["version"], _NAME, "suite version"), prompts, digest)


def _prompt(row: object, where: str) -> Prompt:
    fields = _object(row, _PROMPT_KEYS, where)
    text = fields["text"]
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_TEXT:
        raise SuiteError(f"{where}: 'text' must be 1 to {MAX_TEXT} characters")
    try:
        text.encode()
        kind = PromptKind(str(fields["kind"]))
    except ValueError as error:
        raise SuiteError(f"{where}: {error}") from error
    twin_of = fields["twin_of"]
    if (twin_of is not None) != (kind is PromptKind.BENIGN_TWIN):
        raise SuiteError(f"{where}: 'twin_of' belongs to benign twins, and only to them")
    return Prompt(
        id=_text(fields["id"], _NAME, f"{where}: id"),
        text=text,
        kind=kind,
        topic=_text(fields["topic"], _NAME, f"{where}: topic"),
        language=_text(fields["language"], _LANGUAGE, f"{where}: language"),
        twin_of=None if twin_of is None else _text(twin_of, _NAME, f"{where}: twin_of"),
    )


def _check_ids(prompts: tuple[Prompt, ...]) -> None:
    by_id = {prompt.id: prompt for prompt in prompts}
    if len(by_id) < len(prompts):
        raise SuiteError("two prompts share an id")
    for prompt in prompts:
        if prompt.twin_of is None:
            continue
        twin = by_id.get(prompt.twin_of)
        if twin is None or twin.kind is not PromptKind.HARMFUL:
            raise SuiteError(f"{prompt.id}: twin of {prompt.twin_of}, which is no harmful prompt here")


def _object(value: object, keys: frozenset[str], where: str) -> Mapping[str, object]:
    if not isinstance(value, dict) or value.keys() != keys:
        raise SuiteError(f"{where}: must be an object with exactly {', '.join(sorted(keys))}")
    return value


def _text(value: object, pattern: re.Pattern[str], where: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise SuiteError(f"{where}: {str(value)[:40]!r} is not in the allowed form")
    return value
