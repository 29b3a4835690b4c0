"""What the child measures once it is confined: one fork, or the original itself.

Importing this module imports torch and transformers; only the evaluation child does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from evals.answers import NOTHING_KNOWN, Asker, Asking
from evals.confine import Confinement
from evals.divergence import Reference
from evals.examine import Bench
from evals.interface import EvalRequest, Transcript, Unmeasured
from evals.judges.calibrate import judge_for
from evals.load import load_original
from evals.parts import ForkMisfitError
from evals.probing import Prober
from evals.suite import load_suite
from evals.swap import apply_fork
from evals.wire import TRANSCRIPT, ChildReport, load_transcript, write_transcript

Progress = Callable[[str], None]


def measure(request: EvalRequest, confinement: Confinement, progress: Progress) -> ChildReport:
    """Evaluate the original (no weights) or a fork; leaves the transcript in the scratch folder."""
    device = pick_device(request.device)
    progress("load the original")
    model, tokenizer = load_original(request.original, device)
    asking = Asking(
        max_new_tokens=request.max_new_tokens,
        seed=request.seed,
        samples=request.samples,
        repeats=request.repeats,
    )
    suite = load_suite(request.suite).at(request.tier)
    bench = Bench(
        Asker(model, tokenizer, asking), suite, request.tier, judge_for(request.calibration), request.stop
    )
    reference = _reference(request, bench, progress)
    prober = Prober.of(request, bench, progress)
    try:
        notes: tuple[str, ...] = ()
        if request.weights:
            progress("load the fork")
            notes = apply_fork(model, request.weights)
    except ForkMisfitError as misfit:
        examined = bench.unmeasured(misfit_reason(misfit))
    else:
        examined = bench.examine(reference, progress, _transcript(request.known))
    write_transcript(request.scratch / TRANSCRIPT, examined.transcript)
    return ChildReport(
        behaviour=examined.behaviour,
        kl_per_token=examined.kl_per_token,
        perplexity_ratio=examined.perplexity_ratio,
        isolation=confinement.isolation,
        device=device,
        notes=notes,
        gaps=confinement.gaps,
        probe=prober.report(examined.transcript),
    )


def _reference(request: EvalRequest, bench: Bench, progress: Progress) -> Reference | Unmeasured:
    """What the original predicts, before a fork replaces its values."""
    if not request.weights:
        return Unmeasured("this is the original")
    if request.baseline_transcript is None:
        return Unmeasured("no transcript of the original was given")
    return bench.reference(load_transcript(request.baseline_transcript), progress)


def _transcript(path: Path | None) -> Transcript:
    return NOTHING_KNOWN if path is None else load_transcript(path)


def misfit_reason(misfit: ForkMisfitError) -> str:
    """Why a fork could not be measured."""
    return f"the fork does not fit the original: {misfit}"


def pick_device(wanted: str) -> str:
    """`cpu` or `cuda`; `auto` takes the GPU when there is one."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted
