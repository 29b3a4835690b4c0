"""Tasks of the lm-evaluation-harness, with the forward passes in our confined child.

The harness (Gao et al., github.com/EleutherAI/lm-evaluation-harness) makes the texts and scores the answers
here, in the parent; a fork's weights are only ever in the child. Task data come from wherever a task says,
such as the Hub. Texts are asked as they are, without a chat template, which is the harness's own default.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from evals.interface import EngineMissingError, EvalsError, Outcome, Unmeasured
from evals.measurements import NOT_COMPARED, TaskScore
from evals.metrics import Pairs, mean_interval, paired_difference, wilson
from evals.text_items import Completion, Continuation, Document, TextAnswers, TextItems, TextRequest
from evals.texts import ask_texts

DEFAULT_NEW_TOKENS = 256
"""The harness's own, where a task does not say."""


class HarnessMissingError(EngineMissingError):
    """lm-eval is not installed."""

    tip = "pip install lm-eval (no extra is needed), or leave --task out."


class TaskError(EvalsError):
    """A task does not exist, or its data cannot be had."""

    tip = "`lm-eval ls tasks` lists them; --task-path adds a folder of your own."


class TaskMisfitError(EvalsError):
    """The fork does not fit the original, so nothing was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """Which tasks, and how much of each."""

    names: tuple[str, ...]
    limit: int | None = None
    """Questions a task; None: all."""
    folder: Path | None = None
    """YAML files of more tasks."""


@dataclass(frozen=True, slots=True)
class TaskRun:
    """What one model made of the tasks."""

    values: Mapping[tuple[str, str], tuple[float, ...]]
    """(task, metric) to a value a question, in the harness's order."""
    versions: Mapping[str, str]


def run_tasks(plan: TaskPlan, request: TextRequest, *, progress: Callable[[str], None]) -> TaskRun:
    """Run the tasks with one model.

    Raises:
        HarnessMissingError: lm-eval is not installed.
        TaskError: there is no such task, or its data cannot be had.
        TaskMisfitError: the fork does not fit the original.
        EvaluationFailedError: the child died, ran too long or broke its contract.
    """
    manager, evaluate = check_tasks(plan)
    model = _model(request, progress)
    try:
        found = evaluate(
            model=model,
            tasks=list(plan.names),
            limit=plan.limit,
            task_manager=manager,
            bootstrap_iters=0,
            log_samples=True,
        )
    except EvalsError:
        raise
    except Exception as error:  # tasks are code and data of many people
        raise TaskError(f"lm-eval could not run {', '.join(plan.names)}: {error}") from error
    return TaskRun(_values(found["samples"]), {name: str(v) for name, v in found["versions"].items()})


