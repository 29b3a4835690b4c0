"""Whether a text speaks of a release: by its id, or by its name as people write it."""

from __future__ import annotations

import re
from functools import cache

from crawler.interface import RepoId

_VARIANT_WORDS = frozenset({"instruct", "chat", "it", "hf", "sft", "dpo"})
"""Endings of release names that forks drop: the forks of `Qwen3-8B-Instruct` are also called `Qwen3-8B-…`."""
_DATE = r"\d{4,8}"
"""A date at the end of a name, e.g. `2507`."""
_MIN_PARTS = 2
"""Never shorten a name below this: `tiny` alone finds half of the Hub."""


def name_stem(release: RepoId) -> str:
    """The part of a release's name that forks keep, e.g. `SmolLM2-135M` of `x/SmolLM2-135M-Instruct`."""
    parts = re.split(r"([-_ ])", release.partition("/")[2])
    while len(parts) > 2 * _MIN_PARTS and (
        parts[-1].casefold() in _VARIANT_WORDS or re.fullmatch(_DATE, parts[-1])
    ):
        parts = parts[:-2]
    return "".join(parts)


def spellings(stem: str) -> tuple[str, ...]:
    """Search terms for a stem: as it is, no hyphen before a number, underscores, no separators at all.

    The Hub searches ids for a substring, case aside, so each spelling needs its own query.
    """
    glued = re.sub(r"(?<=[A-Za-z])[-_ ](?=\d)", "", stem)
    forms = (stem, glued, re.sub(r"[- ]", "_", stem), re.sub(r"[-_ ]", "", stem))
    return tuple({form.casefold(): form for form in reversed(forms)}.values())[::-1]


def mentions(text: str, release: RepoId, *, whole: bool = False) -> bool:
    """Whether `text` names the release: its id, or its stem with any separators between the parts.

    Args:
        text: a name or a sentence.
        release: what is looked for.
        whole: the stem will not do, which a release and its own base often have in common.
    """
    name = release.partition("/")[2] if whole else name_stem(release)
    return release.casefold() in text.casefold() or bool(_pattern(name).search(text))


@cache
def _pattern(stem: str) -> re.Pattern[str]:
    parts = [re.escape(part) for part in re.split(r"[-_ .]", stem) if part]
    return re.compile(rf"(?<![A-Za-z0-9]){'[-_ .]?'.join(parts)}(?![A-Za-z0-9])", re.IGNORECASE)
