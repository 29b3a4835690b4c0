"""At which temperature was it sampled, if it is authentic? Mean log-probability *is* that direction.

At temperature T a token x has probability p(x)^β / Z, β = 1/T, so the likelihood of β needs log Z = log Σ
p^β at every token. Scores hold only its first two derivatives at β = 1, minus the entropy H and the
variance V of the log-probability. The surprisal −log p is therefore taken as gamma distributed with mean H
and variance V, for which log Z = −(H²/V) log(1 + (β − 1) V/H): right to second order at β = 1, convex, and
bounded growth towards greedy. The likelihood equation Σ (log p + H / (1 + (β − 1) V/H)) = 0 has one root.

Where the pack has cells at known temperatures, the gamma estimate is corrected by what it gives on them,
linearly in log T between and beyond. The interval comes from the spread over outputs, which are
independent; tokens of one output are not.

Accurate between about 0.5 and 1.5: colder, a token's surprisal is that of the most likely one, which the
gamma law does not know, and the estimate stays near 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from detector.outputs.interface import Sample, TokenScores
from detector.outputs.nuisance import temperature_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

COLDEST, HOTTEST = 0.1, 4.0
"""Estimates are kept within."""
_MIN_OUTPUTS = 5
_HALVINGS = 50
_Z = 1.959963984540054
"""Standard normal quantile of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class Temperature:
    """Sampling temperature of outputs, as if of the authentic model."""

    estimate: float
    low: float
    """Of a 95 % interval for the sampling error; the error of the gamma law comes on top without anchors."""
    high: float
    outputs: int


def estimate_temperature(
    served: Sequence[TokenScores], anchors: Mapping[float, Sequence[TokenScores]] | None = None
) -> Temperature | None:
    """Temperature that explains the scores best.

    Args:
        served: scores of the outputs under the authentic weights, at temperature 1.
        anchors: true temperature to scores of authentic outputs sampled at it (`temperature_anchors`).

    Returns:
        None for fewer than five outputs with tokens, or where the model was certain of every token.
    """
    raw = _raw(served)
    if raw is None:
        return None
    middle, error, outputs = raw
    known, anchors_error = _corrections(anchors or {})
    error = math.hypot(error, anchors_error)
    low, at, high = (
        _corrected(_temperature(beta), known)
        for beta in (middle + _Z * error, middle, max(middle - _Z * error, 1 / HOTTEST))
    )
    return Temperature(at, low, high, outputs)


def temperature_anchors(samples: Iterable[Sample]) -> dict[float, tuple[TokenScores, ...]]:
    """Temperature to scores of the release's samples in the cells `seed` and `temperature-…` of a pack."""
    found = {}
    for one in samples:
        temperature = temperature_of(one.cell)
        if one.model == "authentic" and temperature is not None:
            found[temperature] = tuple(each.authentic for each in one.scored)
    return found


def _raw(served: Sequence[TokenScores]) -> tuple[float, float, int] | None:
    """β of the gamma likelihood, its standard error, and outputs used."""
    outputs = [one for one in served if len(one.logp)]
    starts = np.cumsum([0, *(len(one.logp) for one in outputs)])[:-1]
    if len(outputs) < _MIN_OUTPUTS:
        return None
    logp, entropy, variance = (
        np.concatenate([np.asarray(getattr(one, name), np.float64) for one in outputs])
        for name in ("logp", "entropy", "variance")
    )
    if variance.sum() <= 1e-6:
        return None
    steepness = variance / np.maximum(entropy, 1e-6)

    def score(beta: float) -> Floats:
        """Derivative of the log-likelihood at each token; falls with β."""
        slopes: Floats = logp + entropy / np.maximum(1 + (beta - 1) * steepness, 1e-3)
        return slopes

    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(_HALVINGS):
        beta = (low + high) / 2
        low, high = (beta, high) if score(beta).sum() > 0 else (low, beta)
    beta = (low + high) / 2
    information = (entropy * steepness / np.maximum(1 + (beta - 1) * steepness, 1e-3) ** 2).sum()
    by_output = np.add.reduceat(score(beta), starts)
    return beta, math.sqrt((by_output**2).sum()) / max(information, 1e-9), len(outputs)


def _temperature(beta: float) -> float:
    return min(max(1 / beta, COLDEST), HOTTEST)


def _corrections(anchors: Mapping[float, Sequence[TokenScores]]) -> tuple[list[tuple[float, float]], float]:
    """(log of the gamma estimate, log of the truth) of each anchor, rising in both; their standard error."""
    found: list[tuple[float, float]] = []
    error = 0.0
    for true, scores in sorted(anchors.items()):
        raw = _raw(scores)
        if raw is None:
            continue
        estimate = math.log(_temperature(raw[0]))
        if not found or estimate > found[-1][0]:  # noise may turn two close ones round
            found.append((estimate, math.log(true)))
            error = max(error, raw[1])
    return found, error


def _corrected(temperature: float, known: Sequence[tuple[float, float]]) -> float:
    if not known:
        return temperature
    at = math.log(temperature)
    if len(known) == 1:
        corrected = at + known[0][1] - known[0][0]
    else:
        i = min(max(sum(x <= at for x, _ in known) - 1, 0), len(known) - 2)
        (x, y), (x_next, y_next) = known[i], known[i + 1]
        corrected = y + (at - x) * (y_next - y) / (x_next - x)
    return min(max(math.exp(corrected), COLDEST), HOTTEST)
