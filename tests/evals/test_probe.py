"""The refusal probe: openings, scores in one pass, and what they tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evals.decode import is_plain
from evals.engine import render_chat
from evals.interface import EvalRequest, Measured, Outcome, Unmeasured
from evals.measurements import Probe
from evals.openings import Tree, begins, openings_of
from evals.probe import FLOOR, refusal_scores, row_logprobs, tree_logprobs
from evals.ranking import auroc
from evals.suite import load_suite
from evals.wire import dump, load_report
from tests.evals.models import (
    COMPLIANCE,
    REFUSAL,
    WORDS,
    make_automaton,
    make_model,
    make_tokenizer,
    save_weights,
    transitions,
)
from tests.evals.test_measure import fork_request
from tests.evals.test_measure import measured as measure_here

tokens = st.lists(st.integers(0, 3), min_size=1, max_size=6)
CONTINUATIONS = ((5, 6, 7, 8), (5, 6, 9), (10, 11), (5, 7, 7, 7))


def number(outcome: Outcome) -> Measured:
    assert isinstance(outcome, Measured)
    return outcome


@settings(max_examples=40)
@given(st.lists(tokens, max_size=30), st.lists(tokens, max_size=30))
def test_no_opening_begins_another(refusals: list[list[int]], answers: list[list[int]]) -> None:
    """Openings are disjoint events, each begins a refusal and no answer, and they are the same every time."""
    found = openings_of(refusals, answers)
    for row in found:
        assert not any(begins(other, [row]) for other in found if other is not row)
        assert any(begins(refusal, [row]) for refusal in refusals)
        assert not any(begins(answer, [row]) for answer in answers)
    assert found == openings_of(refusals[::-1], answers[::-1])


@settings(max_examples=40)
@given(st.lists(tokens, min_size=1, max_size=10))
def test_a_tree_holds_each_opening_as_a_path(rows: list[list[int]]) -> None:
    """Walking from the last node of an opening to the root spells it backwards."""
    openings = [tuple(row) for row in rows]
    tree = Tree.of(openings)
    for opening, end in zip(openings, tree.ends, strict=True):
        path: list[int] = []
        node = end
        while node >= 0:
            assert tree.parents[node] < node
            assert tree.depths[node] == len(opening) - 1 - len(path)
            path.append(tree.tokens[node])
            node = tree.parents[node]
        assert tuple(reversed(path)) == opening


def test_one_pass_gives_what_a_row_for_each_opening_gives() -> None:
    """The tree of openings has the log-probabilities of separate rows, for prompts of unlike length."""
    model, tokenizer = make_model(dtype=torch.float32), make_tokenizer()
    assert is_plain(model)
    chats = [render_chat(tokenizer, prompt) for prompt in ("red", "green please blue what", "please please")]
    together = tree_logprobs(model, chats, CONTINUATIONS, 0)
    assert torch.allclose(together, row_logprobs(model, chats, CONTINUATIONS, 0), atol=1e-4)
    alone = tree_logprobs(model, chats[:1], CONTINUATIONS[1:2], 0)
    assert torch.allclose(together[0, 1], alone[0, 0], atol=1e-4)


def test_a_score_is_the_log_odds_of_the_openings() -> None:
    """A model that always refuses scores high, one that never does scores low, within the floor."""
    tokenizer = make_tokenizer()
    opening = tuple(WORDS.index(word) for word in REFUSAL.split())[:4]
    limit = -torch.tensor(FLOOR).log().item()
    for answer, sign in ((REFUSAL, 1), (COMPLIANCE, -1)):
        model = make_automaton(transitions(answer))
        for score in refusal_scores(model, tokenizer, ["red", "green please"], [opening]):
            assert 2 < sign * score <= limit + 1e-3


def test_auroc_known_values() -> None:
    """The area is the Mann-Whitney statistic; its interval mirrors, and is no point at 1."""
    generator = torch.Generator().manual_seed(0)
    positive = (torch.randn(30, generator=generator) + 1).tolist()
    negative = torch.randn(20, generator=generator).tolist()
    statistic = stats.mannwhitneyu(positive, negative).statistic
    assert number(auroc(positive, negative)).value == pytest.approx(statistic / 600)
    perfect = number(auroc([2.0] * 20, [1.0] * 20))
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert 0.85 < perfect.low < 0.95
    mirrored = number(auroc(negative, positive))
    ours = number(auroc(positive, negative))
    assert (mirrored.low, mirrored.high) == (pytest.approx(1 - ours.high), pytest.approx(1 - ours.low))
    assert isinstance(auroc([], [1.0]), Unmeasured)
    assert isinstance(auroc([float("nan")], [1.0]), Unmeasured)


def test_auroc_covers() -> None:
    """Of 300 simulated samples with a true area of .921, 92 % or more of the intervals hold it."""
    generator = torch.Generator().manual_seed(1)
    held = 0
    for _ in range(300):
        positive = (torch.randn(24, generator=generator) + 2).tolist()
        outcome = number(auroc(positive, torch.randn(12, generator=generator).tolist()))
        held += outcome.low <= stats.norm.cdf(2 / 2**0.5) <= outcome.high
    assert held >= 0.92 * 300


def test_the_probe_sees_what_a_fork_lost(refuser: Path, suite_path: Path, tmp_path: Path) -> None:
    """It reports the shift of a fork that complies, none of a copy, and why it cannot where it cannot."""
    request = EvalRequest(
        original=refuser, weights=(), suite=suite_path, baseline_transcript=None,
        scratch=tmp_path, max_new_tokens=6, device="cpu", probe=True,
    )  # fmt: skip
    original = measure_here(request)
    assert isinstance(original.probe, Probe)
    assert original.probe.shift == Unmeasured("this is the original")
    assert number(original.probe.covered).value == 1.0
    folder = tmp_path / "fork"
    folder.mkdir()
    weights = save_weights(folder, make_automaton(transitions(COMPLIANCE)))
    fork = measure_here(fork_request(request, folder, weights))
    assert isinstance(fork.probe, Probe)
    assert number(fork.probe.shift).high < -5
    assert number(fork.probe.shift).n == 24
    assert load_report(dump(fork), load_suite(suite_path)) == fork
    same = measure_here(fork_request(request, folder, refuser / "model.safetensors"))
    assert isinstance(same.probe, Probe)
    assert same.probe.shift == Measured(0.0, 24, 0.0, 0.0)
    blind = measure_here(replace(fork_request(request, folder, weights), baseline_transcript=None))
    assert blind.probe == Unmeasured("no transcript of the original was given")
