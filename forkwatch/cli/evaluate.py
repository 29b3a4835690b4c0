"""`forkwatch eval`."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from forkwatch.cli.evaluate_options import (
    CardOption,
    DeviceOption,
    EngineChoice,
    EngineOption,
    InspectLogOption,
    JudgeOption,
    JudgeTokenOption,
    ModelArgument,
    OriginalOption,
    RepeatsOption,
    SuiteOption,
    TaskLimitOption,
    TaskOption,
    TaskPathOption,
    ThresholdsOption,
    TierChoice,
    TierOption,
)
from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption, PlainHttpOption, RequireIsolationOption
from forkwatch.cli.output import data, say
from forkwatch.errors import Exit, SettingsError

if TYPE_CHECKING:
    from datetime import datetime

    from evals.harness import TaskPlan
    from evals.judges.interface import BatchJudge
    from evals.measurements import EvalResult
    from forkwatch.pipeline.context import Talk
    from forkwatch.pipeline.evaluation import Plan, Subject
    from forkwatch.pipeline.sides import Side
    from forkwatch.settings import Settings
    from reports.evaluation import EvaluationDocument


MODEL_TOKEN = "FORKWATCH_MODEL_TOKEN"  # noqa: S105 - the name, not the token


@handled
def evaluate(
    model: ModelArgument,
    original: OriginalOption = None,
    tier: TierOption = TierChoice.QUICK,
    suite: SuiteOption = None,
    thresholds: ThresholdsOption = None,
    repeats: RepeatsOption = 0,
    judge: JudgeOption = None,
    judge_token: JudgeTokenOption = None,
    plain_http: PlainHttpOption = False,
    task: TaskOption = None,
    task_limit: TaskLimitOption = None,
    task_path: TaskPathOption = None,
    card: CardOption = None,
    inspect_log: InspectLogOption = None,
    engine: EngineOption = EngineChoice.TRANSFORMERS,
    device: DeviceOption = None,
    require_isolation: RequireIsolationOption = False,
    json_output: JsonOption = False,
) -> None:
    """Measure refusals, over-refusal and usefulness of a model, and hold them against limits.

    With --tier auto, a model with an original is asked as little as decides what became of its refusals; the
    original is asked the quick tier first, and all of the suite only where that does not decide.
    Exit code 1 when a limit is missed, 3 when it cannot be told.
    """
    from forkwatch.cli.session import utc_now
    from forkwatch.pipeline.evaluation import run_evaluation, scratch_folder
    from forkwatch.pipeline.evaluation_document import evaluation_document

    settings = device_settings(device, require_isolation=require_isolation)
    if judge and tier is TierChoice.AUTO:
        raise SettingsError("--judge needs all answers of a tier", tip="Give --tier screen, quick or full.")
    plan = _plan(settings, suite, thresholds, tier, repeats)
    plan = replace(plan, tasks=_tasks(task or [], task_limit, task_path))
    _check_places(card, inspect_log)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(scratch_folder()))
        subject, talk = _subject(settings, model, original, engine, scratch, stack, plain_http=plain_http)
        if plan.tasks and subject.served is not None:
            raise SettingsError("--task needs weights, which a served model does not give")
        plan = replace(plan, judges=_judges(judge or [], judge_token, settings, talk, plain_http=plain_http))
        try:
            found = run_evaluation(subject, plan, scratch, talk.note)
        except KeyboardInterrupt as error:
            say("forkwatch: interrupted; nothing of this evaluation is kept")
            raise typer.Exit(130) from error
        log = _log(plan, found.model, subject.name, utc_now()) if inspect_log is not None else ""
    limits = "built-in" if thresholds is None else thresholds.name
    document = evaluation_document(subject, found, limits, utc_now())
    _tell(document, card, inspect_log, log, json_output=json_output)
    raise typer.Exit(_EXITS[document.result])


def _check_places(*places: Path | None) -> None:
    """Whatever cannot be written is said before anything is run."""
    for place in places:
        if place is not None and (place.is_dir() or not os.access(place.parent, os.W_OK)):
            raise SettingsError(f"cannot write {place}", tip="Check the path: nothing was run yet.")


def _tell(
    document: EvaluationDocument, card: Path | None, inspect_log: Path | None, log: str, *, json_output: bool
) -> None:
    """Write the files that were asked for, and print the numbers."""
    from forkwatch.cli.evaluate_show import show
    from reports.contract import dump
    from reports.safety_card import safety_card

    try:
        if card is not None:
            _write(card, safety_card(document))
        if inspect_log is not None:
            _write(inspect_log, log)
    finally:  # a card that cannot be written must not cost the numbers
        if json_output:
            data(dump(document).rstrip("\n"))
        else:
            show(document)


_EXITS = {"passed": Exit.OK, "failed": Exit.FINDING, "inconclusive": Exit.INCONCLUSIVE}


def device_settings(device: str | None, *, require_isolation: bool) -> Settings:
    """The settings, with the device and the isolation that the command line asks for.

    Raises:
        SettingsError: there is no such device.
        IsolationError: full isolation is required, and this machine does not give it.
    """
    from forkwatch.cli.session import isolating_settings
    from forkwatch.sections.judging import EvaluationSettings

    settings = isolating_settings(required=require_isolation)
    if device is None:
        return settings
    if device not in ("auto", "cpu", "cuda"):
        raise SettingsError(f"there is no device {device!r}", tip="It is auto, cpu or cuda.")
    options = EvaluationSettings.model_validate({**settings.evaluation.model_dump(), "device": device})
    return settings.model_copy(update={"evaluation": options})


def _judges(
    names: list[str], token_file: Path | None, settings: Settings, talk: Talk, *, plain_http: bool
) -> tuple[BatchJudge, ...]:
    """Second opinions, none of which has read anything yet."""
    from evals.endpoint import read_token
    from evals.judges.choose import open_judge
    from forkwatch.cli.judge import TOKEN_VARIABLE
    from forkwatch.pipeline.limits import limits_of

    token = read_token(token_file) if token_file else os.environ.get(TOKEN_VARIABLE) or None
    return tuple(
        open_judge(
            name,
            token=token,
            insecure=plain_http,
            device=settings.evaluation.device,
            limits=limits_of(settings.evaluation),
            progress=partial(talk.progress, f"judge {name}"),
        )
        for name in names
    )


def _tasks(names: list[str], limit: int | None, folder: Path | None) -> TaskPlan | None:
    """Tasks that exist, or an error before a model is loaded."""
    from evals.harness import TaskPlan, check_tasks

    if folder is not None and not folder.is_dir():
        raise SettingsError(f"there is no folder {folder}", tip="Give the folder of the YAML files.")
    if not names:
        return None
    plan = TaskPlan(names=tuple(dict.fromkeys(names)), limit=limit, folder=folder)
    check_tasks(plan)
    return plan


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
    settings: Settings,
    model: str,
    original: str | None,
    engine: EngineChoice,
    scratch: Path,
    stack: ExitStack,
    *,
    plain_http: bool,
) -> tuple[Subject, Talk]:
    """What to evaluate; the Hub and the store are opened only where one of the two is a repository."""
    from forkwatch.cli.output import progress
    from forkwatch.cli.session import session
    from forkwatch.pipeline.evaluation_subject import local_subject, repo_subject
    from forkwatch.pipeline.sides import LocalSide, parse_side

    base = None if original is None else parse_side(original)
    if model.startswith(("http://", "https://")):
        talk = stack.enter_context(progress())
        return _served(model, base, talk, plain_http=plain_http), talk
    what = parse_side(model)
    if isinstance(what, LocalSide) and (base is None or isinstance(base, LocalSide)):
        subject = local_subject(what, base)
        if engine is EngineChoice.VLLM:
            subject = _in_vllm(subject)
        return subject, stack.enter_context(progress())
    if engine is EngineChoice.VLLM:
        raise SettingsError("--engine vllm runs a folder only", tip="Download the model first.")
    context = stack.enter_context(session(settings))
    return repo_subject(context, what, base, scratch), context.talk


def _in_vllm(subject: Subject) -> Subject:
    """A whole model that the user trusts to run outside the sandbox."""
    from evals.vllm_engine import VllmGenerator

    if subject.original is not None:
        raise SettingsError("--engine vllm takes no --original", tip="Forks run in the sandbox only.")
    return replace(subject, served=VllmGenerator(subject.folder))


def _served(model: str, base: Side | None, talk: Talk, *, plain_http: bool) -> Subject:
    """A model behind an endpoint; only a folder can be its original."""
    from evals.endpoint import ChatClient, Endpoint, EndpointGenerator
    from forkwatch.pipeline.evaluation_subject import served_subject
    from forkwatch.pipeline.sides import LocalSide

    url, _, name = model.partition("#")
    if not name:
        raise SettingsError(f"{model} names no model", tip="Add it: https://host/v1#model.")
    if base is not None and not isinstance(base, LocalSide):
        raise SettingsError("a served model is compared with a folder only", tip="Give --original FOLDER.")
    client = ChatClient(Endpoint(url, name, os.environ.get(MODEL_TOKEN) or None, insecure=plain_http))
    return served_subject(name, EndpointGenerator(client, progress=partial(talk.progress, name)), base)


def _log(plan: Plan, result: EvalResult, name: str, now: datetime) -> str:
    """The evaluation as a log of Inspect, without answers."""
    from evals.inspect_log import inspect_log
    from evals.suite import load_suite
    from evals.wire import load_transcript

    suite = load_suite(plan.suite).at(result.behaviour.tier)
    transcript = load_transcript(result.transcript)
    document = inspect_log(result.behaviour, suite, transcript, model=name, created=now)
    return json.dumps(document, indent=1) + "\n"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}", tip="Check the path.") from error
    say(f"Wrote {path}.")
