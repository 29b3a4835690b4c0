"""A classifier answers where nothing better is at hand, and stands back where there is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from detector.outputs.classifier import Classifier
from detector.outputs.gather import Outputs, gather
from detector.outputs.interface import OutputLabel
from detector.outputs.label import classify
from detector.outputs.table import split
from detector.outputs.training import train_parts
from tests.detector.outputs.speakers import AUTHENTIC, speak
from tests.detector.outputs.test_classifier import FORKS, a_pack, outputs_of

PACK = a_pack()


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return train_parts(PACK, split(PACK))


def ran(outputs: Outputs, classifier: Classifier, *, with_pack: bool) -> list[str]:
    found = gather(outputs, PACK if with_pack else None, alpha=0.01, classifier=classifier)
    return [one.result.test for one in (*found.equality, *found.attribution)]


def test_a_classifier_alone_tests_equality_and_attribution(classifier: Classifier) -> None:
    authentic = tuple(speak(AUTHENTIC, 3, 98))
    scored, texts = Outputs(scored=authentic), Outputs(others=tuple(one.output for one in authentic))
    assert ran(scored, classifier, with_pack=False) == ["score-classifier", "fork-classifier"]
    assert ran(texts, classifier, with_pack=False) == ["text-classifier", "fork-classifier"]
    found = gather(texts, None, alpha=0.01, classifier=classifier)
    assert found.cells == {"seed", "temperature-0.8"}
    assert found.n_used == len(authentic)
    assert classify(found).label in {OutputLabel.AUTHENTIC, OutputLabel.INSUFFICIENT}


def test_samples_and_ratios_go_before_the_classifier(classifier: Classifier) -> None:
    """So that the level is shared among as few tests as can be."""
    fork = next(iter(FORKS))
    rows = tuple(outputs_of(fork, 60, 99))
    assert ran(Outputs(scored=rows), classifier, with_pack=True) == [
        "score-permutation",
        "fork-classifier",
    ]
    ratios = tuple(replace(one, forks={fork: one.authentic.logp}) for one in rows)
    assert ran(Outputs(scored=ratios), classifier, with_pack=True) == [
        "score-permutation",
        "likelihood-ratio",
    ]
