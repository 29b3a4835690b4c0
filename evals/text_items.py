"""What is asked about texts, and what is answered: likelihoods and greedy continuations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evals.interface import Isolation, Limits


@dataclass(frozen=True, slots=True)
class Continuation:
    """How likely is `text` after `context`, and is it what the model would say?"""

    context: str
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """How likely is a whole text?"""

    text: str


@dataclass(frozen=True, slots=True)
class Completion:
    """How does a text go on, greedily, up to the first of the strings in `until`?"""

    context: str
    until: tuple[str, ...]
    max_new_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextItems:
    """What is asked. The three kinds are kept apart: each has another kind of answer."""

    continuations: tuple[Continuation, ...] = ()
    documents: tuple[Document, ...] = ()
    completions: tuple[Completion, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TextAnswers:
    """Answers in the order of the items."""

    continuations: tuple[tuple[float, bool], ...] = ()
    """(log-probability in nats, whether every token of it is the likeliest)."""
    documents: tuple[float, ...] = ()
    """Log-probability in nats."""
    completions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRequest:
    """What to ask whom. Config and tokenizer come from `original`."""

    original: Path
    """Folder of the verified release."""
    weights: tuple[Path, ...]
    """The fork's weight files; empty = the original."""
    items: Path
    """JSON file of `TextItems`."""
    scratch: Path
    timeout_seconds: float = 900.0
    device: str = "auto"
    limits: Limits = Limits()  # noqa: RUF009 - frozen


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReport:
    """The child's one line; the answers are in its file."""

    isolation: Isolation
    device: str
    misfit: str = ""
    """Why nothing was answered: the fork does not fit the original."""
    gaps: tuple[str, ...] = ()
