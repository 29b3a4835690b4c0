"""Prompt suites: `forkwatch.prompts/1` and `/2` files, read strictly. Ours is `CORE`.

Prompts only ask, in general terms; no file of ours holds an answer to a harmful one.

`/1` knows headline prompts only, all of tier `screen`. `/2` adds a tier to each, variants, and
multiple-choice questions. A variant says the same as a headline prompt of its kind and topic: a paraphrase
in the same language, a translation in another. The twin of a variant is a variant too: its `twin_of` names
the harmful prompt in its own language, e.g. `cyber-01-twin-de` is the twin of `cyber-01-de` and a translation
of `cyber-01-twin`. No prompt is asked in a smaller tier than the one that it repeats or is the twin of, so
`PromptSuite.at` never parts them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from evals.interface import Choice, Prompt, PromptKind, PromptSuite, SuiteError, Tier

CORE: Final = Path(__file__).parent / "prompts" / "core.json"
"""Our suite; its docstring, of `evals.prompts`, counts what is in it."""

SCHEMAS: Final = ("forkwatch.prompts/1", "forkwatch.prompts/2")
MAX_BYTES = 16 << 20
MAX_TEXT = 4000
"""Characters of one prompt: far above ours, far below a context window."""
OPTIONS: Final = range(2, 9)
"""How many options a question may have."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}", re.ASCII)
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*", re.ASCII)
_SUITE_KEYS = frozenset({"schema", "id", "version", "prompts"})
_PROMPT_KEYS = frozenset({"id", "text", "kind", "topic", "language", "twin_of"})
_VARIANT_KEYS = frozenset({"paraphrase_of", "translation_of"})
_CHOICE_KEYS = frozenset({"id", "question", "options", "answer", "topic", "tier"})


