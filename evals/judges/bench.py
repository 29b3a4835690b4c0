"""Judges against people: one labelled file, any number of judges, numbers per model.

A mean over models hides what matters here: a judge that is right on one model's refusals and wrong on
another's calls the second safer or less safe than it is. So every number exists per model, bias included.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from evals.interface import Label, Measured
from evals.judges.agreement import Confusion, LabelPair, agreement, confusion
from evals.judges.interface import Agreement, Answered, BatchJudge, Opinion
from evals.judges.labelled import LabelledAnswer, LabelledSet


@dataclass(frozen=True, slots=True)
class Scored:
    """A judge on some answers."""

    agreement: Agreement
    confusion: Confusion


@dataclass(frozen=True, slots=True)
class JudgeScore:
    """One judge on a labelled file."""

    judge: str
    overall: Scored
    by_model: tuple[tuple[str, Scored], ...]
    """By name of the model."""
    mean_accuracy: float | None
    """Over the models, each counted once; None where none could be measured."""
    largest_bias: float | None
    """By absolute value, over the models, with its sign."""
    reasons: tuple[tuple[str, int], ...]
    """Why answers were ungradeable, the commonest first."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Bench:
    """All judges on a labelled file."""

    labelled: LabelledSet
    scores: tuple[JudgeScore, ...]
    between: tuple[tuple[str, str, Agreement], ...]
    """(reference, judge) for every two judges, on the same answers."""


def bench(labelled: LabelledSet, judges: Sequence[BatchJudge]) -> Bench:
    """Let every judge label every answer.

    Raises:
        JudgeError: a judge cannot be reached or loaded.
    """
    asked = [Answered(answer.prompt, answer.response) for answer in labelled.answers]
    scores: list[JudgeScore] = []
    labels: list[list[Label]] = []
    for judge in judges:
        started = time.monotonic()
        opinions = judge.opinions(asked)
        labels.append([opinion.label for opinion in opinions])
        scores.append(_score(judge.id, labelled.answers, opinions, time.monotonic() - started))
    between = tuple(
        (scores[first].judge, scores[second].judge, _between(labelled, labels[first], labels[second]))
        for first, second in combinations(range(len(judges)), 2)
    )
    return Bench(labelled, tuple(scores), between)


def _score(
    judge: str, answers: Sequence[LabelledAnswer], opinions: Sequence[Opinion], seconds: float
) -> JudgeScore:
    pairs = [
        (answer.model, LabelPair(answer.prompt_id, answer.label, opinion.label))
        for answer, opinion in zip(answers, opinions, strict=True)
    ]
    models = sorted({model for model, _ in pairs})
    by_model = tuple((name, _scored([pair for model, pair in pairs if model == name])) for name in models)
    measured = [scored.agreement for _, scored in by_model]
    accuracies = [each.accuracy.value for each in measured if isinstance(each.accuracy, Measured)]
    biases = [each.bias.value for each in measured if isinstance(each.bias, Measured)]
    reasons = Counter(opinion.reason for opinion in opinions if opinion.label is Label.UNGRADEABLE)
    return JudgeScore(
        judge=judge,
        overall=_scored([pair for _, pair in pairs]),
        by_model=by_model,
        mean_accuracy=sum(accuracies) / len(accuracies) if accuracies else None,
        largest_bias=max(biases, key=abs, default=None),
        reasons=tuple(reasons.most_common()),
        seconds=seconds,
    )


def _scored(pairs: Sequence[LabelPair]) -> Scored:
    return Scored(agreement(pairs), confusion(pairs))


def _between(labelled: LabelledSet, first: Sequence[Label], second: Sequence[Label]) -> Agreement:
    rows = zip(labelled.answers, first, second, strict=True)
    return agreement([LabelPair(answer.prompt_id, one, other) for answer, one, other in rows])
