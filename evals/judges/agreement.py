"""How well two sets of labels of the same answers agree: a judge against people, or two judges.

Refused against complied, refusal positive; an answer that either side could not grade is in no number but its
own. The same prompt answered by several models is one observation in many copies, so intervals over them draw
prompts, not rows (cluster bootstrap, percentiles); where every prompt occurs once, proportions get Wilson
intervals and the bias Newcombe's paired one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from evals.interface import Label, Measured, Outcome, Unmeasured
from evals.judges.interface import Agreement
from evals.metrics import Pairs, paired_difference, wilson

Counts = npt.NDArray[np.float64]
"""[..., 4]: refused by both, by the judge only, by the reference only, by neither."""

DRAWS = 2000
_CHUNK = 100
_ENOUGH = 0.95
"""Share of draws in which a number must exist for its interval to be given."""

LABELS: Final = tuple(Label)


@dataclass(frozen=True, slots=True)
class LabelPair:
    """One answer, labelled twice."""

    cluster: str
    """The prompt: answers to one prompt are drawn together."""
    reference: Label
    judged: Label


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of answers by (reference, judge), ungradeable included."""

    counts: tuple[tuple[int, ...], ...]
    """Rows: the reference; columns: the judge; both in the order of `LABELS`."""

    def at(self, reference: Label, judged: Label) -> int:
        """One cell."""
        return self.counts[LABELS.index(reference)][LABELS.index(judged)]


def confusion(pairs: Iterable[LabelPair]) -> Confusion:
    """Count every combination of labels."""
    counts = [[0] * len(LABELS) for _ in LABELS]
    for pair in pairs:
        counts[LABELS.index(pair.reference)][LABELS.index(pair.judged)] += 1
    return Confusion(tuple(map(tuple, counts)))


def agreement(pairs: Sequence[LabelPair], *, seed: int = 0) -> Agreement:
    """Accuracy, kappa, bias, precision and recall of a judge against a reference, with 95 % intervals.

    Args:
        pairs: One an answer.
        seed: Of the bootstrap.
    """
    graded = [pair for pair in pairs if Label.UNGRADEABLE not in (pair.reference, pair.judged)]
    table = _by_cluster(graded)
    independent = len(table) == len(graded)
    draws = _resampled(table, seed) if len(table) > 1 else np.zeros((0, 4))

    def measured(number: Callable[[Counts], Counts], empty: str) -> Outcome:
        return _bootstrapped(number, table, draws, empty)

    def share(hits: Callable[[Counts], Counts], among: Callable[[Counts], Counts], empty: str) -> Outcome:
        if independent:
            total = table.sum(axis=0)
            n = int(among(total))
            return wilson(int(hits(total)), n) if n else Unmeasured(empty)
        outcome = measured(lambda counts: _ratio(hits(counts), among(counts)), empty)
        return _share_of(outcome, table, among)

    nothing, one_label = "no answer was graded by both", "both gave one and the same label to all"
    return Agreement(
        n=len(graded),
        ungradeable=len(pairs) - len(graded),
        accuracy=share(_same, _all, nothing),
        kappa=_kappa_of(measured(_kappa, one_label if graded else nothing), table),
        bias=_paired_bias(table) if independent else _bias_of(measured(_bias, nothing), table),
        precision=share(_both, _judge_refused, "the judge saw no refusal"),
        recall=share(_both, _reference_refused, "the reference holds no refusal"),
    )


def _by_cluster(pairs: Sequence[LabelPair]) -> Counts:
    """[clusters, 4]."""
    rows: dict[str, list[float]] = {}
    for pair in pairs:
        judged, reference = pair.judged is Label.REFUSED, pair.reference is Label.REFUSED
        index = 0 if judged and reference else 1 if judged else 2 if reference else 3
        rows.setdefault(pair.cluster, [0.0] * 4)[index] += 1
    return np.array(list(rows.values()), dtype=np.float64).reshape(-1, 4)


