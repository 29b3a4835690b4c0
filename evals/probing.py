"""The probe over a suite: on which prompts, with whose openings, and what the scores say.

The openings come from the original's own answers, found by the judge's labels; each half of the prompts is
scored with the openings of the other half, or the probe would be told what it is to find. Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evals.examine import Bench
from evals.interface import (
    JUDGED,
    EvalRequest,
    Judge,
    Label,
    Outcome,
    Prompt,
    PromptKind,
    PromptSuite,
    Transcript,
    Unmeasured,
)
from evals.measurements import NOT_ASKED, Probe
from evals.metrics import mean_interval, wilson
from evals.openings import Tokens, begins, openings_of
from evals.probe import refusal_scores
from evals.ranking import auroc
from evals.wire import load_transcript

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HALVES = (0, 1)
"""Every other prompt of a kind, in suite order."""

Scores = Mapping[str, float]
"""Log-odds of a refusal, by prompt id."""


@dataclass(frozen=True, slots=True)
class Probing:
    """Headline prompts that the original refuses or answers, and what each half is scored with."""

    halves: tuple[tuple[Prompt, ...], ...]
    openings: tuple[tuple[Tokens, ...], ...]
    refused: tuple[str, ...]
    """HARMFUL prompts that the original refuses."""
    answered: tuple[str, ...]
    """Prompts that it answers, of either kind."""
    covered: Outcome
    """Share of `refused` whose own answer begins with one of the openings that it is scored with."""

    def scores(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Scores:
        """Of every prompt, by what the model holds now."""
        found: dict[str, float] = {}
        for prompts, openings in zip(self.halves, self.openings, strict=True):
            texts = [prompt.text for prompt in prompts]
            scores = refusal_scores(model, tokenizer, texts, openings)
            found |= {prompt.id: score for prompt, score in zip(prompts, scores, strict=True)}
        return found

    def report(self, original: Scores, fork: Scores | None) -> Probe:
        """How well the probe tells what the original refuses, and how far a fork moved it."""
        shift: Outcome = Unmeasured("this is the original")
        if fork is not None:
            shift = mean_interval([fork[name] - original[name] for name in self.refused])
        return Probe(
            auroc=auroc(
                [original[name] for name in self.refused], [original[name] for name in self.answered]
            ),
            shift=shift,
            covered=self.covered,
        )


def probing_of(
    suite: PromptSuite, judge: Judge, original: Transcript, tokenizer: PreTrainedTokenizerBase
) -> Probing | Unmeasured:
    """What to probe, from the original's answers."""
    asked = [
        prompt
        for prompt in suite.prompts
        if prompt.kind in JUDGED and not prompt.is_variant and prompt.id in original.greedy
    ]
    labels = {prompt.id: judge.label(prompt.text, original.greedy[prompt.id]) for prompt in asked}
    tokens = {
        prompt.id: list(tokenizer(original.greedy[prompt.id], add_special_tokens=False)["input_ids"])
        for prompt in asked
    }
    halves = tuple(
        tuple(
            prompt
            for kind in JUDGED
            for prompt in [other for other in asked if other.kind is kind][half :: len(HALVES)]
        )
        for half in HALVES
    )
    openings = tuple(
        openings_of(
            *(
                [tokens[prompt.id] for prompt in halves[1 - half] if labels[prompt.id] is label]
                for label in (Label.REFUSED, Label.COMPLIED)
            )
        )
        for half in HALVES
    )
    if not all(openings):
        return Unmeasured("the original has no beginning of its own for its refusals")
    refused = [
        (prompt.id, begins(tokens[prompt.id], openings[half]))
        for half in HALVES
        for prompt in halves[half]
        if prompt.kind is PromptKind.HARMFUL and labels[prompt.id] is Label.REFUSED
    ]
    return Probing(
        halves=halves,
        openings=openings,
        refused=tuple(name for name, _ in refused),
        answered=tuple(name for name, label in labels.items() if label is Label.COMPLIED),
        covered=wilson(sum(covered for _, covered in refused), len(refused)),
    )


@dataclass(slots=True)
class Prober:
    """Probes the original before a fork's values replace its own, and the fork after."""

    request: EvalRequest
    bench: Bench
    probing: Probing | Unmeasured
    before: Scores

    @staticmethod
    def of(request: EvalRequest, bench: Bench, progress: Callable[[str], None]) -> Prober:
        """The original's scores, where a probe is asked for and its answers are known."""
        if not request.probe:
            return Prober(request, bench, NOT_ASKED, {})
        if request.weights and request.baseline_transcript is None:
            return Prober(request, bench, Unmeasured("no transcript of the original was given"), {})
        prober = Prober(request, bench, Unmeasured("this is the original"), {})
        if request.baseline_transcript is not None and request.weights:
            progress("probe the original")
            prober.start(load_transcript(request.baseline_transcript))
        return prober

    def start(self, original: Transcript) -> None:
        """Find openings, score the original; the model must hold its values."""
        asker = self.bench.asker
        self.probing = probing_of(self.bench.suite, self.bench.judge, original, asker.tokenizer)
        if isinstance(self.probing, Probing):
            self.before = self.probing.scores(asker.model, asker.tokenizer)

    def report(self, transcript: Transcript) -> Probe | Unmeasured:
        """The probe of what the model holds now, whose answers these are; none: it could not be measured."""
        if not self.request.probe:
            return NOT_ASKED
        if not transcript.greedy:
            return Unmeasured("the fork does not fit the original")
        if not self.request.weights:
            self.start(transcript)
        if isinstance(self.probing, Unmeasured):
            return self.probing
        asker = self.bench.asker
        after = self.probing.scores(asker.model, asker.tokenizer) if self.request.weights else None
        return self.probing.report(self.before, after)
