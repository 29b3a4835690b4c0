"""Refusals that a fork can be expected to have lost, from its weights: who is measured first, and a warning.

Forks of a release whose refusals *were* measured say how much their changes cost; a ridge regression on what
the weights show carries that over to forks that were not. Its inputs are the numbers of the published
document, so that a fork's name, card and tags count for nothing.

It is refitted from the store whenever it is asked, which takes milliseconds: nothing is kept that could go
stale, and the same store gives the same forecast. It says how wrong it is on each observed change when that
one is left out, and says nothing unless that beats the mean. No verdict and no finding comes from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean

from detector.interface import VALUE_PRESERVING, EditKind
from reports.scan import ForecastView, NumberView, RateView, ScanDocument, UnmeasuredView

MIN_OBSERVED = 8
"""Distinct changes with measured refusals; the error left out from fewer means nothing itself."""
PENALTY = 3.0
"""Ridge penalty on standardised inputs. There are more inputs than observations; this is as much weight as
three further observations that say "no effect"."""

Features = Mapping[str, float]

_KINDS = (
    EditKind.DIRECTIONAL_EDIT,
    EditKind.LOW_RANK_MERGE,
    EditKind.FULL_FINETUNE,
    EditKind.PARTIAL_FINETUNE,
    EditKind.MERGE,
    EditKind.SPARSE_PATCH,
)
_WRITERS = {"o_proj": "attention-out", "out_proj": "attention-out", "down_proj": "feed-forward-out"}


@dataclass(frozen=True, slots=True)
class Predictor:
    """A fitted forecast: loss ≈ mean + Σ coefficient · (value − centre) / scale."""

    mean: float
    coefficients: Mapping[str, tuple[float, float, float]]
    """Input → coefficient, centre and scale."""
    n: int
    """Distinct changes it was fitted on."""
    error: float
    """Root mean square error on each of them, fitted on the others."""
    guess: float
    """The same of their mean."""

    def loss(self, features: Features) -> float:
        """Expected share of refusals lost, −1 to 1. An input that is not known counts as average."""
        total = self.mean
        for name, (coefficient, centre, scale) in self.coefficients.items():
            if name in features:
                total += coefficient * (features[name] - centre) / scale
        return min(1.0, max(-1.0, total))


@dataclass(frozen=True, slots=True)
class NoPredictor:
    """There is none, and why."""

    reason: str


def features(document: ScanDocument) -> Features:
    """What the weights of a fork show, as far as it was looked at; empty when nothing was."""
    found: dict[str, float] = {}
    kinds = {edit.kind for edit in document.edits}
    named = bool(kinds) and str(EditKind.UNKNOWN) not in kinds
    ranks = [edit.detail["rank"] for edit in document.edits if "rank" in edit.detail]
    # What was not named may be any kind: only then is its absence no news.
    found |= {f"kind:{kind}": float(str(kind) in kinds) for kind in _KINDS if named or str(kind) in kinds}
    if named or ranks:
        found["rank"] = max((math.log2(1 + rank) for rank in ranks if isinstance(rank, int)), default=0.0)
    if document.heatmap is not None:
        found |= _norms(document.heatmap.modules, document.heatmap.values)
    intent = document.intent
    if intent.alignment is not None and intent.expected is not None and intent.p_value is not None:
        found["alignment"] = intent.alignment - intent.expected
        found["evidence"] = -math.log10(max(intent.p_value, 1e-9))
        found["energy"] = intent.energy or 0.0
        found["write-change"] = intent.write_change or 0.0
    return found


def _norms(modules: tuple[str, ...], rows: tuple[tuple[float | None, ...], ...]) -> Features:
    """Mean relative norm of the change by where its output goes, log₁₀ above 10⁻⁶."""
    groups: dict[str, list[float]] = {}
    for index, module in enumerate(modules):
        values = [row[index] for row in rows]
        groups.setdefault(_WRITERS.get(module, "inside"), []).extend(v for v in values if v is not None)
    return {f"norm:{name}": math.log10(1e-6 + fmean(values)) + 6 for name, values in groups.items() if values}


def observed(document: ScanDocument) -> float | None:
    """Share of refusals that were lost, if it was measured on changed weights."""
    refusal = document.safety.refusal
    kinds = {edit.kind for edit in document.edits}
    if not isinstance(refusal.original, RateView) or not isinstance(refusal.fork, RateView):
        return None
    if document.intent.status == "not-measured" or not kinds:
        return None
    return refusal.original.rate - refusal.fork.rate


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a forecast needs of a document."""

    features: Features
    """See `features`."""
    observed: float | None
    """See `observed`."""
    reason: str
    """Why no loss is to be forecast; empty when one is."""