def _resampled(table: Counts, seed: int) -> Counts:
    """Totals of `DRAWS` samples of the clusters with replacement, [DRAWS, 4]."""
    generator = np.random.default_rng(seed)
    even = np.full(len(table), 1 / len(table))
    parts = [generator.multinomial(len(table), even, size=_CHUNK) @ table for _ in range(DRAWS // _CHUNK)]
    return np.concatenate(parts)


def _bootstrapped(number: Callable[[Counts], Counts], table: Counts, draws: Counts, empty: str) -> Outcome:
    value = float(number(table.sum(axis=0)))
    if not np.isfinite(value):
        return Unmeasured(empty)
    if len(table) < 2:
        return Unmeasured("one prompt: an interval needs two")
    drawn = number(draws)
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < _ENOUGH * DRAWS:
        return Unmeasured(f"too few answers of one kind ({empty} in many draws)")
    low, high = (float(x) for x in np.quantile(drawn, (0.025, 0.975)))
    return Measured(value, int(table.sum()), min(low, value), max(high, value))


def _share_of(outcome: Outcome, table: Counts, among: Callable[[Counts], Counts]) -> Outcome:
    """With its own n. A share of 0 or 1 has an interval too, which no draw finds: Wilson's, over prompts."""
    if not isinstance(outcome, Measured):
        return outcome
    low, high = outcome.low, outcome.high
    if outcome.value in (0.0, 1.0):
        prompts = int((among(table) > 0).sum())
        bounds = wilson(prompts if outcome.value else 0, prompts)
        assert isinstance(bounds, Measured)
        low, high = bounds.low, bounds.high
    return Measured(outcome.value, int(among(table).sum()), low, high)


def _kappa_of(outcome: Outcome, table: Counts) -> Outcome:
    """Full agreement is not certain: below it lies what the accuracy could be, by Wilson over the prompts."""
    if not isinstance(outcome, Measured) or outcome.value < 1.0:
        return outcome
    bounds = wilson(len(table), len(table))
    assert isinstance(bounds, Measured)
    refused = float(_ratio(_reference_refused(table.sum(axis=0)), _all(table.sum(axis=0))))
    expected = refused**2 + (1 - refused) ** 2
    return Measured(1.0, outcome.n, (bounds.low - expected) / (1 - expected), 1.0)


def _bias_of(outcome: Outcome, table: Counts) -> Outcome:
    """Without any disagreement no draw finds one; each prompt then counts as one pair."""
    if not isinstance(outcome, Measured) or table[:, 1:3].any():
        return outcome
    refused = int((table[:, 0] > 0).sum())
    bounds = paired_difference(Pairs(refused, 0, 0, len(table) - refused))
    assert isinstance(bounds, Measured)
    return Measured(outcome.value, outcome.n, bounds.low, bounds.high)


def _paired_bias(table: Counts) -> Outcome:
    both, judge, reference, neither = (int(x) for x in table.sum(axis=0))
    return paired_difference(Pairs(both, judge, reference, neither))


def _ratio(hits: Counts, among: Counts) -> Counts:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(hits / among)


def _all(counts: Counts) -> Counts:
    return np.asarray(counts.sum(axis=-1))


def _both(counts: Counts) -> Counts:
    return np.asarray(counts[..., 0])


def _same(counts: Counts) -> Counts:
    return np.asarray(counts[..., 0] + counts[..., 3])


def _judge_refused(counts: Counts) -> Counts:
    return np.asarray(counts[..., 0] + counts[..., 1])


def _reference_refused(counts: Counts) -> Counts:
    return np.asarray(counts[..., 0] + counts[..., 2])


def _bias(counts: Counts) -> Counts:
    return _ratio(counts[..., 1] - counts[..., 2], _all(counts))


def _kappa(counts: Counts) -> Counts:
    """Agreement beyond chance (Cohen 1960): (observed - expected) / (1 - expected)."""
    n = _all(counts)
    judge, reference = _ratio(_judge_refused(counts), n), _ratio(_reference_refused(counts), n)
    expected = judge * reference + (1 - judge) * (1 - reference)
    return _ratio(_ratio(_same(counts), n) - expected, np.where(expected < 1, 1 - expected, np.nan))
