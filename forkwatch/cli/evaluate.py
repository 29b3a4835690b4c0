"""`forkwatch eval`."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption, RequireIsolationOption
from forkwatch.cli.output import data, say
from forkwatch.errors import Exit, SettingsError

if TYPE_CHECKING:
    from evals.judges.interface import BatchJudge
    from forkwatch.pipeline.context import Talk
    from forkwatch.pipeline.evaluation import Plan, Subject
    from forkwatch.settings import Settings


class TierChoice(StrEnum):
    """How much of the suite is asked."""

    AUTO = "auto"
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
        TierChoice,
        typer.Option("--tier", help="How much of the suite is asked; auto: docs/methodology/screening.md."),
    ] = TierChoice.QUICK,
    suite: Annotated[
        Path | None, typer.Option("--suite", help="Prompt suite (default: the built-in one).")
    ] = None,
    thresholds: Annotated[
        Path | None, typer.Option("--thresholds", help="TOML file of limits (default: the built-in ones).")
    ] = None,
    repeats: Annotated[
        int,
        typer.Option("--repeats", min=0, max=20, help="Sampled answers a harmful prompt: do labels hold?"),
    ] = 0,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            "--judge",
            help="A second opinion on the same answers, as in `judge bench`: a guard model's FOLDER, or "
            "URL#MODEL, to which the answers are sent. Repeatable.",
        ),
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option("--card", help="Write a safety card (Markdown, model-index) here, over what is there."),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.")] = None,
    require_isolation: RequireIsolationOption = False,
    json_output: JsonOption = False,
) -> None:
    """Measure refusals, over-refusal and usefulness of a model, and hold them against limits.

    With --tier auto, a model with an original is asked as little as decides what became of its refusals; the
    original is asked everything first. Exit code 1 when a limit is missed, 3 when it cannot be told.
    """
    from forkwatch.cli.evaluate_show import show
    from forkwatch.cli.session import utc_now
    from forkwatch.pipeline.evaluation import run_evaluation, scratch_folder
    from forkwatch.pipeline.evaluation_document import evaluation_document
    from reports.contract import dump
    from reports.safety_card import safety_card

    settings = _settings(device, require_isolation=require_isolation)
    if judge and tier is TierChoice.AUTO:
        raise SettingsError("--judge needs all answers of a tier", tip="Give --tier screen, quick or full.")
    plan = _plan(settings, suite, thresholds, tier, repeats)
    if card is not None and (card.is_dir() or not os.access(card.parent, os.W_OK)):
        raise SettingsError(f"cannot write {card}", tip="Check the path: nothing was run yet.")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(scratch_folder()))
        subject, talk = _subject(settings, model, original, scratch, stack)
        plan = replace(plan, judges=_judges(judge or [], settings, talk))
        try:
            found = run_evaluation(subject, plan, scratch, talk.note)
        except KeyboardInterrupt as error:
            say("forkwatch: interrupted; nothing of this evaluation is kept")
            raise typer.Exit(130) from error
    limits = "built-in" if thresholds is None else thresholds.name
    document = evaluation_document(subject, found, limits, utc_now())
    try:
        if card is not None:
            _write(card, safety_card(document))
    finally:  # a card that cannot be written must not cost the numbers
        if json_output:
            data(dump(document).rstrip("\n"))
        else:
            show(document)
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


def _judges(names: list[str], settings: Settings, talk: Talk) -> tuple[BatchJudge, ...]:
    """Second opinions, none of which has read anything yet."""
    from evals.judges.choose import open_judge
    from forkwatch.cli.judge import TOKEN_VARIABLE
    from forkwatch.pipeline.limits import limits_of

    return tuple(
        open_judge(
            name,
            token=os.environ.get(TOKEN_VARIABLE) or None,
            device=settings.evaluation.device,
            limits=limits_of(settings.evaluation),
            progress=partial(talk.progress, f"judge {name}"),
        )
        for name in names
    )


def _plan(
    settings: Settings, suite: Path | None, thresholds: Path | None, tier: TierChoice, repeats: int
) -> Plan:
    """Everything that can be wrong with the options, before a model is loaded."""
    from evals.interface import Tier
    from evals.suite import CORE, load_suite
    from evals.thresholds import DEFAULT, load_thresholds
    from forkwatch.pipeline.evaluation import Plan

    load_suite(suite or CORE)
    return Plan(
        suite=suite or CORE,
        tier=None if tier is TierChoice.AUTO else Tier(tier.value),
        repeats=repeats,
        options=settings.evaluation,
        policy=settings.policy,
        thresholds=load_thresholds(thresholds or DEFAULT),
    )


def _subject(
    settings: Settings, model: str, original: str | None, scratch: Path, stack: ExitStack
) -> tuple[Subject, Talk]:
    """What to evaluate; the Hub and the store are opened only where one of the two is a repository."""
    from forkwatch.cli.output import progress
    from forkwatch.cli.session import session
    from forkwatch.pipeline.evaluation_subject import local_subject, repo_subject
    from forkwatch.pipeline.sides import LocalSide, parse_side

    what, base = parse_side(model), None if original is None else parse_side(original)
    if isinstance(what, LocalSide) and (base is None or isinstance(base, LocalSide)):
        subject = local_subject(what, base)
        return subject, stack.enter_context(progress())
    context = stack.enter_context(session(settings))
    return repo_subject(context, what, base, scratch), context.talk


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}", tip="Check the path.") from error
    say(f"Wrote {path}.")
