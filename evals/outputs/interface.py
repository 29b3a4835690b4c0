"""What is asked of a child that draws answers or scores them, and what comes back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from detector.outputs.interface import Output, Sampling, TokenScores
from evals.interface import Isolation, Limits, Unmeasured
from evals.variants import Storage

if TYPE_CHECKING:
    from detector.outputs.interface import Floats

AUTHENTIC = "authentic"
"""What the original is called among models."""
NO_SYSTEM = hashlib.sha256(b"").hexdigest()
DEFAULT_LIMITS = Limits()


class Precision(StrEnum):
    """In which numbers a model computes."""

    STORED = "auto"
    """Those that the release is stored in."""
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


@dataclass(frozen=True, slots=True)
class Model:
    """A fork of the original: its weight files, or a PEFT adapter's folder. None: the original itself."""

    id: str
    """`org/name@commit`, or `AUTHENTIC`."""
    weights: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A setting in which a model is asked."""

    name: str
    """One of `detector.outputs.interface.NUISANCES`, or another."""
    temperature: float = 1.0
    top_p: float = 1.0
    system: str | None = None
    """System prompt. None: none, and the template does what it does without."""
    precision: Precision = Precision.STORED
    storage: Storage = Storage.ORIGINAL

    def sampling(self, max_tokens: int, *, temperature: float | None = None) -> Sampling:
        """What an output says of how it was drawn; at another temperature where one is given."""
        system = "" if self.system is None else self.system
        return Sampling(
            temperature=self.temperature if temperature is None else temperature,
            top_p=self.top_p if temperature is None else 1.0,
            system_sha256=hashlib.sha256(system.encode("utf-8", "replace")).hexdigest(),
            max_tokens=max_tokens,
        )


OTHER_SYSTEM = "You are a concise assistant of a public library. Answer in plain sentences."
"""The system prompt of the nuisance cell `system-prompt`."""

CELLS: Mapping[str, Cell] = {
    cell.name: cell
    for cell in (
        Cell(name="seed"),
        Cell(name="bf16", precision=Precision.BFLOAT16),
        Cell(name="fp32", precision=Precision.FLOAT32),
        Cell(name="int8", storage=Storage.INT8),
        Cell(name="temperature-0.8", temperature=0.8),
        Cell(name="temperature-1.2", temperature=1.2),
        Cell(name="top-p-0.9", top_p=0.9),
        Cell(name="system-prompt", system=OTHER_SYSTEM),
    )
}
"""Settings in which a release is asked, so that none of them alone makes an output look modified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one model is asked in one cell; nothing that is 0 or False is done."""

    model: str
    """Id of one of the request's models."""
    cell: Cell
    samples: int = 0
    """Answers a prompt, drawn as the cell says."""
    greedy: bool = False
    """One answer a prompt at temperature 0."""
    first: int = 0
    """Most likely tokens at the first position of the answer, with log-probabilities at temperature 1."""
    refusals: int = 0
    """Answers a harmful prompt, drawn as the cell says. They are judged in the child and not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectRequest:
    """Models, prompts and settings. The original is loaded once a precision."""

    original: Path
    models: tuple[Model, ...] = (Model(AUTHENTIC),)
    jobs: tuple[Job, ...]
    prompts: Mapping[str, str]
    """Id to text."""
    harmful: Mapping[str, str] = field(default_factory=dict)
    """Of refusal probes."""
    calibration: Path | None = None
    """How the built-in judge is fitted to the release."""
    scratch: Path
    max_new_tokens: int = 48
    refusal_tokens: int = 24
    seed: int = 0
    timeout_seconds: float = 3600.0
    device: str = "auto"
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What one job gave."""

    model: str
    cell: str
    samples: tuple[Output, ...]
    """In order of prompts, those of one prompt together."""
    greedy: Mapping[str, Output]
    first: Mapping[str, Mapping[str, float]]
    """Prompt id to tokens with log-probabilities."""
    refused: Mapping[str, tuple[bool | None, ...]]
    """Harmful prompt's id to what the judge says of each answer; None: ungradeable."""
    missing: Unmeasured | None
    """Why there is nothing, as where the fork does not fit."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectResult:
    """All jobs, in the order asked."""

    collected: tuple[Collected, ...]
    isolation: Isolation
    gaps: tuple[str, ...]
    device: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """Answers to score, teacher-forced, under the original and under forks of it."""

    original: Path
    answers: tuple[tuple[str, str], ...]
    """(prompt, answer)."""
    forks: tuple[Model, ...] = ()
    system: str | None = None
    """The system prompt that the authentic model would have."""
    precision: Precision = Precision.STORED
    max_tokens: int = 512
    """Of an answer; what comes after is not scored."""
    scratch: Path
    timeout_seconds: float = 3600.0
    device: str = "auto"
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreResult:
    """Scores of each answer, in the order asked."""

    authentic: tuple[TokenScores, ...]
    forks: Mapping[str, tuple[Floats, ...] | Unmeasured]
    """Fork id to log-probabilities of the same tokens; or why there are none."""
    isolation: Isolation
    gaps: tuple[str, ...]
    device: str
    seconds: float
