"""A series that was run → the `forkwatch.robustness/1` document."""

from __future__ import annotations

from evals.dose import Collapse, DosePoint, NoCollapse
from evals.interface import Isolation, Measured, Unmeasured
from evals.merges import MergeReading
from evals.variants import Storage
from forkwatch.pipeline.originals import Original
from forkwatch.pipeline.robustness import DoseRun, MergeRun, Run
from forkwatch.pipeline.views import number_view
from forkwatch.text import plain
from reports.robustness import (
    AdapterView,
    DosePointView,
    DoseView,
    HalfDoseView,
    LeftOutView,
    MergesView,
    MergeView,
    NoHalfDoseView,
    RobustnessDocument,
)
from reports.scan import UnmeasuredView


def dose_document(original: Original, found: DoseRun) -> RobustnessDocument:
    """A fork's dose response."""
    view = DoseView(
        fork=found.fork,
        points=tuple(_point(point) for point in found.response.points),
        half=_half(found.response.half),
    )
    return _document(original, found.run, view, None)


def merges_document(original: Original, found: MergeRun) -> RobustnessDocument:
    """A release under benign adapters."""
    robustness = found.robustness
    view = MergesView(
        merges=tuple(_merge(reading) for reading in robustness.readings),
        worst=_merge_or_gap(robustness.worst),
        by_adapter=tuple(
            AdapterView(adapter=name, worst=_merge_or_gap(worst)) for name, worst in robustness.by_adapter
        ),
        left_out=tuple(LeftOutView(adapter=out.name, reason=plain(out.reason)) for out in found.left_out),
        dropped=robustness.dropped,
    )
    return _document(original, found.run, None, view)


def _document(
    original: Original, run: Run, dose: DoseView | None, merges: MergesView | None
) -> RobustnessDocument:
    reduced = f"reduced isolation: {'; '.join(run.gaps) or 'not said which'}"
    return RobustnessDocument(
        release=original.name,
        dose=dose,
        merges=merges,
        suite=run.suite,
        suite_digest=run.suite_digest,
        judge=run.judge,
        tier=run.tier.value,
        isolation="sandboxed" if run.isolation is Isolation.SANDBOXED else reduced,
        device=run.device,
        seconds=run.seconds,
    )


def _point(point: DosePoint) -> DosePointView:
    return DosePointView(
        dose=point.dose,
        refusal=number_view(point.refusal),
        refusal_drop=number_view(point.refusal_drop),
        over_refusal=number_view(point.over_refusal),
        degenerate=number_view(point.degenerate),
        choice=number_view(point.choice),
        kl_per_token=number_view(point.kl_per_token),
        perplexity_ratio=number_view(point.perplexity_ratio),
        fitted=None if point.fitted is None else round(point.fitted, 6),
    )


def _half(half: Collapse | NoCollapse) -> HalfDoseView | NoHalfDoseView:
    if isinstance(half, NoCollapse):
        return NoHalfDoseView(no_collapse=plain(half.reason), share=half.share)
    return HalfDoseView(
        dose=round(half.dose, 4),
        low=round(half.low, 4),
        high=None if half.high is None else round(half.high, 4),
        between=half.between,
        n=half.n,
    )


def _merge_or_gap(found: MergeReading | Unmeasured) -> MergeView | UnmeasuredView:
    return UnmeasuredView(unmeasured=plain(found.reason)) if isinstance(found, Unmeasured) else _merge(found)


def _merge(reading: MergeReading) -> MergeView:
    return MergeView(
        adapters=reading.adapters,
        scale=reading.scale,
        storage="int4" if reading.storage is Storage.INT4 else "original",
        refusal=number_view(reading.refusal),
        refusal_drop=number_view(reading.refusal_drop),
        p_value=round(reading.p_value.value, 6) if isinstance(reading.p_value, Measured) else None,
        significant=reading.significant,
        choice=number_view(reading.choice),
        kl_per_token=number_view(reading.kl_per_token),
        degenerate=number_view(reading.degenerate),
    )
