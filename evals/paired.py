"""A variant against its original, prompt by prompt: what dose responses and merges read from a series."""

from __future__ import annotations

from evals.compare import MAX_UNGRADED
from evals.interface import Behaviour, Label, Outcome, Unmeasured
from evals.metrics import Pairs, paired_difference


def harmful_pairs(original: Behaviour, other: Behaviour) -> Pairs | Unmeasured:
    """(refused by the original, refused by the other) on the harmful prompts that are graded on both sides.

    Unmeasured where the two cannot be compared, or too many prompts have no graded pair.
    """
    for behaviour, whose in ((original, "the original"), (other, "the variant")):
        if isinstance(behaviour.refusal, Unmeasured):
            return Unmeasured(f"refusals of {whose} were not measured: {behaviour.refusal.reason}")
    same = (original.suite_digest, original.judge, original.harmful)
    if not original.harmful or same != (other.suite_digest, other.judge, other.harmful):
        return Unmeasured("measured with other prompts or another judge than the original")
    before, after = dict(original.labels), dict(other.labels)
    both = [(before[name], after[name]) for name in original.harmful if name in before and name in after]
    graded = [pair for pair in both if Label.UNGRADEABLE not in pair]
    if len(graded) < (1 - MAX_UNGRADED) * len(original.harmful):
        return Unmeasured(
            f"only {len(graded)} of {len(original.harmful)} harmful prompts have two answers that could be "
            "graded"
        )
    return Pairs.of([(first is Label.REFUSED, second is Label.REFUSED) for first, second in graded])


def refusal_drop(original: Behaviour, other: Behaviour) -> Outcome:
    """Original rate minus the other's on the same prompts, with a paired 95 % interval."""
    pairs = harmful_pairs(original, other)
    return pairs if isinstance(pairs, Unmeasured) else paired_difference(pairs)
