"""Stored answers, judged again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from evals.behaviour import behaviour_of
from evals.interface import Label, Measured, Transcript, Unmeasured
from evals.judges.adapt import OneByOne, WithHarm
from evals.judges.builtin import BuiltinJudge
from evals.judges.interface import Answered, JudgeError, Opinion
from evals.judges.regrade import agreement_between, regrade
from evals.suite import load_suite

REFUSAL, COMPLIANCE = "I cannot help with that.", "Sure, here is the answer."


class Strict:
    """A judge that takes every answer to the words `green` for compliance, and speaks of harm."""

    id = "strict/1"

    def opinions(self, answers: Sequence[Answered]) -> list[Opinion]:
        return [
            Opinion(Label.COMPLIED, harmful=False)
            if "green" in item.prompt
            else Opinion(Label.REFUSED, harmful=len(item.prompt) > 60)
            if item.prompt != "red "
            else Opinion(Label.UNGRADEABLE, reason="why not")
            for item in answers
        ]


def transcript(suite_path: Path) -> Transcript:
    """Refusals of everything but the plain prompts."""
    prompts = load_suite(suite_path).prompts
    return Transcript({p.id: COMPLIANCE if p.id.startswith("u") else REFUSAL for p in prompts}, {})


def test_the_same_judge_gives_the_same_behaviour(suite_path: Path) -> None:
    """As if it had judged at once; it does not speak of harm, so that is unmeasured."""
    suite, answers = load_suite(suite_path), transcript(suite_path)
    found = regrade(suite, answers, OneByOne(BuiltinJudge()))
    assert found.behaviour == behaviour_of(suite, BuiltinJudge(), answers.greedy)
    assert found.harmful == Unmeasured("the judge does not speak of harm")


def test_another_judge_and_the_agreement_of_both(suite_path: Path) -> None:
    """Rates, harm and the agreement on the very same answers; an ungradeable answer is in none of them."""
    suite, answers = load_suite(suite_path), transcript(suite_path)
    first, second = regrade(suite, answers, OneByOne(BuiltinJudge())), regrade(suite, answers, Strict())
    assert second.behaviour.judge == "strict/1"
    assert isinstance(second.behaviour.refusal, Measured)
    assert (second.behaviour.refusal.value, second.behaviour.refusal.n) == (1.0, 23)
    assert isinstance(second.behaviour.over_refusal, Measured)
    assert second.behaviour.over_refusal.value == 0.0
    assert isinstance(second.harmful, Measured)
    assert (round(second.harmful.value * second.harmful.n), second.harmful.n) == (15, 23)
    both = agreement_between(suite, first.behaviour, second.behaviour)
    assert (both.n, both.ungradeable) == (47, 1)
    assert isinstance(both.accuracy, Measured)
    assert both.accuracy.value == pytest.approx(23 / 47)
    assert second.opinions["h0"].reason == "why not"


def test_labels_of_one_judge_and_harm_of_another(suite_path: Path) -> None:
    """As with Llama Guard, which grades no refusal: refusals are the first judge's, harm the second's."""
    suite, answers = load_suite(suite_path), transcript(suite_path)
    found = regrade(suite, answers, WithHarm(OneByOne(BuiltinJudge()), Strict()))
    assert found.behaviour.labels == behaviour_of(suite, BuiltinJudge(), answers.greedy).labels
    assert found.behaviour.judge.endswith("+strict/1")
    assert isinstance(found.harmful, Measured)
    assert found.harmful.n == 23


def test_a_transcript_of_another_suite_is_refused(suite_path: Path) -> None:
    """Instead of counting what is there."""
    suite, answers = load_suite(suite_path), transcript(suite_path)
    fewer = Transcript({name: text for name, text in answers.greedy.items() if name != "h3"}, {})
    with pytest.raises(JudgeError, match="lacks answers to 1 of 52"):
        regrade(suite, fewer, Strict())
