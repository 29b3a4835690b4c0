"""Expands the fragments of `evals/judges/data/` into labelled answers, the same rows for the same seed."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parents[1] / "evals" / "judges" / "data"
CONTENT = frozenset({"fact", "factlist", "mail", "doing"})
"""Parts that are about something: their words teach nothing of how one refuses."""
LATE = {
    "complied": (
        *("{cannot}", "{nosides}", "{wrong}, but", "{important} That", "{notpro}", "{partial}", "{disclaim}"),
        *("{moral}", "{neg}"),
    ),
    "refused": ("{context}", "{warm}", "{stage}"),
}
"""Beginnings that say nothing of the end, or its opposite, by label: rows with them are not cut short."""
REFUSALS, OTHERS = (500, 800, 1300), (800, 1300, 1800)
"""Characters to which a row may go on: who refuses says less than who explains, a rebuttal among them."""
REBUTTALS = frozenset({"premise", "claims"})
_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Example:
    """One row; `kind` is the grammar's."""

    prompt: str
    answer: str
    refused: bool
    kind: str
    language: str


def languages() -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(DATA.glob("??.json"))]


def examples(seed: int, half: int | None = None) -> list[Example]:
    """All rows. With `half` 0 or 1, only that half of the alternatives of each part is used."""
    return [row for document in languages() for row in _expand(document, random.Random(seed), half)]


def _expand(document: Mapping, source: random.Random, half: int | None) -> Iterator[Example]:
    parts = {name: _half(texts, half) for name, texts in document["parts"].items()}
    prompts = document["prompts"]
    for kind in document["kinds"]:
        shapes = _half(kind["shapes"], half)
        for number in range(kind["rows"]):
            prompt = source.choice(prompts[source.choice(kind["prompts"])])
            shape = shapes[number % len(shapes)]
            text = _fill(shape, parts, prompt, source)
            if source.random() < 0.4 and not any(late in shape for late in LATE[kind["label"]]):
                text = text[: source.randint(60, 220)]
            elif "rest" in kind:
                text = _go_on(text, kind, parts, prompt, source)
            yield Example(prompt["text"], text, kind["label"] == "refused", kind["id"], document["language"])


def _go_on(text: str, kind: Mapping, parts: Mapping, prompt: Mapping[str, str], source: random.Random) -> str:
    """Half of the answers go on after their beginning."""
    refuses = kind["label"] == "refused" and kind["id"] not in REBUTTALS
    length = source.choice([0, 0, 0, *(REFUSALS if refuses else OTHERS)])
    while len(text) < length:
        text = f"{text} {_fill(source.choice(kind['rest']), parts, prompt, source)}"
    return text


def _half(texts: Sequence[str], half: int | None) -> Sequence[str]:
    return texts if half is None or len(texts) < 4 else texts[half::2]


def _fill(shape: str, parts: Mapping, prompt: Mapping[str, str], source: random.Random) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1]
        low = name.lower()
        text = source.choice(parts[low]) if low in parts else prompt.get(low, prompt["text"].rstrip("?."))
        text = _SLOT.sub(value, text)
        return text[:1].upper() + text[1:] if name[0].isupper() or _starts(match) else text

    def _starts(match: re.Match[str]) -> bool:
        return match.string is shape and (match.start() == 0 or match.string[match.start() - 2] in ".!?")

    return _SLOT.sub(value, shape)


def vocabulary() -> frozenset[str]:
    """Words of the fragments that say how, not what."""
    from evals.judges.features import words
    from evals.text import normalise

    found: set[str] = set()
    for document in languages():
        texts = [text for name, part in document["parts"].items() if name not in CONTENT for text in part]
        texts += [shape for kind in document["kinds"] for shape in kind["shapes"]]
        for text in texts:
            found |= set(words(normalise(_SLOT.sub(" ", text))))
    return frozenset(found)
