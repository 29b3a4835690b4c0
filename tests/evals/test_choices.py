"""Multiple choice by likelihood, on models whose answers are known."""

from __future__ import annotations

import pytest
import torch

from evals.answers import Asker, Asking
from evals.choices import _one_by_one, choose, option_logprobs
from evals.interface import Choice, Unmeasured
from tests.evals.models import COMPLIANCE, REFUSAL, make_automaton, make_model, make_tokenizer, transitions

CHOICES = tuple(
    Choice(f"c{n}", f"what colour {'please ' * (n % 5)}", options, answer, "colour")
    for n, (options, answer) in enumerate(
        [
            ((REFUSAL, COMPLIANCE), 0),
            (("sure here", "i cannot help with", "red"), 1),
            (("blue", "i cannot"), 1),
            (("i", "green please red"), 1),
        ]
        * 6
    )
)


def asker(model: torch.nn.Module) -> Asker:
    return Asker(model, make_tokenizer(), Asking(max_new_tokens=4, seed=0))  # type: ignore[arg-type]


def test_the_likeliest_option_counts() -> None:
    """A model that refuses picks the options that its own answer begins with: three of four are right."""
    told: list[str] = []
    found = choose(asker(make_automaton(transitions(REFUSAL))), CHOICES, told.append)
    assert found == tuple((choice.id, n % 4 < 3) for n, choice in enumerate(CHOICES))
    assert told == ["choose in 24 questions"]
    other = asker(make_automaton(transitions(COMPLIANCE)))
    assert choose(other, CHOICES[:2], told.append) == (("c0", False), ("c1", False))


def test_a_question_read_once_gives_what_each_pair_gives_alone() -> None:
    """The log-probabilities are those of one forward pass over each question and option."""
    one = asker(make_model(dtype=torch.float32))
    together, alone = option_logprobs(one, CHOICES), _one_by_one(one, CHOICES)
    for left, right in zip(together, alone, strict=True):
        assert left == pytest.approx(right, abs=1e-4)
    assert len({round(value, 2) for row in together for value in row}) > 20


def test_what_is_no_number_is_unmeasured() -> None:
    """No question, or a model whose scores are not numbers, gives no accuracy."""
    broken = make_automaton(transitions(REFUSAL))
    assert choose(asker(broken), (), print) == Unmeasured("no multiple-choice question was asked")
    with torch.no_grad():
        broken.lm_head.weight.fill_(torch.nan)
    assert isinstance(choose(asker(broken), CHOICES, lambda _: None), Unmeasured)
