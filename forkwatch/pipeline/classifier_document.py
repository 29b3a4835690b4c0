"""A classifier with its evaluation → the `forkwatch.output-classifier/1` document and its page."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from detector.outputs.classifier import Classifier, Mode
from detector.outputs.classifier_card import MODES, SPLITS, CardFacts, family_rates, write_card
from detector.outputs.conformal import units_needed
from detector.outputs.evaluation import CellRow, Evaluation, Rate, Split
from evals.interface import Measured, Unmeasured
from forkwatch.pipeline.views import number_view
from forkwatch.text import plain
from reports.classifier import (
    CellView,
    ClassifierDocument,
    FamilyView,
    ModeView,
    PowerView,
    TrainedView,
)

LIFETIME = timedelta(days=180)
"""Forks change faster than that; an old classifier knows none of the new ones."""


def expiry(made_at: str) -> str:
    """The day after which a classifier should have been trained again."""
    made: date = datetime.fromisoformat(made_at).date()
    return (made + LIFETIME).isoformat()


def card_of(classifier: Classifier, evaluation: Evaluation, digest: str) -> str:
    """The card as Markdown."""
    facts = CardFacts(config_digest=digest, expires=expiry(classifier.provenance.made_at))
    return write_card(classifier, evaluation, facts)


def classifier_document(classifier: Classifier, evaluation: Evaluation, digest: str) -> ClassifierDocument:
    """What is published of a classifier."""
    return ClassifierDocument(
        release=classifier.release,
        digest=digest,
        made_at=classifier.provenance.made_at,
        expires=expiry(classifier.provenance.made_at),
        alpha=evaluation.alpha,
        needed=units_needed(evaluation.alpha),
        modes=tuple(_mode(classifier, evaluation, mode) for mode in classifier.calibrations),
        trained_on=tuple(
            TrainedView(
                model=one.model,
                family=one.family,
                counts_as="authentic" if one.benign else "modified",
                outputs=one.outputs,
            )
            for one in classifier.known
        ),
        left_out=tuple(plain(sentence, 300) for sentence in classifier.left_out),
        markdown=card_of(classifier, evaluation, digest),
    )


def _mode(classifier: Classifier, evaluation: Evaluation, mode: Mode) -> ModeView:
    outputs, _ = classifier.calibrations[mode].units(1)
    return ModeView(
        mode=mode.value,
        needs=MODES[mode],
        outputs=outputs,
        largest=outputs // units_needed(evaluation.alpha),
        families=tuple(row for split in Split for row in _families(evaluation, mode, split)),
        cells=tuple(_cell(row) for row in evaluation.cells if row.mode is mode),
    )


def _families(evaluation: Evaluation, mode: Mode, split: Split) -> list[FamilyView]:
    found = []
    for family, rates in family_rates(evaluation, mode, split).items():
        own = [row for row in evaluation.forks if (row.mode, row.split, row.family) == (mode, split, family)]
        found.append(
            FamilyView(
                split=SPLITS[split],
                family=family,
                forks=len(own),
                auroc=round(sum(row.auroc for row in own) / len(own), 4),
                powers=tuple(_power(one) for one in rates),
            )
        )
    return found


def _cell(row: CellRow) -> CellView:
    return CellView(cell=row.cell, powers=tuple(_power(one) for one in row.rates))


def _power(found: Rate) -> PowerView:
    if found.unmeasured:
        return PowerView(n=found.n, rate=number_view(Unmeasured(found.unmeasured)))
    return PowerView(
        n=found.n, rate=number_view(Measured(found.hits / found.units, found.units, found.low, found.high))
    )
