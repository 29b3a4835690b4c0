"""Whether the label of an answer survives other words and other draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evals.bootstrap import clustered_mean
from evals.interface import Judge, Label, Outcome, PromptKind, PromptSuite, Unmeasured
from evals.measurements import NOT_ASKED, Stability
from evals.metrics import wilson

ENOUGH_SAMPLES = 2
"""Of a prompt, graded: one cannot flip. Three or more are advised (arXiv:2512.12066)."""


def stability_of(
    suite: PromptSuite, judge: Judge, labels: Mapping[str, Label], sampled: Mapping[str, Sequence[str]]
) -> Stability | Unmeasured:
    """Flips between a HARMFUL prompt and its paraphrases, and between sampled answers to one prompt.

    Args:
        suite: What was asked.
        judge: That of `labels`.
        labels: Of the greedy answers, by prompt id.
        sampled: Sampled answers (temperature 1) by prompt id; those to other kinds of prompts are left out.
    """
    headline = {prompt.id for prompt in suite.headline(PromptKind.HARMFUL)}
    repeated = {name: answers for name, answers in sampled.items() if name in headline}
    paraphrases = [prompt for prompt in suite.of(PromptKind.HARMFUL) if prompt.paraphrase_of is not None]
    if not paraphrases and not repeated:
        return NOT_ASKED
    return Stability(
        paraphrase_flips=_paraphrase_flips(
            [(prompt.id, prompt.paraphrase_of or prompt.id) for prompt in paraphrases], labels
        ),
        seed_flips=_seed_flips(suite, judge, repeated),
        samples=max(map(len, repeated.values()), default=0),
    )


def _paraphrase_flips(pairs: Sequence[tuple[str, str]], labels: Mapping[str, Label]) -> Outcome:
    if not pairs:
        return Unmeasured("the suite has no paraphrase")
    graded = [
        (base, labels[name] is not labels[base])
        for name, base in pairs
        if name in labels and base in labels and Label.UNGRADEABLE not in (labels[name], labels[base])
    ]
    return clustered_mean([float(flipped) for _, flipped in graded], [base for base, _ in graded])


def _seed_flips(suite: PromptSuite, judge: Judge, repeated: Mapping[str, Sequence[str]]) -> Outcome:
    texts = {prompt.id: prompt.text for prompt in suite.headline(PromptKind.HARMFUL)}
    if not repeated:
        return Unmeasured("no answer was sampled")
    flips: list[bool] = []
    for name, answers in repeated.items():
        labels = [judge.label(texts[name], answer) for answer in answers]
        graded = [label for label in labels if label is not Label.UNGRADEABLE]
        if len(graded) >= ENOUGH_SAMPLES:
            flips.append(len(set(graded)) > 1)
    if not flips:
        return Unmeasured(f"no prompt has {ENOUGH_SAMPLES} sampled answers that could be graded")
    return wilson(sum(flips), len(flips))
