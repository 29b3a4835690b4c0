"""Public prompt sets, from the files in which they are published, as prompts of ours.

Each format is told by its columns; docs/suites.md lists them. Only what asks is read: the affirmative
openings that some sets carry beside their prompts ("Sure, here is ...") are not. What forkwatch cannot judge
(copyright tests, encodings, attacks by persuasion, texts too long) is left out and counted.
`evals.public_suite` makes a suite of what is read here.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evals.interface import Prompt, PromptKind, Tier
from evals.tables import InputFileError, Row, cell, optional_cell, read_rows

MAX_TEXT = 4000
"""Characters of a prompt that a suite may hold."""
SKIPPED_COPYRIGHT = "asks for copyrighted text, which says nothing of refusals"
SKIPPED_STYLE = "an encoding or an attack, no paraphrase"
SKIPPED_LONG = f"longer than {MAX_TEXT} characters"
SKIPPED_TWICE = "asked before in the same words"


@dataclass(frozen=True, slots=True)
class PublicSet:
    """The prompts of one file."""

    format: str
    prompts: tuple[Prompt, ...]
    """Benign ones without a twin yet, all of tier FULL."""
    skipped: tuple[tuple[str, int], ...]
    """Why rows were left out, and how many."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A prompt, or a row that is left out."""

    key: str
    """Tells it apart within its file."""
    text: str
    kind: PromptKind
    topic: str
    language: str = "en"
    repeats: str | None = None
    """The key of the prompt that it repeats, in other words or another language."""
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class _Format:
    columns: frozenset[str]
    entries: Callable[[Row, str, PromptKind], Iterable[_Entry]]
    """(row, where it is, the kind of the file) to what it asks."""
    kind_of_file: Callable[[str], PromptKind | None] = lambda _stem: PromptKind.HARMFUL
    """What the prompts of a file with this name are; None: the name does not tell."""


def read_public(path: Path, *, format_name: str | None = None, kind: PromptKind | None = None) -> PublicSet:
    """Read a public set.

    Args:
        path: CSV, JSON, JSON lines or Parquet.
        format_name: One of `FORMATS`; None: told by the columns.
        kind: HARMFUL or BENIGN_TWIN, for sets whose files do not tell.

    Raises:
        InputFileError: it cannot be read, is of no known format, or a row breaks its format.
    """
    return public_set(read_rows(path), path.name, format_name=format_name, kind=kind)


def public_set(
    rows: Sequence[Row], name: str, *, format_name: str | None = None, kind: PromptKind | None = None
) -> PublicSet:
    """The same from rows, wherever they come from; `name` is the file's.

    Raises:
        InputFileError: as `read_public`.
    """
    try:
        chosen = format_name or _detect(rows[0])
        told = _kind(chosen, rows[0], name, kind)
        entries = [
            entry
            for number, row in enumerate(rows, 1)
            for entry in FORMATS[chosen].entries(row, f"row {number}", told)
        ]
        return _assembled(chosen, entries)
    except InputFileError as error:
        raise InputFileError(f"{name}: {error}") from error


def _kind(chosen: str, row: Row, name: str, wanted: PromptKind | None) -> PromptKind:
    """Of the prompts of a file; refuses one that is not of this format, or does not tell."""
    if chosen not in FORMATS:
        raise InputFileError(f"{chosen!r} is no known format; known are {', '.join(FORMATS)}")
    if missing := FORMATS[chosen].columns - row.keys():
        raise InputFileError(f"a file of format {chosen} has the columns {', '.join(sorted(missing))}")
    kind = wanted or FORMATS[chosen].kind_of_file(Path(name).stem.casefold())
    if kind is None:
        raise InputFileError("its name does not tell whether its prompts are harmful; say so with --kind")
    return kind


def _detect(row: Row) -> str:
    for name, known in FORMATS.items():
        if known.columns <= row.keys():
            return name
    shown = ", ".join(sorted(map(str, row))[:12])
    raise InputFileError(f"no known set has the columns {shown}; known are {', '.join(FORMATS)}")


def _assembled(name: str, entries: Sequence[_Entry]) -> PublicSet:
    skipped: Counter[str] = Counter()
    prompts: dict[str, Prompt] = {}
    asked: set[str] = set()
    for entry in sorted(entries, key=lambda entry: entry.repeats is not None):  # what is repeated comes first
        reason = entry.skipped or (SKIPPED_LONG if len(entry.text) > MAX_TEXT else "")
        if not reason and entry.text in asked:
            reason = SKIPPED_TWICE
        base = prompts.get(entry.repeats) if entry.repeats is not None else None
        if not reason and entry.repeats is not None and base is None:
            raise InputFileError(f"{entry.key} repeats {entry.repeats}, which the file does not ask")
        if reason:
            skipped[reason] += 1
            continue
        asked.add(entry.text)
        translated = base is not None and base.language != entry.language
        prompts[entry.key] = Prompt(
            id=f"{name}-{_slug(entry.key)}",
            text=entry.text,
            kind=entry.kind,
            topic=_slug(entry.topic) or name,
            language=entry.language,
            tier=Tier.FULL,
            paraphrase_of=base.id if base is not None and not translated else None,
            translation_of=base.id if base is not None and translated else None,
        )
    if not prompts:
        raise InputFileError("it asks nothing that can be judged")
    if len({prompt.id for prompt in prompts.values()}) < len(prompts):
        raise InputFileError("two of its prompts have one id")
    return PublicSet(name, tuple(prompts.values()), tuple(skipped.most_common()))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-")[:60].strip("-")


