"""Which known fork is it? Every model that is known is a hypothesis, and e-values rule hypotheses out.

The authentic model is ruled out by a bet on all forks (`likelihood.log_e`); a fork, by a bet that spreads
over the authentic model, all other forks and the fork's own mixtures with the authentic model, which stand
for siblings. Against a true hypothesis such a bet passes 1/α with probability α at most, over all times, so
the hypotheses that are left hold the truth with probability 1 − α if it is among them (the prior-posterior
ratio of Waudby-Smith and Ramdas 2020).

A fork is named when the authentic model is ruled out and this fork alone is left; when none is left, it is an
unknown model. A sibling that answers as a known fork does on these prompts bears its name: outputs cannot
tell. A fork served at a temperature that is not 1 may be ruled out wrongly: its scores bound no temperature.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from detector.outputs.evalues import bar, log_mean, log_sum, needed
from detector.outputs.interface import ALPHA, Attributed, Decision, Question, TestResult
from detector.outputs.likelihood import Likelihoods, least_favourable, log_e, log_e_of

AUTHENTIC = "authentic"
UNKNOWN = "unknown"
TEST = "likelihood-ratio"
_ALIKE = 1e-4
"""Nats a token: what rounding of the same weights leaves."""
_SAME = 1e-7
"""Nats a token: what the order of a sum leaves of the same numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """What is left of the hypotheses."""

    result: TestResult
    """DIFFERENT: the authentic model is ruled out. NO_DIFFERENCE: all known forks are, and it is not."""
    named: str | None
    """The fork that alone is left; of copies that cannot differ, the first by name."""
    left: tuple[str, ...]
    """Forks that are not ruled out, by id."""
    relative: str | None
    """Where none is left: the fork that still explains the outputs significantly better than the release."""
    candidates: tuple[Attributed, ...]
    """Best first."""


def against(seen: Likelihoods) -> Mapping[str, float]:
    """Log e-value against every hypothesis: `authentic` and each fork at temperature 1, by name.

    Raises:
        ValueError: no fork is known.
    """
    found = {AUTHENTIC: log_e(seen)}
    for fork, sums in seen.forks.items():
        others = [log_mean(theirs) for name, theirs in seen.forks.items() if name != fork]
        found[fork] = log_mean([seen.plain, *others, log_mean(sums[:-1])]) - sums[-1]
    return found


def posterior(seen: Likelihoods) -> Mapping[str, float]:
    """Probability of `authentic`, each fork, and `unknown` (mixtures of the two), all alike beforehand.

    A description, not a test; the authentic model is taken in the setting that suits it best.
    """
    weights = {AUTHENTIC: least_favourable(seen)}
    weights |= {fork: sums[-1] for fork, sums in seen.forks.items()}
    weights[UNKNOWN] = log_mean([log_mean(sums[:-1]) for sums in seen.forks.values()])
    total = log_sum(list(weights.values()))
    return {name: math.exp(value - total) for name, value in weights.items()}


def attribute(
    seen: Likelihoods, *, alpha: float = ALPHA, passed: Mapping[str, float] | None = None
) -> Attribution:
    """Rule hypotheses out at level `alpha`.

    Args:
        seen: of all outputs.
        alpha: level, of the authentic model's and of each fork's rejection.
        passed: the largest log e-value so far against each hypothesis, where a stream was looked at before;
            what was ruled out once stays so.

    Raises:
        ValueError: no fork is known, or `alpha` is not in (0, 1).
    """
    now = against(seen)
    es = {name: max(value, (passed or {}).get(name, value)) for name, value in now.items()}
    out = {name for name, value in es.items() if value >= bar(alpha)}
    left = tuple(fork for fork in sorted(seen.forks) if fork not in out)
    modified = AUTHENTIC in out
    named = left[0] if modified and left and _are_copies(seen, left) else None
    undecided = Decision.INSUFFICIENT if left else Decision.NO_DIFFERENCE
    decision = Decision.DIFFERENT if modified else undecided
    relative = _relative(seen, alpha) if modified and not left else None
    result = TestResult(
        question=Question.ATTRIBUTION,
        test=TEST,
        decision=decision,
        n=seen.outputs,
        log_e=es[AUTHENTIC],
        needed=needed(es[AUTHENTIC], seen.outputs, alpha) if not modified else None,
        reason=_reason(decision, named, left, relative),
    )
    return Attribution(
        result=result, named=named, left=left, relative=relative, candidates=_candidates(seen, es, alpha)
    )


def _are_copies(seen: Likelihoods, forks: tuple[str, ...]) -> bool:
    """Whether these forks score alike, as far as a sum over tokens can say: the same weights."""
    values = [seen.forks[fork][-1] for fork in forks]
    return max(values) - min(values) <= _ALIKE * seen.tokens


def _copies(seen: Likelihoods) -> list[tuple[str, ...]]:
    """Forks by name, those together that score every output the same: one fork under several names."""
    found: list[list[str]] = []
    for fork in sorted(seen.forks):
        for group in found:
            pairs = zip(seen.forks[fork], seen.forks[group[0]], strict=True)
            if all(abs(a - b) <= _SAME * seen.tokens for a, b in pairs):
                group.append(fork)
                break
        else:
            found.append([fork])
    return [tuple(group) for group in found]


def _relative(seen: Likelihoods, alpha: float) -> str | None:
    """The nearest fork, if it beats the release without help from mixtures, for the number of forks."""
    best = max(sorted(seen.forks), key=lambda fork: seen.forks[fork][-1])
    gained = seen.forks[best][-1] - least_favourable(seen) - math.log(len(seen.forks))
    return best if gained >= bar(alpha) else None


def _reason(decision: Decision, named: str | None, left: tuple[str, ...], relative: str | None) -> str:
    if decision is Decision.NO_DIFFERENCE:
        return "every known fork is ruled out"
    if decision is Decision.INSUFFICIENT:
        return "neither the authentic model nor every known fork is ruled out"
    if named is not None:
        return f"the authentic model and every other known fork are ruled out; {named} is not"
    if relative is not None:
        return f"the authentic model is ruled out, and so is every known fork as such; nearest is {relative}"
    if not left:
        return "the authentic model is ruled out, and so is every known fork as such"
    return f"the authentic model is ruled out; {len(left)} known forks are left"


def _candidates(seen: Likelihoods, es: Mapping[str, float], alpha: float) -> tuple[Attributed, ...]:
    share = posterior(seen)
    found = [
        Attributed(
            fork=fork,
            log_e=log_e_of(seen, fork),
            detail=f"posterior {sum(share[one] for one in (fork, *same)):.3g}"
            + ("; ruled out" if es[fork] >= bar(alpha) else "")
            + (f"; scores as {', '.join(same)} does" if same else ""),
        )
        for fork, *same in _copies(seen)
    ]
    return tuple(sorted(found, key=lambda one: (-(one.log_e or 0.0), one.fork)))
