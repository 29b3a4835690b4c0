"""What the child measures once it is confined: answers, labels, divergence from the original.

Importing this module imports torch and transformers; only the evaluation child does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from evals.confine import Confinement
from evals.engine import TransformersGenerator, answer_logits, token_divergence, token_logprobs
from evals.interface import (
    Behaviour,
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
from evals.judge import BuiltinJudge
from evals.load import ForkMisfitError, apply_fork, load_original
from evals.metrics import at_least, exponential, mean_interval, wilson
from evals.suite import load_suite
from evals.text import is_degenerate
from evals.wire import JUDGED, TRANSCRIPT, ChildReport, load_transcript, write_transcript

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SCORED_TOKENS = 48
"""Answer tokens compared with the original at most; 32 to 64 show what the first alone hides."""

LOGIT_BYTES = 1 << 30
"""Memory for the original's logits: 40 answers × 40 tokens × 49 152 words in bf16 take 157 MB."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Reference:
    """What the original predicts on its own answers."""

    pairs: tuple[tuple[str, str], ...]
    logits: tuple[torch.Tensor, ...]
    """For each pair, [tokens, vocabulary]."""
    max_tokens: int


def measure(request: EvalRequest, confinement: Confinement, progress: Progress) -> ChildReport:
    """Evaluate the original (no weights) or a fork; leaves the transcript in the scratch folder."""
    suite = load_suite(request.suite)
    device = pick_device(request.device)
    progress("load the original")
    model, tokenizer = load_original(request.original, device)
    reference = _reference(request, suite, model, tokenizer, progress)
    judge = BuiltinJudge()
    transcript = Transcript(greedy={}, sampled={})
    kl_per_token: Outcome
    perplexity_ratio: Outcome
    try:
        notes: tuple[str, ...] = ()
        if request.weights:
            progress("load the fork")
            notes = apply_fork(model, request.weights)
    except ForkMisfitError as misfit:
        notes = ()
        reason = f"the fork does not fit the original: {misfit}"
        behaviour = unmeasured_behaviour(suite, judge, reason)
        kl_per_token, perplexity_ratio = Unmeasured(reason), Unmeasured(reason)
    else:
        kl_per_token, perplexity_ratio = _divergence(reference, model, tokenizer, progress)
        transcript = _answers(request, suite, model, tokenizer, progress)
        behaviour = behaviour_of(suite, judge, transcript.greedy)
    write_transcript(request.scratch / TRANSCRIPT, transcript)
    return ChildReport(
        behaviour=behaviour,
        kl_per_token=kl_per_token,
        perplexity_ratio=perplexity_ratio,
        isolation=confinement.isolation,
        device=device,
        notes=notes,
        gaps=confinement.gaps,
    )


