"""`forkwatch robustness`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption, ReleaseOption, RequireIsolationOption
from forkwatch.cli.output import data, say, table
from forkwatch.text import plain

if TYPE_CHECKING:
    from reports.robustness import DoseView, MergesView, MergeView, RobustnessDocument
    from reports.scan import NumberView


class TierChoice(StrEnum):
    """How much of the suite is asked of each variant."""

    SCREEN = "screen"
    QUICK = "quick"
    FULL = "full"


@handled
def robustness(
    target: Annotated[
        str | None, typer.Argument(metavar="REPO|PATH", help="A fork: ORG/NAME[@REVISION], folder or file.")
    ] = None,
    dose: Annotated[bool, typer.Option("--dose", help="Shares of the fork's delta (the default).")] = False,
    merges: Annotated[
        bool, typer.Option("--merges", help="The release with its benign adapters merged in; takes no fork.")
    ] = False,
    release: ReleaseOption = None,
    tier: Annotated[TierChoice, typer.Option("--tier", help="Prompts asked of each.")] = TierChoice.QUICK,
    require_isolation: RequireIsolationOption = False,
    json_output: JsonOption = False,
) -> None:
    """Measure how far a fork is from keeping its refusals, or a release from losing them to adapters."""
    from evals.interface import Tier
    from forkwatch.cli.session import isolating_settings, session
    from forkwatch.pipeline.originals import find_release, open_original
    from forkwatch.pipeline.robustness import dose_response, merge_robustness
    from forkwatch.pipeline.robustness_document import dose_document, merges_document
    from reports.robustness import to_json

    if merges and (dose or target is not None):
        raise typer.BadParameter("--merges is about a release: it takes no fork, and no --dose")
    if not merges and target is None:
        raise typer.BadParameter("name a fork, or say --merges")
    with session(isolating_settings(required=require_isolation)) as context:
        original = open_original(context, find_release(context, release))
        if target is None:
            document = merges_document(original, merge_robustness(context, original, Tier(tier.value)))
        else:
            document = dose_document(original, dose_response(context, original, target, Tier(tier.value)))
    if json_output:
        data(to_json(document).rstrip("\n"))
    else:
        _show(document)


def _show(document: RobustnessDocument) -> None:
    if document.dose is not None:
        _show_dose(document.dose)
    if document.merges is not None:
        _show_merges(document.merges)
    say(
        f"{document.suite}, tier {document.tier}, judge {document.judge}, {document.device}, "
        f"{document.isolation}, {document.seconds:.0f} s"
    )


def _show_dose(view: DoseView) -> None:
    from reports.numbers import point

    table(
        plain(f"Dose response of {view.fork}", 120),
        ("share of the delta", "refusal", "fit", "over-refusal", "degenerate", "choice", "KL"),
        [
            (
                f"{p.dose:g}",
                _rate(p.refusal),
                "left out" if p.fitted is None else f"{p.fitted:.0%}",
                point(p.over_refusal),
                point(p.degenerate),
                point(p.choice),
                point(p.kl_per_token, "nats"),
            )
            for p in view.points
        ],
    )
    data(_half(view))


def _half(view: DoseView) -> str:
    from reports.robustness import NoHalfDoseView

    half = view.half
    if isinstance(half, NoHalfDoseView):
        return plain(f"No collapse: {half.no_collapse}", 400)
    high = f"beyond {view.points[-1].dose:g}" if half.high is None else f"{half.high:g}"
    return (
        f"Refusals have fallen by half between {half.between[0]:g} and {half.between[1]:g} of the delta "
        f"(about {half.dose:.2f}; 95 % {half.low:g} to {high}, n = {half.n} prompts)"
    )


def _show_merges(view: MergesView) -> None:
    table(
        "The release with benign adapters merged in",
        ("adapters", "scale", "stored", "refusal", "drop", "p (Holm)", ""),
        [_merge_row(merge) for merge in sorted(view.merges, key=lambda m: (m.adapters, m.scale, m.storage))],
    )
    for adapter in view.by_adapter:
        data(plain(f"{adapter.adapter}: worst drop {_worst(adapter.worst)}", 400))
    for out in view.left_out:
        say(plain(f"left out: {out.adapter}: {out.reason}", 400))
    if view.dropped:
        say(f"{view.dropped} further merges were not measured")


def _merge_row(merge: MergeView) -> tuple[str, ...]:
    return (
        ", ".join(name.partition("@")[0] for name in merge.adapters) or "none",
        f"{merge.scale:g}",
        merge.storage,
        _rate(merge.refusal),
        _rate(merge.refusal_drop),
        "" if merge.p_value is None else f"{merge.p_value:.3g}",
        "*" if merge.significant else "",
    )


def _worst(found: object) -> str:
    from reports.robustness import MergeView
    from reports.scan import UnmeasuredView

    if isinstance(found, MergeView):
        chance = "" if found.significant else ", no more than chance"
        return f"{_rate(found.refusal_drop)} at scale {found.scale:g}, {found.storage}{chance}"
    return f"not measured ({found.unmeasured})" if isinstance(found, UnmeasuredView) else ""


def _rate(number: NumberView) -> str:
    from reports.numbers import point, spread

    return f"{point(number)} ({spread(number)})"
