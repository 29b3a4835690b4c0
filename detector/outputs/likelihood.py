"""Likelihood ratios of known forks against the authentic model: the strongest test where weights are at hand.

For outputs x that the authentic model draws, E[q(x)/p(x)] ≤ 1 for any other model q fixed beforehand, so the
running product of ratios is an e-value at every time. The alternatives are the known forks, each also mixed
into the authentic model token by token, (1 − ε)p + εq, which is a model too: it loses at most log 1/(1 − ε)
a token on outputs that the fork does not explain, and finds siblings of a known fork. All together are
averaged with equal weights.

The null hypothesis must say how outputs are drawn. Ratios are exact for ancestral sampling at temperature 1
over the whole vocabulary, under the system prompt that was scored. For another temperature τ the authentic
model gives a token p^(1/τ)/Z, and for nucleus sampling p/S; scores do not hold Z or S, but bound them from
below, and dividing by too much keeps an e-value one:

- τ < 1: Z = E[exp(sX)] with X the log-probability of a token drawn at temperature 1 and s = 1/τ − 1, by
  Jensen's inequality on all tokens but the one that was drawn;
- τ > 1: of all X ≤ 0 with this mean (−entropy) and variance, the two-point one on 0 has the least E[exp(sX)]
  (Chebyshev-Markov: the cubic term of the interpolation has one sign);
- nucleus: S ≥ top_p, and S ≥ the probability of the token and of those above it.

Where the setting is not declared, the null hypothesis is composite: the e-value is the least over a grid of
settings. Greedy outputs are not drawn at all, and count for nothing here (`transcripts` is for them).

Not covered: another system prompt, penalties on repetition, another engine's rounding, a quantised copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from detector.outputs.evalues import log_mean
from detector.outputs.interface import BadOutputsError, Sampling, ScoredOutput, TokenScores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]

EPSILONS = (0.05, 0.2, 0.5, 1.0)
"""Share of the fork in a token-wise mixture; the last is the fork itself."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How outputs are drawn under a null hypothesis."""

    temperature: float = 1.0
    top_p: float = 1.0

    @property
    def name(self) -> str:
        """E.g. `temperature-0.8`; `plain` at temperature 1."""
        parts = [f"temperature-{self.temperature:g}"] if self.temperature != 1 else []
        parts += [f"top-p-{self.top_p:g}"] if self.top_p != 1 else []
        return "-".join(parts) or "plain"


PLAIN = Setting()
UNDECLARED = (
    *(Setting(temperature=value) for value in (0.5, 0.7, 0.8, 0.9)),
    PLAIN,
    *(Setting(temperature=value) for value in (1.1, 1.2, 1.3, 1.5)),
    Setting(top_p=0.9),
    Setting(top_p=0.95),
)
"""Settings that must all be rejected where nobody says how outputs were drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihoods:
    """Log-likelihoods of everything that was seen, in nats. A stream is the sum of its parts."""

    outputs: int
    tokens: int
    plain: float
    """Of the authentic model at temperature 1, exactly: an alternative where a fork is the hypothesis."""
    authentic: Mapping[str, float]
    """Name of a setting to an upper bound on the authentic model's log-likelihood under it."""
    forks: Mapping[str, tuple[float, ...]]
    """Fork id to the log-likelihood of its mixtures, one for each of `EPSILONS`."""

    def __add__(self, other: Likelihoods) -> Likelihoods:
        """Both together; they must have the same settings and forks."""
        if self.authentic.keys() != other.authentic.keys() or self.forks.keys() != other.forks.keys():
            raise ValueError("likelihoods under different settings or forks do not add up")
        return Likelihoods(
            outputs=self.outputs + other.outputs,
            tokens=self.tokens + other.tokens,
            plain=self.plain + other.plain,
            authentic={name: value + other.authentic[name] for name, value in self.authentic.items()},
            forks={
                fork: tuple(a + b for a, b in zip(sums, other.forks[fork], strict=True))
                for fork, sums in self.forks.items()
            },
        )


def nothing(settings: Sequence[Setting], forks: Iterable[str]) -> Likelihoods:
    """Before anything was seen."""
    zeros = (0.0,) * len(EPSILONS)
    return Likelihoods(
        outputs=0,
        tokens=0,
        plain=0.0,
        authentic={setting.name: 0.0 for setting in settings},
        forks=dict.fromkeys(sorted(forks), zeros),
    )


def settings_for(outputs: Iterable[ScoredOutput]) -> tuple[Setting, ...]:
    """The null hypotheses that outputs call for: what they declare, or all of `UNDECLARED`.

    A declared setting takes the place of every hypothesis for that output (`likelihoods`).
    """
    declared = all(one.output.sampling.temperature is not None for one in outputs)
    return (PLAIN,) if declared else UNDECLARED


def is_drawn(sampling: Sampling) -> bool:
    """Whether an output counts: not greedy."""
    return sampling.temperature is None or sampling.temperature > 0


