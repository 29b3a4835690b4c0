"""The classifier's head as the statistic of an exact test: level, power, and what it is compared with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from detector.outputs.classifier import Classifier
from detector.outputs.gather import Outputs, gather
from detector.outputs.heads import TEST, LogOdds, head_by_prompt, head_cells, head_test
from detector.outputs.interface import Decision
from detector.outputs.pack import NOT_SCORED, samples_digest
from detector.outputs.table import held_back, split
from detector.outputs.training import train_parts
from tests.detector.outputs.speakers import AUTHENTIC, Speaker, speak
from tests.detector.outputs.test_classifier import SHIFT, a_pack

PACK = a_pack(each=20)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    learned = train_parts(PACK, split(PACK))
    return replace(learned, provenance=replace(learned.provenance, pack=samples_digest(PACK)))


@pytest.fixture(scope="module")
def plain(classifier: Classifier) -> LogOdds:
    return head_cells(classifier, held_back(PACK, 0))["seed"]


def test_what_taught_the_head_is_not_what_it_is_compared_with() -> None:
    parts, held = split(PACK, 0), held_back(PACK, 0)
    assert dict(parts.calibration) == held
    authentic = sum(len(one.scored) for one in PACK.samples if one.model == "authentic")
    taught = int((parts.training.model == "authentic").sum())
    assert taught + sum(map(len, held.values())) == authentic


def test_level_and_power_on_a_family_that_it_has_not_seen(classifier: Classifier, plain: LogOdds) -> None:
    """60 sets of 40: 4 alarms have probability 0.3 % at 1 %; the unseen family is nearly always found."""

    def rejections(speaker: Speaker) -> int:
        found = 0
        for seed in range(60):
            served = head_by_prompt(classifier, speak(speaker, 2, 1000 + seed))
            found += head_test(plain, served, permutations=499).decision is Decision.DIFFERENT
        return found

    assert rejections(AUTHENTIC) <= 3
    assert rejections(Speaker(9, SHIFT, 1)) >= 50


def test_each_setting_has_a_head_of_its_own(classifier: Classifier) -> None:
    """Only against colder answers does coldness speak for the release; formats are the plain setting."""
    assert set(classifier.setting_heads) == {"seed", "temperature-0.8"}
    cold = speak(Speaker(temperature=0.8), 3, 4)
    against_plain, against_cold = (
        classifier.log_odds_in(cell, cold).mean()
        - classifier.log_odds_in(cell, speak(AUTHENTIC, 3, 5)).mean()
        for cell in ("seed", "temperature-0.8")
    )
    assert against_cold < against_plain
    assert (classifier.log_odds_in("int8", cold) == classifier.log_odds_in("seed", cold)).all()


def test_it_says_when_it_cannot_tell(classifier: Classifier, plain: LogOdds) -> None:
    one = head_by_prompt(classifier, speak(AUTHENTIC, 1, 5, prompts=[0]))
    assert head_test(plain, one).decision is Decision.INSUFFICIENT
    assert head_test(plain, {"other": (0.0,)}).decision is Decision.INSUFFICIENT
    unscored = [replace(each, authentic=NOT_SCORED) for each in speak(AUTHENTIC, 1, 5)]
    assert head_by_prompt(classifier, unscored) == {}


def test_a_classifier_of_this_pack_gives_the_test_on_scores_its_statistic(classifier: Classifier) -> None:
    served = Outputs(scored=tuple(speak(Speaker(9, SHIFT, 1), 3, 77)))

    def tests(known: Classifier) -> list[str]:
        return [one.result.test for one in gather(served, PACK, alpha=0.01, classifier=known).equality]

    assert tests(classifier) == [TEST]
    other = replace(classifier, provenance=replace(classifier.provenance, pack="sha256:" + "0" * 64))
    assert tests(other) == ["score-permutation"]