def pick_device(wanted: str) -> str:
    """`cpu` or `cuda`; `auto` takes the GPU when there is one."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


# --- answers -----------------------------------------------------------------------------------


def _answers(
    request: EvalRequest,
    suite: PromptSuite,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress,
) -> Transcript:
    def generator(what: str) -> TransformersGenerator:
        return TransformersGenerator(
            model, tokenizer, progress=lambda done, total: progress(f"{what} {done}/{total}")
        )

    greedy = generator("generate").answer(
        [prompt.text for prompt in suite.prompts],
        max_new_tokens=request.max_new_tokens,
        temperature=0.0,
        seed=request.seed,
    )
    utility = suite.of(PromptKind.UTILITY)
    sampled = generator("sample").answer(
        [prompt.text for prompt in utility for _ in range(request.samples)],
        max_new_tokens=request.max_new_tokens,
        temperature=1.0,
        seed=request.seed,
    )
    rows = [sampled[i * request.samples : (i + 1) * request.samples] for i in range(len(utility))]
    return Transcript(
        greedy={prompt.id: text for prompt, text in zip(suite.prompts, greedy, strict=True)},
        sampled={prompt.id: tuple(row) for prompt, row in zip(utility, rows, strict=True)},
    )


def behaviour_of(suite: PromptSuite, judge: Judge, answers: Mapping[str, str]) -> Behaviour:
    """Label every harmful and twin answer and count. An ungradeable answer is in no rate but its own."""
    labels = {
        prompt.id: judge.label(prompt.text, answers[prompt.id])
        for prompt in suite.prompts
        if prompt.kind in JUDGED
    }
    harmful = suite.of(PromptKind.HARMFUL)
    utility = suite.of(PromptKind.UTILITY)
    topics = dict.fromkeys(prompt.topic for prompt in harmful)
    return Behaviour(
        suite=f"{suite.id}@{suite.version}",
        suite_digest=suite.digest,
        judge=judge.id,
        refusal=_refusal_rate(harmful, labels),
        over_refusal=_refusal_rate(suite.of(PromptKind.BENIGN_TWIN), labels),
        ungradeable=wilson(sum(label is Label.UNGRADEABLE for label in labels.values()), len(labels)),
        degenerate=wilson(sum(is_degenerate(answers[prompt.id]) for prompt in utility), len(utility)),
        labels=tuple(labels.items()),
        refusal_by_topic=tuple(
            (topic, _refusal_rate([prompt for prompt in harmful if prompt.topic == topic], labels))
            for topic in topics
        ),
        harmful=tuple(prompt.id for prompt in harmful),
    )


def _refusal_rate(prompts: Sequence[Prompt], labels: Mapping[str, Label]) -> Outcome:
    graded = [labels[prompt.id] for prompt in prompts if labels[prompt.id] is not Label.UNGRADEABLE]
    if prompts and not graded:
        return Unmeasured(f"none of {len(prompts)} answers could be graded")
    return wilson(sum(label is Label.REFUSED for label in graded), len(graded))


def unmeasured_behaviour(suite: PromptSuite, judge: Judge, reason: str) -> Behaviour:
    """A behaviour that could not be measured."""
    nothing = Unmeasured(reason)
    return Behaviour(
        suite=f"{suite.id}@{suite.version}",
        suite_digest=suite.digest,
        judge=judge.id,
        refusal=nothing,
        over_refusal=nothing,
        ungradeable=nothing,
        degenerate=nothing,
        labels=(),
        refusal_by_topic=(),
    )


# --- divergence --------------------------------------------------------------------------------


def _reference(
    request: EvalRequest,
    suite: PromptSuite,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress,
) -> _Reference | Unmeasured:
    """The original's logits on its own greedy utility answers, before the fork replaces its values."""
    if not request.weights:
        return Unmeasured("this is the original")
    if request.baseline_transcript is None:
        return Unmeasured("no transcript of the original was given")
    greedy = load_transcript(request.baseline_transcript).greedy
    utility = suite.of(PromptKind.UTILITY)
    pairs = tuple((prompt.text, greedy[prompt.id]) for prompt in utility if greedy.get(prompt.id))
    if not pairs:
        return Unmeasured("the original answered no utility prompt")
    progress("score the original")
    row_bytes = model.config.get_text_config().vocab_size * model.dtype.itemsize
    affordable = LOGIT_BYTES // (len(pairs) * row_bytes)
    max_tokens = min(SCORED_TOKENS, request.max_new_tokens, max(1, affordable))
    logits = tuple(row for row, _ in answer_logits(model, tokenizer, pairs, max_tokens=max_tokens))
    return _Reference(pairs, logits, max_tokens)


def _divergence(
    reference: _Reference | Unmeasured,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress,
) -> tuple[Outcome, Outcome]:
    """KL per token and perplexity ratio; the unit of both intervals is the prompt, not the token."""
    if isinstance(reference, Unmeasured):
        return reference, reference
    progress("score the fork")
    divergences: list[float] = []
    losses: list[float] = []
    scored = answer_logits(model, tokenizer, reference.pairs, max_tokens=reference.max_tokens)
    for ours, (theirs, tokens) in zip(reference.logits, scored, strict=True):
        if len(tokens) == 0:
            continue
        divergences.append(token_divergence(ours, theirs).mean().item())
        loss = token_logprobs(ours, tokens) - token_logprobs(theirs, tokens)
        losses.append(loss.mean().item())
    return at_least(mean_interval(divergences), 0.0), exponential(mean_interval(losses))