def likelihoods(
    outputs: Iterable[ScoredOutput], settings: Sequence[Setting], forks: Iterable[str]
) -> Likelihoods:
    """Log-likelihoods of outputs under the authentic model in each setting, and under forks at temperature 1.

    Raises:
        BadOutputsError: an output lacks the score of a fork, or has scores of different lengths.
    """
    total = nothing(settings, forks)
    for one in outputs:
        if is_drawn(one.output.sampling):
            total += _of_one(one, settings, total.forks)
    return total


def _of_one(one: ScoredOutput, settings: Sequence[Setting], forks: Iterable[str]) -> Likelihoods:
    logp = np.minimum(one.authentic.logp.astype(np.float64), 0.0)
    found: dict[str, tuple[float, ...]] = {}
    for fork in forks:
        scores = one.forks.get(fork)
        if scores is None or scores.shape != logp.shape:
            raise BadOutputsError(f"an answer to {one.output.prompt_id} is not wholly scored under {fork}")
        logq = np.minimum(scores.astype(np.float64), 0.0)
        found[fork] = tuple(float(mixed(logp, logq, epsilon).sum()) for epsilon in EPSILONS)
    effective = {setting.name: _declared(one.output.sampling, setting) for setting in settings}
    sums = {one_of: float(upper_logp(one.authentic, one_of).sum()) for one_of in set(effective.values())}
    bounds = {name: sums[one_of] for name, one_of in effective.items()}
    plain = float(logp.sum())
    return Likelihoods(outputs=1, tokens=len(logp), plain=plain, authentic=bounds, forks=found)


def _declared(sampling: Sampling, setting: Setting) -> Setting:
    """What an output says about itself, and the hypothesis for the rest.

    Who names a temperature and no top_p has left top_p alone.
    """
    if sampling.temperature is None:
        return Setting(setting.temperature, setting.top_p if sampling.top_p is None else sampling.top_p)
    return Setting(sampling.temperature, 1.0 if sampling.top_p is None else sampling.top_p)


def mixed(logp: Doubles, logq: Doubles, epsilon: float) -> Doubles:
    """Log of (1 − ε)p + εq for each token, (tokens,)."""
    if epsilon == 1:
        return logq
    found: Doubles = np.logaddexp(np.log1p(-epsilon) + logp, np.log(epsilon) + logq)
    return found


def upper_logp(scores: TokenScores, setting: Setting) -> Doubles:
    """At least the authentic model's log-probability of each token in a setting, (tokens,); exact if plain.

    Raises:
        ValueError: the temperature is not positive, or top_p not in (0, 1].
    """
    if setting.temperature <= 0 or not 0 < setting.top_p <= 1:
        raise ValueError(f"nothing is drawn at temperature {setting.temperature:g}, top_p {setting.top_p:g}")
    logp = np.minimum(scores.logp.astype(np.float64), 0.0)
    power = 1 / setting.temperature - 1
    bound = logp
    if power > 0:
        bound = (1 + power) * logp - _least_log_z_cold(scores, logp, power)
    elif power < 0:
        bound = (1 + power) * logp - _least_log_z_hot(scores, power)
    if setting.top_p < 1:
        kept = np.full_like(logp, setting.top_p)
        if power == 0:
            kept = np.maximum(kept, np.minimum(scores.above.astype(np.float64) + np.exp(logp), 1.0))
        bound = bound - np.log(kept)
    found: Doubles = np.minimum(bound, 0.0)
    return found


def _least_log_z_cold(scores: TokenScores, logp: Doubles, power: float) -> Doubles:
    p = np.exp(logp)
    rest = 1 - p
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (-scores.entropy.astype(np.float64) - p * logp) / rest
        other = np.log(rest) + power * np.minimum(mean, 0.0)
    other = np.where(rest > 1e-6, other, -np.inf)  # below: float32 cannot say what the rest is like
    found: Doubles = np.logaddexp((1 + power) * logp, other)
    return found


def _least_log_z_hot(scores: TokenScores, power: float) -> Doubles:
    entropy = np.maximum(scores.entropy.astype(np.float64), 1e-9)
    square = entropy**2
    variance = np.maximum(scores.variance.astype(np.float64), 0.0)
    at_zero = variance / (square + variance)
    far = power * -(square + variance) / entropy
    with np.errstate(divide="ignore"):
        found: Doubles = np.logaddexp(np.log(at_zero), np.log1p(-at_zero) + far)
    return found


def log_e(seen: Likelihoods) -> float:
    """Log e-value against "the authentic model drew these", in every setting; all forks averaged.

    Raises:
        ValueError: no fork is known.
    """
    return log_mean([value for sums in seen.forks.values() for value in sums]) - least_favourable(seen)


def log_e_of(seen: Likelihoods, fork: str) -> float:
    """Log e-value against the same, betting on one fork and its mixtures alone."""
    return log_mean(seen.forks[fork]) - least_favourable(seen)


def least_favourable(seen: Likelihoods) -> float:
    """The authentic model's log-likelihood in the setting that explains the outputs best."""
    return max(seen.authentic.values())
