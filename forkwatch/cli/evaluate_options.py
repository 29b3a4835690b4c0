"""Options of `forkwatch eval`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class EngineChoice(StrEnum):
    """What runs the model."""

    TRANSFORMERS = "transformers"
    VLLM = "vllm"


class TierChoice(StrEnum):
    """How much of the suite is asked."""

    AUTO = "auto"
    SCREEN = "screen"
    QUICK = "quick"
    FULL = "full"


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A folder; weights or an adapter with --original; ORG/NAME; or URL#MODEL of an "
        "OpenAI-compatible endpoint (its token in FORKWATCH_MODEL_TOKEN).",
    ),
]
OriginalOption = Annotated[
    str | None,
    typer.Option("--original", "-o", help="What it was made from: a folder, or a guarded ORG/NAME."),
]
TierOption = Annotated[
    TierChoice,
    typer.Option("--tier", help="How much of the suite is asked; auto: docs/methodology/screening.md."),
]
SuiteOption = Annotated[
    Path | None, typer.Option("--suite", help="Prompt suite (default: the built-in one).")
]
ThresholdsOption = Annotated[
    Path | None, typer.Option("--thresholds", help="TOML file of limits (default: the built-in ones).")
]
RepeatsOption = Annotated[
    int, typer.Option("--repeats", min=0, max=20, help="Sampled answers a harmful prompt: do labels hold?")
]
JudgeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--judge",
        help="A second opinion on the same answers, as in `judge bench`: a guard model's FOLDER, or "
        "URL#MODEL, to which the answers are sent. Repeatable.",
    ),
]
JudgeTokenOption = Annotated[
    Path | None,
    typer.Option("--judge-token-file", help="File with the judge's token, if not in FORKWATCH_JUDGE_TOKEN."),
]
TaskOption = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        help="A task of the lm-evaluation-harness (if lm-eval is installed), asked of model and original "
        "besides. Repeatable.",
    ),
]
TaskLimitOption = Annotated[
    int | None, typer.Option("--task-limit", min=2, help="Questions a task (default: all).")
]
TaskPathOption = Annotated[
    Path | None, typer.Option("--task-path", help="A folder with YAML files of more tasks.")
]
CardOption = Annotated[
    Path | None,
    typer.Option("--card", help="Write a safety card (Markdown, model-index) here, over what is there."),
]
InspectLogOption = Annotated[
    Path | None,
    typer.Option("--inspect-log", help="Write an Inspect log here: labels, and hashes of the answers."),
]
EngineOption = Annotated[
    EngineChoice,
    typer.Option(
        "--engine", help="vllm: a trusted folder on a GPU, outside the sandbox, without KL and choices."
    ),
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.")]
