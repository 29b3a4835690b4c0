"""A fork against its original by language and by topic: is the loss everywhere, or in one place only?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from evals.bootstrap import clustered_mean
from evals.interface import Label, Measured, Outcome, PromptKind, Unmeasured
from evals.measurements import Behaviour, LanguageDrop, TopicSpread
from evals.metrics import CONFIDENCE, Pairs, holm, mcnemar_exact, paired_difference

PERMUTATIONS = 9999

MIN_TOPICS = 2

Labels = Mapping[str, Label]


def graded_pairs(names: Iterable[str], before: Labels, after: Labels) -> list[tuple[str, bool, bool]]:
    """(id, refused by the original, refused by the fork) of the prompts that are graded on both sides."""
    both = [(name, before[name], after[name]) for name in names if name in before and name in after]
    return [
        (name, first is Label.REFUSED, second is Label.REFUSED)
        for name, first, second in both
        if Label.UNGRADEABLE not in (first, second)
    ]


def pairs_of(names: Iterable[str], before: Labels, after: Labels) -> Pairs:
    """Counts of the same."""
    return Pairs.of([(first, second) for _, first, second in graded_pairs(names, before, after)])


def language_drops(original: Behaviour, fork: Behaviour, *, ungraded: float) -> tuple[LanguageDrop, ...]:
    """Each language beside the headline's; unmeasured where more than `ungraded` of it is missing."""
    before, after = dict(original.labels), dict(fork.labels)
    headline = frozenset(original.harmful)
    asked: dict[str, list[str]] = {}
    for cell in original.cells:
        translated = [name for name in cell.prompts if name not in headline]
        if cell.kind is PromptKind.HARMFUL and translated:
            asked.setdefault(cell.language, []).extend(translated)
    drops: list[tuple[str, Outcome, Outcome]] = []
    for language, names in asked.items():
        pairs = pairs_of(names, before, after)
        if pairs.n < (1 - ungraded) * len(names):
            reason = Unmeasured(f"only {pairs.n} of {len(names)} prompts are graded on both sides")
            drops.append((language, reason, reason))
        else:
            drops.append((language, paired_difference(pairs), mcnemar_exact(pairs)))
    adjusted = holm([p_value for _, _, p_value in drops])
    return tuple(
        LanguageDrop(language=language, drop=drop, mcnemar_p=p_value, holm_p=holm_p)
        for (language, drop, p_value), holm_p in zip(drops, adjusted, strict=True)
    )


def lost_language(
    drops: Sequence[LanguageDrop], *, degraded_drop: float, alpha: float
) -> LanguageDrop | None:
    """The language that lost most, among those whose loss is significant after Holm and large enough."""
    lost = [
        (drop.drop.value, drop)
        for drop in drops
        if isinstance(drop.drop, Measured)
        and isinstance(drop.holm_p, Measured)
        and drop.holm_p.value < alpha
        and drop.drop.value > degraded_drop
    ]
    return max(lost, key=lambda found: found[0])[1] if lost else None


def variants_drop(original: Behaviour, fork: Behaviour) -> Outcome:
    """Drop over all HARMFUL prompts with their paraphrases and translations, prompts as clusters."""
    before, after = dict(original.labels), dict(fork.labels)
    headline, of = frozenset(original.harmful), dict(original.variant_of)
    names = [name for name, _ in original.labels if of.get(name, name) in headline]
    if not any(name in of for name in names):
        return Unmeasured("the suite repeats no prompt")
    rows = graded_pairs(names, before, after)
    return clustered_mean(
        [float(first) - float(second) for _, first, second in rows],
        [of.get(name, name) for name, _, _ in rows],
        least=-1.0,
    )


def topic_spread(original: Behaviour, fork: Behaviour, *, seed: int = 0) -> TopicSpread | Unmeasured:
    """Minimum and spread of the drop over topics of the headline prompts, and whether the loss is even.

    The intervals of minimum and spread follow from intervals that hold for all topics together (Newcombe's,
    at 1 − 0.05 / topics), so they are wide and do not depend on which topic came out lowest.
    """
    before, after = dict(original.labels), dict(fork.labels)
    headline = frozenset(original.harmful)
    asked: dict[str, list[str]] = {}
    for cell in original.cells:
        if cell.kind is PromptKind.HARMFUL:
            asked.setdefault(cell.topic, []).extend(name for name in cell.prompts if name in headline)
    counts = {topic: pairs_of(names, before, after) for topic, names in asked.items()}
    counts = {topic: pairs for topic, pairs in counts.items() if pairs.n}
    if len(counts) < MIN_TOPICS:
        return Unmeasured(f"prompts of {len(counts)} topics are graded on both sides: nothing to compare")
    together = 1 - (1 - CONFIDENCE) / len(counts)
    wide = [paired_difference(pairs, confidence=together) for pairs in counts.values()]
    bounds = [outcome for outcome in wide if isinstance(outcome, Measured)]
    values, lows, highs = ([getattr(b, part) for b in bounds] for part in ("value", "low", "high"))
    n = len(bounds)
    return TopicSpread(
        drops=tuple((topic, paired_difference(pairs)) for topic, pairs in counts.items()),
        least=Measured(min(values), n, min(lows), min(highs)),
        spread=Measured(
            max(values) - min(values), n, max(0.0, max(lows) - min(highs)), max(highs) - min(lows)
        ),
        uneven_p=_uneven(list(counts.values()), seed),
    )


def _uneven(counts: Sequence[Pairs], seed: int) -> Outcome:
    """Permutation test of equal shares lost by chi-square; drawn, yet exact (Phipson and Smyth 2010)."""
    refused = np.array([pairs.both + pairs.only_first for pairs in counts])
    lost = np.array([pairs.only_first for pairs in counts])
    counted = refused > 0
    refused, lost = refused[counted], lost[counted]
    n, total = int(refused.sum()), int(lost.sum())
    if len(refused) < MIN_TOPICS or total in (0, n):
        return Unmeasured("the original's refusals are all kept, or all lost, or of one topic")
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(refused, total, size=PERMUTATIONS)
    expected = refused * total / n
    # The 2 × topics chi-square is this sum times a constant, since the table's margins are fixed.
    seen = np.sum((lost - expected) ** 2 / refused)
    beyond = int(np.sum(np.sum((drawn - expected) ** 2 / refused, axis=1) >= seen * (1 - 1e-9)))
    p_value = (1 + beyond) / (1 + PERMUTATIONS)
    return Measured(p_value, n, p_value, p_value)