def check_tasks(plan: TaskPlan) -> tuple[Any, Callable[..., Any]]:
    """The harness's task manager and its `simple_evaluate`, if it knows all tasks.

    Raises:
        HarnessMissingError: lm-eval is not installed.
        TaskError: there is no such task.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")  # its bars would break our lines; read when tqdm is imported
    try:
        evaluator: Any = importlib.import_module("lm_eval.evaluator")
    except ImportError as error:
        raise HarnessMissingError(f"lm-eval cannot be imported: {error}") from error
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = _manager(plan)
    if unknown := [name for name in plan.names if name not in manager.all_tasks]:
        raise TaskError(f"lm-eval has no task {unknown[0]!r}")
    return manager, evaluator.simple_evaluate


def task_scores(model: TaskRun, original: TaskRun | None) -> tuple[TaskScore, ...]:
    """Each metric with its interval and, where there is an original, what was lost on the same questions."""
    scores = []
    for (task, metric), values in model.values.items():
        before = None if original is None else original.values.get((task, metric))
        scores.append(
            TaskScore(
                task=task,
                version=model.versions.get(task, ""),
                metric=metric,
                model=_outcome(values),
                original=NOT_COMPARED if before is None else _outcome(before),
                drop=NOT_COMPARED if before is None else _drop(before, values),
            )
        )
    return tuple(scores)


def _outcome(values: Sequence[float]) -> Outcome:
    if _is_share(values):
        return wilson(int(sum(values)), len(values))
    return mean_interval(values)


def _drop(before: Sequence[float], after: Sequence[float]) -> Outcome:
    if len(before) != len(after):
        return Unmeasured("the two models were asked different questions")
    if _is_share(before) and _is_share(after):
        return paired_difference(Pairs.of([(a == 1, b == 1) for a, b in zip(before, after, strict=True)]))
    return mean_interval([a - b for a, b in zip(before, after, strict=True)])


def _is_share(values: Sequence[float]) -> bool:
    return all(value in (0.0, 1.0) for value in values)


def _values(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[tuple[str, str], tuple[float, ...]]:
    """Every metric that is a number for each question, in task order."""
    found: dict[tuple[str, str], tuple[float, ...]] = {}
    for task, rows in samples.items():
        by_filter: dict[str, list[Mapping[str, Any]]] = {}
        for row in sorted(rows, key=lambda row: int(row["doc_id"])):
            by_filter.setdefault(str(row["filter"]), []).append(row)
        for name, chosen in by_filter.items():
            suffix = "" if len(by_filter) == 1 else f",{name}"
            for metric in chosen[0]["metrics"]:
                values = [row.get(metric) for row in chosen]
                if all(isinstance(value, int | float) for value in values):
                    found[task, f"{metric}{suffix}"] = tuple(map(float, values))  # type: ignore[arg-type]
    return found


@cache
def _manager(plan: TaskPlan) -> Any:
    """The harness's index; of its own 14,000 tasks, which takes seconds, only where the folder lacks one."""
    tasks: Any = importlib.import_module("lm_eval.tasks")
    if plan.folder is not None:
        own = tasks.TaskManager(include_path=str(plan.folder), include_defaults=False)
        if set(plan.names) <= set(own.all_tasks):
            return own
    return tasks.TaskManager(include_path=None if plan.folder is None else str(plan.folder))


@dataclass(slots=True)
class _Asked:
    """Sends what the harness asks to the child; one child a call."""

    request: TextRequest
    progress: Callable[[str], None]
    calls: int = field(default=0)

    def ask(self, items: TextItems) -> TextAnswers:
        """The answers.

        Raises:
            TaskMisfitError: the fork does not fit the original.
        """
        self.calls += 1
        request = replace(self.request, scratch=self.request.scratch / f"call-{self.calls}")
        answers, report = ask_texts(request, items, progress=self.progress)
        if report.misfit:
            raise TaskMisfitError(report.misfit)
        return answers


def _model(request: TextRequest, progress: Callable[[str], None]) -> object:
    """An `lm_eval.api.model.LM`; its class exists only where lm-eval is installed."""
    base: Any = importlib.import_module("lm_eval.api.model").LM
    asked = _Asked(request, progress)

    class ConfinedLM(base):  # type: ignore[misc]
        """The model in the child, as the harness sees it."""

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            items = tuple(Continuation(*one.args) for one in requests)
            return list(asked.ask(TextItems(continuations=items)).continuations)

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            items = tuple(Document(one.args[0]) for one in requests)
            return list(asked.ask(TextItems(documents=items)).documents)

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            items = tuple(_completion(*one.args) for one in requests)
            return list(asked.ask(TextItems(completions=items)).completions)

    return ConfinedLM()


def _completion(context: str, options: Mapping[str, Any]) -> Completion:
    """Greedy only: a sampled task would not repeat.

    Raises:
        TaskError: the task samples.
    """
    if options.get("do_sample") or float(options.get("temperature") or 0) > 0:
        raise TaskError("a task wants sampled answers, which would not repeat")
    until = options.get("until") or ()
    stops = (until,) if isinstance(until, str) else tuple(map(str, until))
    return Completion(context, stops, int(options.get("max_gen_toks") or DEFAULT_NEW_TOKENS))
