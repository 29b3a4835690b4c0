"""`forkwatch eval`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption, RequireIsolationOption
from forkwatch.cli.output import data, say, table
from forkwatch.errors import Exit, SettingsError
from forkwatch.text import plain

if TYPE_CHECKING:
    from forkwatch.pipeline.evaluation import Plan, Subject
    from forkwatch.settings import Settings
    from reports.evaluation import CheckView, EvaluationDocument
    from reports.scan import NumberView


class TierChoice(StrEnum):
    """How much of the suite is asked."""

    SCREEN = "screen"
    QUICK = "quick"
    FULL = "full"


@handled
def evaluate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A folder, weights or adapter with --original, or ORG/NAME."),
    ],
    original: Annotated[
        str | None,
        typer.Option("--original", "-o", help="What it was made from: a folder, or a guarded ORG/NAME."),
    ] = None,
    tier: Annotated[
        TierChoice, typer.Option("--tier", help="How much of the suite is asked.")
    ] = TierChoice.QUICK,
    suite: Annotated[
        Path | None, typer.Option("--suite", help="Prompt suite (default: the built-in one).")
    ] = None,
    thresholds: Annotated[
        Path | None, typer.Option("--thresholds", help="TOML file of limits (default: the built-in ones).")
    ] = None,
    card: Annotated[
        Path | None, typer.Option("--card", help="Write a safety card (Markdown, model-index) here.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.")] = None,
    require_isolation: RequireIsolationOption = False,
    json_output: JsonOption = False,
) -> None:
    """Measure refusals, over-refusal and usefulness of a model, and hold them against limits.

    Exit code 1 when a limit is missed, 3 when it cannot be told.
    """
    from forkwatch.cli.session import utc_now
    from forkwatch.pipeline.evaluation import evaluation_document, run_evaluation, scratch_folder
    from reports.contract import dump
    from reports.safety_card import safety_card

    settings = _settings(device, require_isolation=require_isolation)
    plan = _plan(settings, suite, thresholds, tier)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(scratch_folder()))
        subject, note = _subject(settings, model, original, scratch, stack)
        found = run_evaluation(subject, plan, scratch, note)
    limits = "built-in" if thresholds is None else thresholds.name
    document = evaluation_document(subject, plan, found, limits, utc_now())
    if card is not None:
        _write(card, safety_card(document))
    if json_output:
        data(dump(document).rstrip("\n"))
    else:
        _show(document)
    raise typer.Exit(_EXITS[document.result])


_EXITS = {"passed": Exit.OK, "failed": Exit.FINDING, "inconclusive": Exit.INCONCLUSIVE}


def _settings(device: str | None, *, require_isolation: bool) -> Settings:
    from forkwatch.cli.session import isolating_settings
    from forkwatch.settings import EvaluationSettings

    settings = isolating_settings(required=require_isolation)
    if device is None:
        return settings
    if device not in ("auto", "cpu", "cuda"):
        raise SettingsError(f"there is no device {device!r}", tip="It is auto, cpu or cuda.")
    options = EvaluationSettings.model_validate({**settings.evaluation.model_dump(), "device": device})
    return settings.model_copy(update={"evaluation": options})


def _plan(settings: Settings, suite: Path | None, thresholds: Path | None, tier: TierChoice) -> Plan:
    """Everything that can be wrong with the options, before a model is loaded."""
    from evals.interface import Tier
    from evals.suite import CORE, load_suite
    from evals.thresholds import DEFAULT, load_thresholds
    from forkwatch.pipeline.evaluation import Plan

    load_suite(suite or CORE)
    return Plan(
        suite=suite or CORE,
        tier=Tier(tier.value),
        options=settings.evaluation,
        policy=settings.policy,
        thresholds=load_thresholds(thresholds or DEFAULT),
    )


def _subject(
    settings: Settings, model: str, original: str | None, scratch: Path, stack: ExitStack
) -> tuple[Subject, Callable[[str], None]]:
    """What to evaluate; the Hub and the store are opened only where one of the two is a repository."""
    from forkwatch.cli.output import progress
    from forkwatch.cli.session import session
    from forkwatch.pipeline.evaluation_subject import local_subject, repo_subject
    from forkwatch.pipeline.sides import LocalSide, parse_side

    what, base = parse_side(model), None if original is None else parse_side(original)
    if isinstance(what, LocalSide) and (base is None or isinstance(base, LocalSide)):
        subject = local_subject(what, base)
        return subject, stack.enter_context(progress()).note
    context = stack.enter_context(session(settings))
    return repo_subject(context, what, base, scratch), context.talk.note


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}", tip="Check the path.") from error
    say(f"Wrote {path}.")


# --- for a person ------------------------------------------------------------------------------

_NAMES = {
    "refusal": "refuses harmful requests",
    "over_refusal": "refuses harmless look-alikes",
    "ungradeable": "not gradeable",
    "degenerate": "plain answers that loop",
    "choice": "multiple choice",
}


def _show(document: EvaluationDocument) -> None:
    against = f", against {document.original}" if document.original else ""
    data(plain(f"{document.model}{against}: {document.result.upper()}", 400))
    columns = ["", "model", *(["original"] if document.baseline else [])]
    rows = [
        [
            label,
            *(
                _number(getattr(behaviour, name))
                for behaviour in (document.behaviour, document.baseline)
                if behaviour is not None
            ),
        ]
        for name, label in _NAMES.items()
    ]
    table(f"{document.suite}, tier {document.tier}, judge {document.judge}", columns, rows)
    _show_change(document)
    missed = [found for found in document.checks if found.outcome != "met"]
    unsure = [found for found in document.checks if found.outcome == "met" and not found.surely]
    for found in missed:
        data(plain(f"  {found.outcome}: {_check(found)}"))
    if unsure:
        names = ", ".join(found.name for found in unsure)
        data(plain(f"  met, but the interval reaches past the limit: {names}", 600))
    data(
        plain(f"  {len(document.checks)} limits ({document.thresholds}), {document.seconds:.0f} s, ")
        + plain(f"{document.device}, {document.isolation}", 300)
    )


def _show_change(document: EvaluationDocument) -> None:
    change = document.comparison
    if change is None:
        return
    data(plain(f"  safety {change.status}: {change.reason}", 400))
    data(plain(f"  KL per token {_number(change.kl_per_token, '.3g')}"))
    data(plain(f"  perplexity ratio {_number(change.perplexity_ratio, '.3g')}"))


def _check(found: CheckView) -> str:
    sign = ">=" if "_min" in found.name else "<="
    return f"{found.name} {sign} {found.limit:g}, measured {_number(found.value, '.3g')}"


def _number(number: NumberView, form: str = ".0%") -> str:
    from reports.scan import RateView

    if not isinstance(number, RateView):
        return f"not measured ({number.unmeasured})"
    low, high = (format(bound, form) for bound in number.ci)
    return f"{format(number.rate, form)} (n = {number.n}, 95 % {low} to {high})"
