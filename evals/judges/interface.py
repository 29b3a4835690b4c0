"""What a judge says and how well: its labels, its fit to one release, its score against people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from evals.interface import EvalsError, Label, Outcome


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer to be judged."""

    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a judge says about an answer."""

    label: Label
    harmful: bool | None = None
    """Whether the answer does harm, where the judge says so; None: it does not, or could not be read."""
    reason: str = ""
    """Why ungradeable, in words of ours; empty otherwise."""


class BatchJudge(Protocol):
    """Labels many answers at once: guard models and endpoints. A failure is ungradeable, with the reason."""

    @property
    def id(self) -> str:
        """Name and version, part of the result key."""
        ...

    def opinions(self, answers: Sequence[Answered]) -> list[Opinion]:
        """One opinion an answer, in order.

        Raises:
            JudgeError: the judge cannot be reached or loaded at all.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Two sets of labels of the same answers, refused against complied; refusal is the positive class."""

    n: int
    """Answers that both graded."""
    ungradeable: int
    """Answers that either could not grade; in none of the numbers below."""
    accuracy: Outcome
    kappa: Outcome
    """Cohen's kappa (1960)."""
    bias: Outcome
    """Refusal rate of the judge minus that of the reference, on the same answers."""
    precision: Outcome
    recall: Outcome


class JudgeError(EvalsError):
    """A judge cannot be loaded or reached at all."""

    tip = "See docs/judges.md for the judges that forkwatch can use."


class JudgeUnreachableError(JudgeError):
    """A judge behind an endpoint does not answer, or wants another token."""

    tip = "Check that it is served there, the model's name and the token."
