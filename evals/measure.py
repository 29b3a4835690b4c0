"""What the child measures once it is confined: answers, labels, divergence from the original.

Importing this module imports torch and transformers; only the evaluation child does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from evals.answers import answers
from evals.behaviour import behaviour_of, unmeasured_behaviour
from evals.confine import Confinement
from evals.divergence import divergence, reference_of
from evals.interface import (
    EvalRequest,
    Outcome,
    Transcript,
    Unmeasured,
)
from evals.judges.builtin import BuiltinJudge
from evals.load import load_original
from evals.parts import ForkMisfitError
from evals.suite import load_suite
from evals.swap import apply_fork
from evals.wire import TRANSCRIPT, ChildReport, write_transcript

Progress = Callable[[str], None]


def measure(request: EvalRequest, confinement: Confinement, progress: Progress) -> ChildReport:
    """Evaluate the original (no weights) or a fork; leaves the transcript in the scratch folder."""
    suite = load_suite(request.suite).at(request.tier)
    device = pick_device(request.device)
    progress("load the original")
    model, tokenizer = load_original(request.original, device)
    reference = reference_of(request, suite, model, tokenizer, progress)
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
        kl_per_token, perplexity_ratio = divergence(reference, model, tokenizer, progress)
        transcript = answers(request, suite, model, tokenizer, progress)
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