def evidence(document: ScanDocument) -> Evidence:
    """Collect it."""
    reason = ""
    if isinstance(document.safety.refusal.fork, RateView):
        reason = "its refusals were measured"
    elif document.intent.status == "not-measured":
        reason = document.intent.reason or "its change was not compared with the original's refusals"
    return Evidence(features(document), observed(document), reason)


def fit(documents: Iterable[ScanDocument]) -> Predictor | NoPredictor:
    """Fit the forecast of one release on the forks of it that were measured."""
    return fit_on(map(evidence, documents))


def fit_on(forks: Iterable[Evidence]) -> Predictor | NoPredictor:
    """As `fit`.

    Forks that hold the same change, as mirrors of one edit do, count once: they would vouch for each other
    when one of them is left out.
    """
    groups: dict[tuple[tuple[str, float], ...], tuple[Features, list[float]]] = {}
    for fork in forks:
        found, loss = fork.features, fork.observed
        if loss is not None:
            key = tuple(sorted((name, float(f"{value:.1e}")) for name, value in found.items()))
            groups.setdefault(key, (found, []))[1].append(loss)
    rows = [found for found, _ in groups.values()]
    losses = [fmean(values) for _, values in groups.values()]
    if len(rows) < MIN_OBSERVED:
        reason = f"{len(rows)} distinct changes were measured; a forecast needs {MIN_OBSERVED}"
        return NoPredictor(reason)
    fitted = _ridge(rows, losses)
    if fitted.error >= fitted.guess:
        return NoPredictor(
            f"on {fitted.n} distinct changes it errs by {fitted.error:.2f}, no better than their mean "
            f"({fitted.guess:.2f})"
        )
    return fitted


def expected_loss(document: ScanDocument, predictor: Predictor) -> float:
    """The forecast, or none to lose where the values are the original's: such forks are not learnt from."""
    kinds = {edit.kind for edit in document.edits}
    return 0.0 if kinds and kinds <= VALUE_PRESERVING else predictor.loss(features(document))


def forecast(document: ScanDocument, predictor: Predictor | NoPredictor) -> ScanDocument:
    """The document with what is to be expected of a fork whose refusals were not measured."""
    return replace(document, forecast=forecast_view(evidence(document), predictor))


def forecast_view(fork: Evidence, predictor: Predictor | NoPredictor) -> ForecastView:
    """What is to be expected, or why nothing is said."""
    if fork.reason:
        return _none(fork.reason)
    if isinstance(predictor, NoPredictor):
        return _none(predictor.reason)
    loss = predictor.loss(fork.features)
    low, high = max(-1.0, loss - 2 * predictor.error), min(1.0, loss + 2 * predictor.error)
    number: NumberView = RateView(rate=round(loss, 4), n=predictor.n, ci=(round(low, 4), round(high, 4)))
    return ForecastView(loss=number, error=round(predictor.error, 4), guess=round(predictor.guess, 4))


@lru_cache(maxsize=1 << 8)
def _none(reason: str) -> ForecastView:
    return ForecastView(loss=UnmeasuredView(unmeasured=reason))


def _ridge(rows: list[Features], losses: list[float]) -> Predictor:
    """Ridge regression on standardised inputs. A constant one is left out; an absent one is average.

    The errors with each observation left out come from the hat matrix, as the penalty amounts to
    observations that stay: e / (1 − h), exact for inputs that are scaled once.
    """
    import numpy as np

    names = sorted({name for row in rows for name in row})
    centres = {name: fmean(row[name] for row in rows if name in row) for name in names}
    table = np.array([[row.get(name, centres[name]) - centres[name] for name in names] for row in rows])
    scales = np.sqrt((table**2).mean(axis=0))
    varied = [index for index, scale in enumerate(scales) if scale > 1e-9]
    n, mean = len(rows), fmean(losses)
    inputs = table[:, varied] / scales[varied]
    centred = np.array(losses) - mean
    solved = np.linalg.solve(inputs.T @ inputs + PENALTY * np.eye(len(varied)), inputs.T)
    solution = solved @ centred
    leverage = 1 / n + np.einsum("ij,ji->i", inputs, solved)
    coefficients = {
        names[index]: (float(coefficient), centres[names[index]], float(scales[index]))
        for index, coefficient in zip(varied, solution, strict=True)
    }
    error = _rms((centred - inputs @ solution) / (1 - leverage))
    return Predictor(mean, coefficients, n, error, _rms(centred * n / (n - 1)))


def _rms(errors: Iterable[float]) -> float:
    return math.sqrt(fmean(float(error) ** 2 for error in errors))