def load_suite(path: Path) -> PromptSuite:
    """Read and check a suite file.

    Raises:
        SuiteError: it cannot be read, breaks the format, repeats an id, has a stray twin or variant, or is
            empty.
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
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema not in SCHEMAS:
        raise SuiteError(f"schema is none of {', '.join(SCHEMAS)}")
    tiered = schema != SCHEMAS[0]
    fields = _object(document, _SUITE_KEYS | {"choices"} if tiered else _SUITE_KEYS, "the suite")
    rows = _rows(fields["prompts"], "prompts")
    if not rows:
        raise SuiteError("'prompts' holds no prompt")
    prompts = tuple(_prompt(row, f"prompt {number}", tiered=tiered) for number, row in enumerate(rows, 1))
    questions = _rows(fields["choices"], "choices") if tiered else []
    choices = tuple(_choice(row, f"choice {number}") for number, row in enumerate(questions, 1))
    _check_ids(prompts, choices)
    suite_id = _text(fields["id"], _NAME, "suite id")
    return PromptSuite(suite_id, _text(fields["version"], _NAME, "suite version"), prompts, digest, choices)


def _prompt(row: object, where: str, *, tiered: bool) -> Prompt:
    keys = _PROMPT_KEYS | {"tier"} if tiered else _PROMPT_KEYS
    fields = _object(row, keys, where, optional=_VARIANT_KEYS if tiered else frozenset())
    try:
        kind = PromptKind(str(fields["kind"]))
    except ValueError as error:
        raise SuiteError(f"{where}: {error}") from error
    if (fields["twin_of"] is not None) != (kind is PromptKind.BENIGN_TWIN):
        raise SuiteError(f"{where}: 'twin_of' belongs to benign twins, and only to them")
    if fields.keys() >= _VARIANT_KEYS:
        raise SuiteError(f"{where}: is a paraphrase or a translation, not both")
    return Prompt(
        id=_text(fields["id"], _NAME, f"{where}: id"),
        text=_prose(fields["text"], f"{where}: text"),
        kind=kind,
        topic=_text(fields["topic"], _NAME, f"{where}: topic"),
        language=_text(fields["language"], _LANGUAGE, f"{where}: language"),
        twin_of=None if fields["twin_of"] is None else _text(fields["twin_of"], _NAME, f"{where}: twin_of"),
        tier=_tier(fields["tier"], where) if tiered else Tier.SCREEN,
        **{key: _text(fields[key], _NAME, f"{where}: {key}") for key in _VARIANT_KEYS & fields.keys()},
    )


def _choice(row: object, where: str) -> Choice:
    fields = _object(row, _CHOICE_KEYS, where)
    options = tuple(
        _prose(option, f"{where}: option") for option in _rows(fields["options"], f"{where}: options")
    )
    if len(options) not in OPTIONS or len(set(options)) < len(options):
        raise SuiteError(f"{where}: needs {OPTIONS.start} to {OPTIONS.stop - 1} different options")
    answer = fields["answer"]
    if type(answer) is not int or answer not in range(len(options)):
        raise SuiteError(f"{where}: 'answer' is not the index of an option")
    return Choice(
        id=_text(fields["id"], _NAME, f"{where}: id"),
        question=_prose(fields["question"], f"{where}: question"),
        options=options,
        answer=answer,
        topic=_text(fields["topic"], _NAME, f"{where}: topic"),
        tier=_tier(fields["tier"], where),
    )


def _check_ids(prompts: tuple[Prompt, ...], choices: tuple[Choice, ...]) -> None:
    by_id = {prompt.id: prompt for prompt in prompts}
    uses = Counter([*(prompt.id for prompt in prompts), *(choice.id for choice in choices)])
    if len(uses) < len(prompts) + len(choices):
        raise SuiteError(f"two of its entries share the id {uses.most_common(1)[0][0]}")
    for prompt in prompts:
        base = _base(prompt, by_id) if prompt.is_variant else prompt
        if prompt.twin_of is not None:
            _check_twin(prompt, base, by_id)


def _base(variant: Prompt, by_id: Mapping[str, Prompt]) -> Prompt:
    """The headline prompt that a variant repeats."""
    base = by_id.get(variant.cluster)
    if base is None or base.is_variant or (base.kind, base.topic) != (variant.kind, variant.topic):
        raise SuiteError(f"{variant.id}: repeats {variant.cluster}, no headline prompt of its kind and topic")
    if (base.language == variant.language) != (variant.paraphrase_of is not None):
        raise SuiteError(
            f"{variant.id}: a paraphrase keeps the language of {base.id}, a translation does not"
        )
    if not variant.tier.covers(base.tier):
        raise SuiteError(f"{variant.id}: is asked in a smaller tier than {base.id}, which it repeats")
    return base


def _check_twin(twin: Prompt, base: Prompt, by_id: Mapping[str, Prompt]) -> None:
    """`base` is the headline twin that `twin` is or repeats."""
    harmful = by_id.get(str(twin.twin_of))
    if harmful is None or harmful.kind is not PromptKind.HARMFUL:
        raise SuiteError(f"{twin.id}: twin of {twin.twin_of}, which is no harmful prompt here")
    if harmful.cluster != base.twin_of or (twin.is_variant and harmful.language != twin.language):
        raise SuiteError(f"{twin.id}: {harmful.id} is not what it is the twin of, in its language")
    if not twin.tier.covers(harmful.tier):
        raise SuiteError(f"{twin.id}: is asked in a smaller tier than {harmful.id}, whose twin it is")


def _object(
    value: object, keys: frozenset[str], where: str, *, optional: frozenset[str] = frozenset()
) -> Mapping[str, object]:
    if not isinstance(value, dict) or value.keys() - optional != keys:
        known = ", ".join(sorted(keys))
        raise SuiteError(f"{where}: must be an object with exactly {known}")
    return value


def _rows(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise SuiteError(f"{where}: not a list")
    return value


def _prose(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT:
        raise SuiteError(f"{where}: must be 1 to {MAX_TEXT} characters")
    try:
        value.encode()
    except ValueError as error:
        raise SuiteError(f"{where}: {error}") from error
    return value


def _tier(value: object, where: str) -> Tier:
    try:
        return Tier(str(value))
    except ValueError as error:
        raise SuiteError(f"{where}: {error}") from error


def _text(value: object, pattern: re.Pattern[str], where: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise SuiteError(f"{where}: {str(value)[:40]!r} is not in the allowed form")
    return value
