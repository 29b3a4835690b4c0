"""A variant against its original, prompt by prompt: what dose responses and merges read from a series."""

from __future__ import annotations

from evals.breakdown import pairs_of
from evals.compare import MAX_UNGRADED, obstacle
from evals.interface import Outcome, Unmeasured
from evals.measurements import Behaviour
from evals.metrics import Pairs, paired_difference


def harmful_pairs(original: Behaviour, other: Behaviour) -> Pairs | Unmeasured:
    """(refused by the original, refused by the other) on the harmful prompts that are graded on both sides.

    Unmeasured where the two cannot be compared, or too many prompts have no graded pair.
    """
    if reason := obstacle(original, other):
        return Unmeasured(reason.removeprefix("undecided: "))
    pairs, harmful = pairs_of(original.harmful, dict(original.labels), dict(other.labels)), original.harmful
    if pairs.n < (1 - MAX_UNGRADED) * len(harmful):
        return Unmeasured(
            f"only {pairs.n} of {len(harmful)} harmful prompts have two answers that could be graded"
        )
    return pairs


def refusal_drop(original: Behaviour, other: Behaviour) -> Outcome:
    """Original rate minus the other's on the same prompts, with a paired 95 % interval."""
    pairs = harmful_pairs(original, other)
    return pairs if isinstance(pairs, Unmeasured) else paired_difference(pairs)
