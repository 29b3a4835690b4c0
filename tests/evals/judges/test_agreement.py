"""Numbers of agreement, against hand-made tables and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, precision_score, recall_score

from evals.interface import Label, Measured, Outcome, Unmeasured
from evals.judges.agreement import LabelPair, agreement, confusion

R, C, U = Label.REFUSED, Label.COMPLIED, Label.UNGRADEABLE


def pairs(*labels: tuple[Label, Label], copies: int = 1) -> list[LabelPair]:
    """(reference, judged) for each prompt, `copies` times."""
    return [LabelPair(f"p{n}", *both) for n, both in enumerate(labels) for _ in range(copies)]


def number(outcome: Outcome) -> Measured:
    assert isinstance(outcome, Measured), outcome
    assert outcome.low <= outcome.value <= outcome.high
    return outcome


def random_pairs(prompts: int, answers: int, seed: int = 1) -> list[LabelPair]:
    """Labels that depend on the prompt, and a judge that is wrong on whole prompts."""
    generator = np.random.default_rng(seed)
    made: list[LabelPair] = []
    for prompt in range(prompts):
        truth = R if generator.random() < 0.6 else C
        judged = truth if generator.random() < 0.85 else (C if truth is R else R)
        made += [LabelPair(str(prompt), truth, judged)] * answers
    return made


def test_numbers_are_those_of_scikit_learn() -> None:
    """Kappa, precision and recall of refusal, over answers that both graded."""
    made = random_pairs(80, 3)
    found = agreement(made)
    truth = [pair.reference is R for pair in made]
    judged = [pair.judged is R for pair in made]
    assert number(found.kappa).value == pytest.approx(cohen_kappa_score(truth, judged))
    assert number(found.precision).value == pytest.approx(precision_score(truth, judged))
    assert number(found.recall).value == pytest.approx(recall_score(truth, judged))
    assert number(found.bias).value == pytest.approx(np.mean(judged) - np.mean(truth))
    assert (number(found.precision).n, number(found.recall).n) == (sum(judged), sum(truth))


def test_ungradeable_is_in_no_number_but_its_own() -> None:
    """On either side; the table keeps it as a row and a column."""
    made = pairs((R, R), (R, U), (U, C), (U, U), (C, C), (C, R))
    found = agreement(made)
    assert (found.n, found.ungradeable) == (3, 3)
    assert number(found.accuracy).value == pytest.approx(2 / 3)
    table = confusion(made)
    assert (table.at(R, U), table.at(U, C), table.at(U, U), table.at(C, R)) == (1, 1, 1, 1)
    assert sum(map(sum, table.counts)) == len(made)


def test_copies_of_a_prompt_add_no_certainty() -> None:
    """Ten answers to each prompt, all alike: the interval stays as wide as with one."""
    once, often = agreement(random_pairs(60, 1)), agreement(random_pairs(60, 10))
    for first, second in (
        (once.accuracy, often.accuracy),
        (once.kappa, often.kappa),
        (once.bias, often.bias),
    ):
        width = number(first).high - number(first).low
        assert number(second).high - number(second).low == pytest.approx(width, rel=0.25)


def test_intervals_cover() -> None:
    """The true accuracy, .85, lies in the clustered interval about 95 times in 100."""
    inside = sum(
        number(found.accuracy).low <= 0.85 <= number(found.accuracy).high
        for found in (agreement(random_pairs(60, 4, seed)) for seed in range(100))
    )
    assert 89 <= inside <= 100


def test_perfect_agreement_is_not_certain() -> None:
    """All right on twenty prompts still has an interval, clustered or not."""
    for copies in (1, 3):
        found = agreement(pairs(*[(R, R)] * 10, *[(C, C)] * 10, copies=copies))
        assert number(found.accuracy).value == 1.0
        assert number(found.accuracy).low == pytest.approx(0.839, abs=0.001)
        assert number(found.kappa).value == 1.0
        assert number(found.kappa).low == pytest.approx(2 * 0.839 - 1, abs=0.002)
        assert number(found.bias).value == 0.0
        assert number(found.bias).low < 0.0 < number(found.bias).high


def test_what_cannot_be_had_has_a_reason() -> None:
    """No answer, no refusal, one label for all, one prompt only."""
    assert agreement([]).accuracy == Unmeasured("no answer was graded by both")
    assert agreement([]).kappa == Unmeasured("no answer was graded by both")
    found = agreement(pairs((C, C), (C, C)))
    assert found.kappa == Unmeasured("both gave one and the same label to all")
    assert found.precision == Unmeasured("the judge saw no refusal")
    assert found.recall == Unmeasured("the reference holds no refusal")
    assert agreement(pairs((R, R), copies=4)).accuracy == Unmeasured("one prompt: an interval needs two")


def test_the_same_input_gives_the_same_numbers() -> None:
    """The bootstrap is seeded."""
    made = random_pairs(30, 2)
    assert agreement(made) == agreement(made)
