"""`forkwatch judge bench`: how well judges of refusals do on answers that people have labelled."""

from __future__ import annotations

import os
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption, PlainHttpOption, RequireIsolationOption, TokenFileOption
from forkwatch.cli.output import data, data_json, progress, say, table
from forkwatch.errors import Exit, SettingsError
from forkwatch.text import plain

if TYPE_CHECKING:
    from evals.interface import Outcome
    from evals.judges.bench import Bench, JudgeScore, Scored
    from evals.judges.interface import Agreement

app = typer.Typer(help="Judges: who decides whether an answer refuses.", no_args_is_help=True)

TOKEN_VARIABLE = "FORKWATCH_JUDGE_TOKEN"  # noqa: S105 - the name, not the token
_REASONS = 5
"""Reasons shown; `--json` has all."""


class ByChoice(StrEnum):
    """How the numbers are split."""

    MODEL = "model"
    NOTHING = "nothing"


@app.command("bench")
@handled
def bench(
    file: Annotated[Path, typer.Argument(help="Labelled answers: CSV, JSON, JSON lines or Parquet.")],
    judge: Annotated[
        list[str] | None,
        typer.Option(
            "--judge",
            help="builtin; FOLDER or KIND:FOLDER of a guard model; URL#MODEL of an OpenAI-compatible "
            "endpoint (its token in FORKWATCH_JUDGE_TOKEN or --token-file). Several: they are compared.",
        ),
    ] = None,
    format_name: Annotated[
        str | None, typer.Option("--format", help="Format of the file (default: told by its columns).")
    ] = None,
    by: Annotated[ByChoice, typer.Option("--by", help="Split the numbers.")] = ByChoice.MODEL,
    token_file: TokenFileOption = None,
    plain_http: PlainHttpOption = False,
    device: Annotated[str, typer.Option("--device", help="For guard models: auto, cpu or cuda.")] = "auto",
    require_isolation: RequireIsolationOption = False,
    json_output: JsonOption = False,
) -> None:
    """Score judges against people: accuracy, kappa, bias of the refusal rate, and what they could not grade.

    Answers are sent to an endpoint only where one is named with --judge.
    """
    from evals.endpoint import read_token
    from evals.interface import Limits
    from evals.judges.bench import bench as run_bench
    from evals.judges.choose import BUILTIN, open_judge
    from evals.judges.labelled import read_labelled

    if device not in ("auto", "cpu", "cuda"):
        raise SettingsError(f"there is no device {device!r}", tip="It is auto, cpu or cuda.")
    labelled = read_labelled(file, format_name=format_name)
    token = read_token(token_file) if token_file else os.environ.get(TOKEN_VARIABLE) or None
    with progress() as talk:
        judges = [
            open_judge(
                name,
                token=token,
                insecure=plain_http,
                device=device,
                limits=Limits(require_isolation=require_isolation),
                progress=partial(talk.progress, f"judge {name}"),
            )
            for name in judge or [BUILTIN]
        ]
        result = run_bench(labelled, judges)
    if json_output:
        data_json(_document(file, result))
    else:
        _show(result, by)
    if not any(score.overall.agreement.n for score in result.scores):
        say("forkwatch: no judge graded an answer that people graded")
        raise typer.Exit(Exit.INCONCLUSIVE)


def _show(result: Bench, by: ByChoice) -> None:
    labelled = result.labelled
    prompts = len({answer.prompt_id for answer in labelled.answers})
    data(plain(f"{len(labelled.answers)} answers to {prompts} prompts, format {labelled.format}", 200))
    data(plain(f"  labels: {labelled.definition}", 300))
    if labelled.skipped:
        data(f"  rows without an answer: {labelled.skipped}")
    numbers = ("accuracy", "kappa", "bias", "precision", "recall")
    columns = ("model", *numbers, "graded by both", "not by people", "not by the judge")
    for score in result.scores:
        rows = [("all", score.overall), *(score.by_model if by is ByChoice.MODEL else ())]
        title = f"{score.judge} ({score.seconds:.1f} s)"
        table(plain(title, 200), columns, [_row(name, scored) for name, scored in rows])
        if score.mean_accuracy is not None and by is ByChoice.MODEL:
            data(f"  mean over models {score.mean_accuracy:.3f}, largest bias {score.largest_bias:+.3f}")
        for reason, count in score.reasons[:_REASONS]:
            data(plain(f"  ungradeable: {count} × {reason}", 300))
    for first, second, each in result.between:
        data(plain(f"{first} and {second}: {_agreement_line(each)}", 400))
    data("refusal is positive; bias: the judge's refusal rate minus people's; intervals: 95 %, by prompt")


def _row(name: str, scored: Scored) -> tuple[str, ...]:
    from evals.interface import Label

    each = scored.agreement
    numbers = (each.accuracy, each.kappa, each.bias, each.precision, each.recall)
    people = sum(scored.confusion.at(Label.UNGRADEABLE, label) for label in Label)
    judge = sum(scored.confusion.at(label, Label.UNGRADEABLE) for label in Label)
    return (name, *map(_cell, numbers), str(each.n), str(people), str(judge))


def _cell(outcome: Outcome) -> str:
    from evals.interface import Unmeasured

    if isinstance(outcome, Unmeasured):
        return "unmeasured"
    return f"{outcome.value:.3f} [{outcome.low:.3f}, {outcome.high:.3f}]"


def _agreement_line(each: Agreement) -> str:
    return f"agree on {_cell(each.accuracy)}, kappa {_cell(each.kappa)}, {each.n} graded by both"


def _document(file: Path, result: Bench) -> dict[str, object]:
    labelled = result.labelled
    return {
        "schema": "forkwatch.judge-bench/1",
        "file": {
            "name": file.name,
            "format": labelled.format,
            "definition": labelled.definition,
            "answers": len(labelled.answers),
            "prompts": len({answer.prompt_id for answer in labelled.answers}),
            "skipped": labelled.skipped,
        },
        "judges": [_judge_document(score) for score in result.scores],
        "between": [
            {"first": first, "second": second, **_agreement_document(each)}
            for first, second, each in result.between
        ],
    }


def _judge_document(score: JudgeScore) -> dict[str, object]:
    return {
        "judge": score.judge,
        "seconds": round(score.seconds, 3),
        "mean_accuracy": score.mean_accuracy,
        "largest_bias": score.largest_bias,
        "overall": _scored_document(score.overall),
        "models": {name: _scored_document(scored) for name, scored in score.by_model},
        "ungradeable_reasons": dict(score.reasons),
    }


def _scored_document(scored: Scored) -> dict[str, object]:
    from evals.judges.agreement import LABELS

    cells = {
        reference.value: {judged.value: scored.confusion.at(reference, judged) for judged in LABELS}
        for reference in LABELS
    }
    return {**_agreement_document(scored.agreement), "confusion": cells}


def _agreement_document(each: Agreement) -> dict[str, object]:
    return {
        "n": each.n,
        "ungradeable": each.ungradeable,
        "accuracy": _outcome(each.accuracy),
        "kappa": _outcome(each.kappa),
        "bias": _outcome(each.bias),
        "precision": _outcome(each.precision),
        "recall": _outcome(each.recall),
    }


def _outcome(outcome: Outcome) -> dict[str, object]:
    from evals.interface import Unmeasured

    if isinstance(outcome, Unmeasured):
        return {"value": None, "reason": outcome.reason}
    return {"value": outcome.value, "n": outcome.n, "ci": [outcome.low, outcome.high]}
