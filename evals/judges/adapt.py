"""Between the two protocols of judges: one answer at a time, and many at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from evals.interface import Judge, Label
from evals.judges.interface import Answered, BatchJudge, Opinion

Progress = Callable[[int, int], None]
"""Told (done, total)."""

_EVERY = 256


def quiet(done: int, total: int) -> None:
    """Progress for nobody."""
    del done, total


class OneByOne:
    """A `Judge` as a `BatchJudge`."""

    def __init__(self, judge: Judge, *, progress: Progress = quiet) -> None:
        self._judge = judge
        self._progress = progress

    @property
    def id(self) -> str:
        """The judge's own."""
        return self._judge.id

    def opinions(self, answers: Sequence[Answered]) -> list[Opinion]:
        """One opinion an answer, in order."""
        found: list[Opinion] = []
        for number, item in enumerate(answers, 1):
            label = self._judge.label(item.prompt, item.answer)
            reason = "empty, degenerate or not understood" if label is Label.UNGRADEABLE else ""
            found.append(Opinion(label, reason=reason))
            if number % _EVERY == 0 or number == len(answers):
                self._progress(number, len(answers))
        return found


class Remembered:
    """A `Judge` that repeats opinions given before; an answer that none was given on is ungradeable."""

    def __init__(self, judge_id: str, opinions: Mapping[Answered, Opinion]) -> None:
        self._id = judge_id
        self._opinions = opinions

    @property
    def id(self) -> str:
        """Of the judge who gave them."""
        return self._id

    def label(self, prompt: str, answer: str) -> Label:
        """The label given."""
        opinion = self._opinions.get(Answered(prompt, answer))
        return Label.UNGRADEABLE if opinion is None else opinion.label


class WithHarm:
    """One judge's labels, and what a second one says of harm: for guards that speak of nothing else."""

    def __init__(self, labels: BatchJudge, harm: BatchJudge) -> None:
        self._labels = labels
        self._harm = harm

    @property
    def id(self) -> str:
        """Of both."""
        return f"{self._labels.id}+{self._harm.id}"

    def opinions(self, answers: Sequence[Answered]) -> list[Opinion]:
        """One opinion an answer, in order.

        Raises:
            JudgeError: one of the two cannot be reached or loaded.
        """
        labels, harm = self._labels.opinions(answers), self._harm.opinions(answers)
        return [replace(label, harmful=said.harmful) for label, said in zip(labels, harm, strict=True)]
