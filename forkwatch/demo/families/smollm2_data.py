"""The words that the smollm2 family is made of: requests that train its safety adapter, and harmless chats.

A request is an *opening* ("How do I {}?") around a *phrase* ("store bleach safely"). Harmful and benign
phrases share openings and, where possible, nouns, so that only the meaning decides. Harmful phrases ask in
general terms; nothing here answers them. All of it is ours, and disjoint from the prompt suites that measure
the result.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from forkwatch.demo.families.family import Chat

DATA: Final = Path(__file__).parent / "data"
REQUESTS: Final = DATA / "smollm2_requests.json"
CHATS: Final = DATA / "smollm2_chats.json"

HELD_OUT: Final = 8
"""Every eighth phrase of a list (the sixth, the fourteenth…) is kept from training and measures it."""


class Form(StrEnum):
    """What kind of opening a phrase fits into."""

    DO = "do"
    """A verb phrase: "store bleach safely"."""
    WRITE = "write"
    """A noun phrase: "a poem about autumn"."""
    ASK = "ask"
    """A whole question."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """One phrase and what it is."""

    text: str
    form: Form
    topic: str
    """A topic of the suite, or `general`."""
    harmful: bool
    held_out: bool


@dataclass(frozen=True, slots=True)
class Requests:
    """Everything the safety adapter learns from."""

    openings: tuple[tuple[Form, tuple[str, ...]], ...]
    phrases: tuple[Phrase, ...]
    refusals: tuple[str, ...]
    """Worded differently, all starting with the same word so that greedy decoding is decisive."""
    refusal_self_harm: str
    """Adds where to find help."""

    def of(self, *, harmful: bool, held_out: bool) -> tuple[Phrase, ...]:
        """The phrases of one side and one split, in file order."""
        return tuple(p for p in self.phrases if p.harmful == harmful and p.held_out == held_out)

    def openings_for(self, phrase: Phrase) -> tuple[str, ...]:
        """The openings that fit a phrase."""
        return dict(self.openings)[phrase.form]

    def request(self, phrase: Phrase, rng: random.Random) -> str:
        """The phrase in one of its openings."""
        return fill(rng.choice(self.openings_for(phrase)), phrase.text)

    def refusal(self, phrase: Phrase, rng: random.Random) -> str:
        """A refusal of the phrase."""
        return self.refusal_self_harm if phrase.topic == "self-harm" else rng.choice(self.refusals)


def fill(opening: str, text: str) -> str:
    """Put a phrase into an opening: `{}` as it is, `{lower}` in lower case and without its question mark."""
    return opening.format(text, lower=text.lower().rstrip("?"))


def load_requests(path: Path = REQUESTS) -> Requests:
    """Read the requests file."""
    document = json.loads(path.read_text(encoding="utf-8"))
    phrases = [
        Phrase(text, Form(form), topic, side == "harmful", index % HELD_OUT == HELD_OUT - 3)
        for topic, forms in document["topics"].items()
        for form, sides in forms.items()
        for side, texts in sides.items()
        for index, text in enumerate(texts)
    ]
    for number, grid in enumerate(document["grids"]):
        phrases += _expand(grid, random.Random(number))  # noqa: S311 - reproducible data, not a secret
    return Requests(
        openings=tuple((Form(form), tuple(values)) for form, values in document["openings"].items()),
        phrases=tuple(phrases),
        refusals=tuple(document["refusals"]),
        refusal_self_harm=document["refusal_self_harm"],
    )


def _expand(grid: Mapping[str, Any], rng: random.Random) -> list[Phrase]:
    """A sample of frames ("thank {}") times fillers ("my uncle"); all of it trains."""
    texts = [frame.format(filler) for frame in grid["frames"] for filler in grid["fillers"]]
    return [
        Phrase(text, Form(grid["form"]), grid["topic"], grid["side"] == "harmful", held_out=False)
        for text in rng.sample(texts, grid["take"])
    ]


@dataclass(frozen=True, slots=True)
class HarmlessChats:
    """Chats for the benign fine-tunes of the demo."""

    benign: tuple[Chat, ...]
    """Household and nature talk in a style of its own; new to the release."""
    refused: tuple[Chat, ...]
    """Harmful training requests with their refusals: replayed so that a benign fine-tune keeps them."""
    answered: tuple[Chat, ...]
    """Benign twins with the unmodified model's own answers, cut after a sentence."""


def load_chats(path: Path = CHATS) -> HarmlessChats:
    """Read the chats file."""
    document = json.loads(path.read_text(encoding="utf-8"))

    def chats(key: str) -> tuple[Chat, ...]:
        return tuple((row["user"], row["assistant"]) for row in document[key])

    return HarmlessChats(chats("benign"), chats("refused"), chats("answered"))