def _by_name(harmful: str, *benign: str) -> Callable[[str], PromptKind | None]:
    def kind(stem: str) -> PromptKind | None:
        if any(word in stem for word in benign):
            return PromptKind.BENIGN_TWIN
        return PromptKind.HARMFUL if harmful in stem else None

    return kind


_XSTEST_TOPICS = {
    "nons_group_real_discr": "discr",
    "real_group_nons_discr": "discr",
    "privacy_public": "privacy",
    "privacy_fictional": "privacy",
}
"""Types of safe prompts that share their contrasts."""


def _xstest(row: Row, where: str, kind: PromptKind) -> Iterable[_Entry]:
    del kind
    sort = cell(row, "type", where)
    unsafe = sort.startswith("contrast_")
    label = optional_cell(row, "label", where)
    if label not in ("", "unsafe" if unsafe else "safe"):
        raise InputFileError(f"{where}: type {sort[:40]!a} and label {label[:40]!a} contradict each other")
    topic = sort.removeprefix("contrast_")
    yield _Entry(
        cell(row, "id", where),
        cell(row, "prompt", where),
        PromptKind.HARMFUL if unsafe else PromptKind.BENIGN_TWIN,
        _XSTEST_TOPICS.get(topic, topic),
    )


def _plain(text: str, topic: str | None) -> Callable[[Row, str, PromptKind], Iterable[_Entry]]:
    """A column of prompts, and one of topics."""

    def entries(row: Row, where: str, kind: PromptKind) -> Iterable[_Entry]:
        key = where.removeprefix("row ").rjust(4, "0")
        if kind is PromptKind.BENIGN_TWIN:
            key = f"benign-{key}"
        yield _Entry(key, cell(row, text, where), kind, optional_cell(row, topic, where) if topic else "")

    return entries


def _harmbench(row: Row, where: str, kind: PromptKind) -> Iterable[_Entry]:
    text = cell(row, "Behavior", where)
    if context := optional_cell(row, "ContextString", where):
        text = f"{context}\n\n---\n\n{text}"  # as HarmBench asks it
    skipped = SKIPPED_COPYRIGHT if "copyright" in cell(row, "FunctionalCategory", where) else ""
    topic = cell(row, "SemanticCategory", where)
    yield _Entry(cell(row, "BehaviorID", where), text, kind, topic, skipped=skipped)


_SORRY_PARAPHRASES = frozenset(
    {"question", "slang", "uncommon_dialects", "technical_terms", "role_play", "misspellings"}
)
_SORRY_LANGUAGES = {
    f"translate-{code}": language
    for code, language in {"ml": "ml", "ta": "ta", "mr": "mr", "zh-cn": "zh", "fr": "fr"}.items()
}


def _sorry(row: Row, where: str, kind: PromptKind) -> Iterable[_Entry]:
    turns = row.get("turns")
    if not isinstance(turns, list) or not turns or not isinstance(turns[0], str) or not turns[0].strip():
        raise InputFileError(f"{where}: 'turns' holds no text")
    number = cell(row, "question_id", where)
    style = optional_cell(row, "prompt_style", where) or "base"
    language = _SORRY_LANGUAGES.get(style, "en")
    based = style == "base"
    known = based or style in _SORRY_PARAPHRASES or style in _SORRY_LANGUAGES
    yield _Entry(
        number if based else f"{number}-{style}",
        turns[0],
        kind,
        f"category-{optional_cell(row, 'category', where)}",
        language,
        repeats=None if based else number,
        skipped="" if known else SKIPPED_STYLE,
    )


_MULTIJAIL_LANGUAGES = ("zh", "it", "vi", "ar", "ko", "th", "bn", "sw", "jv")


def _multijail(row: Row, where: str, kind: PromptKind) -> Iterable[_Entry]:
    number, topic = cell(row, "id", where), _first_tag(row.get("tags"))
    yield _Entry(number, cell(row, "en", where), kind, topic)
    for language in _MULTIJAIL_LANGUAGES:
        text = optional_cell(row, language, where)
        if text.strip():
            yield _Entry(f"{number}-{language}", text, kind, topic, language, repeats=number)


def _first_tag(tags: object) -> str:
    """Of a list, or of one written as Python writes it."""
    if isinstance(tags, str) and tags.strip().startswith("["):
        try:
            tags = ast.literal_eval(tags.strip()[:2000])
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return ""
    first = tags[0] if isinstance(tags, list) and tags else tags
    return first if isinstance(first, str) else ""


FORMATS: Mapping[str, _Format] = {
    "xstest": _Format(frozenset({"id", "prompt", "type"}), _xstest),
    "strongreject": _Format(
        frozenset({"forbidden_prompt", "category"}), _plain("forbidden_prompt", "category")
    ),
    "harmbench": _Format(
        frozenset({"Behavior", "FunctionalCategory", "SemanticCategory", "BehaviorID"}), _harmbench
    ),
    "jailbreakbench": _Format(
        frozenset({"Goal", "Behavior", "Category"}), _plain("Goal", "Category"), _by_name("harmful", "benign")
    ),
    "sorrybench": _Format(frozenset({"question_id", "category", "turns"}), _sorry),
    "multijail": _Format(frozenset({"id", "en", *_MULTIJAIL_LANGUAGES}), _multijail),
    "advbench": _Format(frozenset({"goal", "target"}), _plain("goal", None)),
    "orbench": _Format(
        frozenset({"prompt", "category"}), _plain("prompt", "category"), _by_name("toxic", "80k", "hard")
    ),
}
"""By name; the first whose columns a file has is taken."""
