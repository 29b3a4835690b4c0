"""Many variants of one original in one child: it is loaded once, asked once, and restored between them.

(1) The original is loaded. (2) Its answers are made, or taken from a transcript; its predictions on them are
kept, and its behaviour measured. (3) Each variant's values are swapped in, measured, taken back and verified.
A variant that does not fit is unmeasured with the reason; so are those for which no time is left.
Importing this module imports torch and transformers; only the evaluation child does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from evals.answers import NOTHING_KNOWN, Asker, Asking
from evals.confine import Confinement
from evals.divergence import Reference
from evals.examine import Bench, Examined
from evals.interface import Unmeasured
from evals.judges.calibrate import judge_for
from evals.load import load_original
from evals.measure import misfit_reason, pick_device
from evals.memory import is_full
from evals.parts import ForkMisfitError
from evals.suite import load_suite
from evals.swap import Swap
from evals.variants import SeriesRequest, Variant, VariantResult
from evals.wire import SeriesReport, load_transcript

Progress = Callable[[str], None]

MARGIN = 0.95
"""Share of the time of a series after which no variant is begun that would take as long as the longest."""


def measure_series(request: SeriesRequest, confinement: Confinement, progress: Progress) -> SeriesReport:
    """Measure the original and each variant of it."""
    started = time.monotonic()
    device = pick_device(request.device)
    progress("load the original")
    model, tokenizer = load_original(request.original, device)
    asking = Asking(max_new_tokens=request.max_new_tokens, seed=request.seed)
    suite = load_suite(request.suite).at(request.tier)
    bench = Bench(Asker(model, tokenizer, asking), suite, request.tier, judge_for(request.calibration))
    swap = Swap(model)
    load_seconds = time.monotonic() - started
    original, reference = _original(request, bench, progress)
    run = _Run(bench, swap, reference, started + MARGIN * request.timeout_seconds)
    total = len(request.variants)
    variants = tuple(
        run.measure(variant, lambda text, number=number: progress(f"fork {number}/{total}: {text}"))  # type: ignore[misc]
        for number, variant in enumerate(request.variants, 1)
    )
    return SeriesReport(
        original=original,
        variants=variants,
        isolation=confinement.isolation,
        device=device,
        load_seconds=load_seconds,
        gaps=confinement.gaps,
    )


def _original(
    request: SeriesRequest, bench: Bench, progress: Progress
) -> tuple[VariantResult, Reference | Unmeasured]:
    started = time.monotonic()
    given = request.baseline_transcript
    known = NOTHING_KNOWN if given is None else load_transcript(given)
    examined = bench.examine(
        Unmeasured("this is the original"), lambda text: progress(f"original: {text}"), known
    )
    reference = bench.reference(examined.transcript, progress)
    return _result("original", examined, time.monotonic() - started, 0.0), reference


@dataclass(slots=True)
class _Run:
    """The variants, one after the other."""

    bench: Bench
    swap: Swap
    reference: Reference | Unmeasured
    deadline: float
    longest: float = 0.0

    def measure(self, variant: Variant, progress: Progress) -> VariantResult:
        """One variant, swapped in and out."""
        started = time.monotonic()
        if started + self.longest > self.deadline:
            return _result(variant.id, self.bench.unmeasured("the series ran out of its time"), 0.0, 0.0)
        notes: tuple[str, ...] = ()
        inside = 0.0
        try:
            progress("load")
            with self.swap.holding(variant) as notes:
                held = time.monotonic()
                examined = self.bench.examine(self.reference, progress)
                inside = time.monotonic() - held
        except ForkMisfitError as misfit:
            examined = self.bench.unmeasured(misfit_reason(misfit))
        except RuntimeError as error:
            if not is_full(error):
                raise
            examined = self.bench.unmeasured("the memory is too small for it beside the original's values")
        seconds = time.monotonic() - started
        self.longest = max(self.longest, seconds)
        return replace(_result(variant.id, examined, seconds, seconds - inside), notes=notes)


def _result(name: str, examined: Examined, seconds: float, swap_seconds: float) -> VariantResult:
    return VariantResult(
        id=name,
        behaviour=examined.behaviour,
        kl_per_token=examined.kl_per_token,
        perplexity_ratio=examined.perplexity_ratio,
        seconds=seconds,
        swap_seconds=swap_seconds,
    )
