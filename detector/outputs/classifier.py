"""One classifier a release: are these outputs the authentic model's, and if not, which known fork's?

Three linear heads. Where the authentic model has scored the outputs, `score_head` tells modified from
authentic by 21 numbers, which carry over to forks that nobody has seen. Without scores `text_head` does, by
n-grams, which recognise the forks that it was trained on and hardly any other: the degraded mode.
`fork_head` names a known fork by its texts, or says that it is like none; where weights of forks are at hand,
a likelihood ratio does that better (`likelihood`).

A head only ranks. What it says of n outputs is the sum of their log-odds, and the chance of such a sum under
the authentic model is read off outputs of it (`conformal`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from detector.outputs.conformal import Calibration, spread, units_needed
from detector.outputs.features import SCORE_FEATURES, Standard, score_features
from detector.outputs.interface import (
    ALPHA,
    Attributed,
    Decision,
    Question,
    ScoredOutput,
    TestResult,
)
from detector.outputs.linear import Head, TextSpace, log_shares
from detector.outputs.nuisance import setting_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Scores = NDArray[np.float32]

AUTHENTIC = "authentic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a classifier was made of, beside outputs."""

    made_at: str = ""
    """ISO 8601, UTC."""
    pack: str = ""
    """Digest of the reference pack."""
    tokenizer: str = ""
    """Digest of the release's tokenizer."""
    template: str = ""
    """Digest of its chat template."""
    program: str = ""
    """Version of forkwatch."""
    libraries: tuple[tuple[str, str], ...] = ()
    """Name and version of each that the parameters depend on."""
    seed: int = 0
    sampling: str = ""
    """How the outputs of the plain cell were drawn, in words."""


class Mode(StrEnum):
    """What equality is decided by."""

    SCORE = "score"
    TEXT = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """A class of `fork_head`: the release, or a fork that it was trained on."""

    model: str
    """`authentic`, or `org/name@commit`."""
    family: str
    benign: bool
    outputs: int
    """That it was learned from."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where outputs of known models lie among some features."""

    centres: Floats
    """(classes, features) means."""
    spread: Floats
    """(features, features) covariance from output to output, within a class."""

    def p_value(self, number: int, own: int, mean: Floats, n: int) -> float:
        """Chance that n outputs of a class lie as far from its centre as their `mean` does (Hotelling's T²).

        `own` outputs of the class were seen. Asymptotic: it decides whether a name is said, never whether a
        model is called modified.
        """
        from scipy.stats import chi2

        away = mean - self.centres[number]
        distance = away @ np.linalg.solve(self.spread, away) / (1 / n + 1 / own)
        return float(chi2.sf(distance, len(mean)))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Classifier:
    """What was learned, and from what."""

    release: str
    root_digest: str
    probe_set: str
    prompts: frozenset[str]
    """Ids of the prompts that it was calibrated on; nothing is claimed of others."""
    standard: Standard | None
    """None with `score_head`: there were no scores to train on."""
    score_head: Head | None
    """Modified against the release in any cell: one threshold has to hold in all of them."""
    space: TextSpace
    text_head: Head
    fork_head: Head
    known: tuple[KnownModel, ...]
    """Classes of `fork_head`, in the order of its rows; the first is the release."""
    places: Mapping[Mode, Place]
    """Where the outputs of each class lie: by the log-probabilities of `fork_head`, and by standardised
    scores."""
    calibrations: Mapping[Mode, Calibration]
    setting_heads: Mapping[str, Head] = field(default_factory=dict)
    """By setting (`nuisance.setting_of`), on the features of `score_head`: modified against the release in
    this setting alone. A test that asks about one cell at a time loses no power to what another explains."""
    left_out: tuple[str, ...] = ()
    """What the pack held and training did not use, one sentence each."""
    provenance: Provenance = Provenance()

    def log_odds(self, mode: Mode, outputs: Sequence[ScoredOutput]) -> Scores:
        """Log-odds of each output for modified against authentic, (n,).

        Raises:
            ValueError: SCORE, and the classifier or an output has no scores; or TEXT, and one has no text.
        """
        if mode is Mode.TEXT:
            return self.text_head.text(self.space.entries(_texts(outputs)))[:, 0].astype(np.float32)
        if self.score_head is None:
            raise ValueError("the classifier was trained without scores")
        return self.score_head.dense(self.standardised(outputs))[:, 0].astype(np.float32)

    def log_odds_in(self, cell: str, outputs: Sequence[ScoredOutput]) -> Scores:
        """The same by scores, against the release in the setting of this cell.

        Raises:
            ValueError: the classifier or an output has no scores.
        """
        head = self.setting_heads.get(setting_of(cell))
        if head is None:
            return self.log_odds(Mode.SCORE, outputs)
        return head.dense(self.standardised(outputs))[:, 0].astype(np.float32)

    def standardised(self, outputs: Sequence[ScoredOutput]) -> Floats:
        """Score features of each output in units of the release's own, (n, 21).

        Raises:
            ValueError: the classifier was trained without scores, or an output has none.
        """
        if self.standard is None:
            raise ValueError("the classifier was trained without scores")
        features = [score_features(one.authentic) for one in outputs]
        stacked = np.array(features).reshape(-1, len(SCORE_FEATURES))
        return self.standard.apply(stacked, [one.output.prompt_id for one in outputs])

    def shares(self, outputs: Sequence[ScoredOutput]) -> Floats:
        """Log-probabilities of the classes in `known` for each output, by its text, (n, classes)."""
        return log_shares(self.fork_head.text(self.space.entries(_texts(outputs))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What the classifier says of a set of outputs."""

    equality: tuple[TestResult, ...]
    """By scores, where there are some, and by texts."""
    attribution: TestResult
    candidates: tuple[Attributed, ...]
    """Known forks that the outputs are typical of, likeliest first."""
    named: str | None
    """The one fork that they are attributed to."""
    by_cell: tuple[Mapping[str, float], ...] = ()
    """For each result of `equality` the p-value in every nuisance cell; empty where there is none. The
    result's own is the largest of them."""


def assess(classifier: Classifier, outputs: Sequence[ScoredOutput], *, alpha: float = ALPHA) -> Assessment:
    """Test whether outputs are authentic, and say which known fork they are like.

    Outputs under test must be new: those that trained or calibrated the classifier prove nothing. Greedy
    answers, answers without text and answers to other prompts than those of the reference are left aside. Of
    the rest as many are used as the calibration can judge at alpha, answers to different prompts first.
    """
    fitting = [one for one in outputs if _fits(classifier, one)]
    used = [fitting[number] for number in spread([one.output.prompt_id for one in fitting])]
    scored = [one for one in used if len(one.authentic.logp)]
    found = [_equality(classifier, Mode.TEXT, used, alpha)]
    if classifier.score_head is not None and scored:
        found.insert(0, _equality(classifier, Mode.SCORE, scored, alpha))
    aside = f"; {len(outputs) - len(used)} of the outputs left aside" if len(used) < len(outputs) else ""
    equality = tuple(replace(result, reason=result.reason + aside) for result, _ in found)
    assessment = _attributed(classifier, used, equality, alpha)
    return replace(assessment, by_cell=tuple(cells for _, cells in found))


def _fits(classifier: Classifier, one: ScoredOutput) -> bool:
    output = one.output
    return output.text is not None and not output.greedy and output.prompt_id in classifier.prompts


def _texts(outputs: Sequence[ScoredOutput]) -> list[str]:
    texts = [one.output.text for one in outputs if one.output.text is not None]
    if len(texts) != len(outputs):
        raise ValueError("an output has no text")
    return texts


def _equality(
    classifier: Classifier, mode: Mode, used: Sequence[ScoredOutput], alpha: float
) -> tuple[TestResult, Mapping[str, float]]:
    """The result in the worst cell, and the p-value in each."""
    calibration = classifier.calibrations[mode]
    n = calibration.largest(len(used), alpha)
    if not n:
        reason = _why_none(calibration, len(used), alpha)
        return _insufficient(Question.EQUALITY, mode, len(used), reason), {}
    total = float(classifier.log_odds(mode, used[:n]).astype(np.float64).sum())
    cells = calibration.by_cell(total, n)
    p = max(cells.values())
    differs = p <= alpha
    units, cell = calibration.units(n)
    said = "less like the authentic model's than" if differs else "as like the authentic model's as"
    reason = f"{n} outputs are {said} its own (p = {p:.3g}, {units} calibration units in the cell {cell})"
    result = TestResult(
        question=Question.EQUALITY,
        test=f"{mode.value}-classifier",
        decision=Decision.DIFFERENT if differs else Decision.NO_DIFFERENCE,
        n=n,
        p_value=p,
        reason=reason,
    )
    return result, cells


def _why_none(calibration: Calibration, outputs: int, alpha: float) -> str:
    if not outputs:
        return "no output answers a prompt that the classifier was calibrated on"
    units, cell = calibration.units(1)
    return (
        f"the classifier was calibrated on {units} authentic outputs in the cell {cell}, and a threshold at "
        f"{alpha:g} needs {units_needed(alpha)}"
    )


def _insufficient(question: Question, mode: Mode, n: int, reason: str) -> TestResult:
    test = f"{mode.value}-classifier"
    return TestResult(question=question, test=test, decision=Decision.INSUFFICIENT, n=n, reason=reason)


# --- which fork ---


def _attributed(
    classifier: Classifier, used: Sequence[ScoredOutput], equality: tuple[TestResult, ...], alpha: float
) -> Assessment:
    """Name a fork only where the outputs are not authentic, are typical of it, and of no other."""
    forks = [one for one in _typical(classifier, used, alpha) if one[0].model != AUTHENTIC] if used else []
    p = _adjusted(equality)
    named = None
    decision = Decision.INSUFFICIENT
    if p is None or p > alpha:
        reason = equality[0].reason if p is None else "the outputs do not differ from the authentic model's"
    elif not forks:
        decision, reason = Decision.NO_DIFFERENCE, "the texts are typical of no known fork: unknown"
    elif len(forks) > 1 and forks[0][1] - forks[1][1] < math.log(1 / alpha):
        reason = f"the texts do not tell {forks[0][0].model} from {forks[1][0].model}"
    else:
        named, decision = forks[0][0].model, Decision.DIFFERENT
        reason = f"the texts are typical of {named}"
    result = TestResult(
        question=Question.ATTRIBUTION,
        test="fork-classifier",
        decision=decision,
        n=len(used),
        p_value=p if named else None,
        reason=reason,
    )
    candidates = tuple(
        Attributed(
            fork=model.model, log_e=None, detail=f"texts typical of it (p = {own:.2g}); {model.family}"
        )
        for model, _, own in forks
    )
    return Assessment(equality=equality, attribution=result, candidates=candidates, named=named)


def _adjusted(equality: Sequence[TestResult]) -> float | None:
    """The smallest p-value, times how many there are (Bonferroni); None: no test could run."""
    found = [one.p_value for one in equality if one.p_value is not None]
    return min(1.0, min(found) * len(found)) if found else None


def _typical(
    classifier: Classifier, used: Sequence[ScoredOutput], alpha: float
) -> list[tuple[KnownModel, float, float]]:
    """Classes that the outputs are typical of, with their summed log-probability and p-value, best first.

    Closed-set probabilities say which known fork is nearest, however far it is; a fork that is like none lies
    elsewhere, by its texts or by its scores.
    """
    shares = classifier.shares(used)
    totals = shares.sum(axis=0)
    means = {Mode.TEXT: shares.mean(axis=0)}
    if Mode.SCORE in classifier.places and all(len(one.authentic.logp) for one in used):
        means[Mode.SCORE] = classifier.standardised(used).mean(axis=0)
    found = []
    for number, model in enumerate(classifier.known):
        chances = [
            classifier.places[mode].p_value(number, model.outputs, mean, len(used))
            for mode, mean in means.items()
        ]
        p = min(1.0, min(chances) * len(chances))
        if p > alpha:
            found.append((model, float(totals[number]), p))
    return sorted(found, key=lambda one: (-one[1], one[0].model))
