"""Known forks beside the head: what they find that it does not, the level, and when they take part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from detector.outputs.classifier import Classifier
from detector.outputs.comparable import cut
from detector.outputs.gather import Outputs, gather
from detector.outputs.heads import TEST as HEAD
from detector.outputs.heads import head_by_prompt, head_test
from detector.outputs.interface import Decision, ReferencePack, ScoredOutput
from detector.outputs.pack import samples_digest
from detector.outputs.ratios import TEST, common_forks, log_ratios, ratio_test, witnessed_by_prompt
from detector.outputs.table import held_back, split
from detector.outputs.training import train_parts
from tests.detector.outputs.speakers import AUTHENTIC, Speaker, speak
from tests.detector.outputs.test_classifier import a_pack

WEAK = 0.25
KNOWN: Mapping[str, Speaker] = {"org/sibling@1": Speaker(7, WEAK, 1), "org/stranger@1": Speaker(8, WEAK, 1)}
UNKNOWN = Speaker(7, WEAK, 2)
"""A weak fork that nobody has seen, changed mostly as a known one was."""


def a_witnessed_pack() -> ReferencePack:
    pack = a_pack(each=1)
    speakers = {"seed": AUTHENTIC, "temperature-0.8": Speaker(temperature=0.8)}
    samples = tuple(
        replace(one, scored=tuple(speak(speakers[one.cell], 20, 1 + number, known=KNOWN)))
        if one.model == "authentic"
        else one
        for number, one in enumerate(pack.samples)
    )
    return replace(pack, samples=samples)


PACK = a_witnessed_pack()


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    learned = train_parts(PACK, split(PACK))
    return replace(learned, provenance=replace(learned.provenance, pack=samples_digest(PACK)))


def test_level_and_power_on_a_sibling_of_a_known_fork(classifier: Classifier) -> None:
    """60 sets of 20: 4 alarms have probability 0.3 % at 1 %; the head alone finds few of the weak forks."""
    held, forks = held_back(PACK, 0)["seed"], tuple(sorted(KNOWN))
    plain = witnessed_by_prompt(classifier, held, forks)
    alone = head_by_prompt(classifier, held)

    def rejections(speaker: Speaker) -> tuple[int, int]:
        together = by_head = 0
        for seed in range(60):
            served = speak(speaker, 1, 1000 + seed, known=KNOWN)
            rows = witnessed_by_prompt(classifier, served, forks)
            together += ratio_test(plain, rows, permutations=499).decision is Decision.DIFFERENT
            found = head_test(alone, head_by_prompt(classifier, served), permutations=499)
            by_head += found.decision is Decision.DIFFERENT
        return together, by_head

    assert rejections(AUTHENTIC)[0] <= 3
    together, by_head = rejections(UNKNOWN)
    assert together >= by_head + 20


def test_it_takes_part_where_both_sides_have_the_scores(classifier: Classifier) -> None:
    served = speak(UNKNOWN, 2, 77, known=KNOWN)

    def tests(outputs: list[ScoredOutput]) -> tuple[str, bool]:
        found = gather(Outputs(scored=tuple(outputs)), PACK, alpha=0.01, classifier=classifier)
        (one,) = found.equality
        assert set(one.cells) == {"seed", "temperature-0.8"}
        return one.result.test, any("org/sibling@1" in said for said in found.caveats)

    assert tests(served) == (TEST, False)
    assert tests([replace(one, forks={}) for one in served]) == (HEAD, True)
    assert tests([replace(one, forks={"org/other@1": one.authentic.logp}) for one in served]) == (HEAD, True)


def test_answers_to_other_prompts_have_nothing_to_be_compared_with(classifier: Classifier) -> None:
    served = [
        replace(one, output=replace(one.output, prompt_id=f"other-{one.output.prompt_id}"))
        for one in speak(UNKNOWN, 2, 77, known=KNOWN)
    ]
    found = gather(Outputs(scored=tuple(served)), PACK, alpha=0.01, classifier=classifier)
    assert {one.result.decision for one in found.equality} == {Decision.INSUFFICIENT}


def test_a_bet_is_the_log_ratio_of_a_mixture() -> None:
    (one,) = speak(AUTHENTIC, 1, 3, prompts=[4], known=KNOWN)
    p, q = np.exp(one.authentic.logp.astype(float)), np.exp(one.forks["org/sibling@1"].astype(float))
    expected = [np.log((1 - share) + share * q / p).sum() for share in (0.05, 0.2, 0.5, 1.0)]
    assert log_ratios(one, ["org/sibling@1"]) == pytest.approx(expected)
    same = replace(one, forks={"copy": one.authentic.logp})
    assert log_ratios(same, ["copy"]) == pytest.approx([0.0] * 4)


def test_a_fork_that_scores_as_the_release_does_no_harm(classifier: Classifier) -> None:
    """A copy's ratios are all 0: the statistic is then the head's alone."""

    def copied(outputs: list[ScoredOutput]) -> list[ScoredOutput]:
        return [replace(one, forks={"copy": one.authentic.logp}) for one in outputs]

    reference, served = copied(speak(AUTHENTIC, 10, 1)), copied(speak(Speaker(9, 1.5, 1), 2, 2))
    rows = [witnessed_by_prompt(classifier, outputs, ["copy"]) for outputs in (reference, served)]
    assert ratio_test(*rows).decision is Decision.DIFFERENT


def test_only_forks_of_all_outputs_count_and_a_cut_answer_keeps_their_beginnings() -> None:
    one, other = speak(AUTHENTIC, 1, 3, prompts=[4, 5], known=KNOWN)
    partly = replace(other, forks={"org/stranger@1": other.forks["org/stranger@1"]})
    assert common_forks([one, other]) == ("org/sibling@1", "org/stranger@1")
    assert common_forks([one, partly]) == ("org/stranger@1",)
    assert common_forks([]) == ()
    short = cut(one, 7)
    assert {len(logp) for logp in short.forks.values()} == {7}
    assert len(log_ratios(short, common_forks([short]))) == 8
