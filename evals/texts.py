"""Plain text for a model: how likely a continuation is, and how a text goes on. No chat template, no judge.

What benchmarks such as the lm-evaluation-harness ask of a model. The forward passes happen in a confined
child; here is what goes to it and what is believed of its answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from evals.interface import EvaluationFailedError
from evals.text_items import TextAnswers, TextItems, TextReport, TextRequest
from evals.wire import write_private

ITEMS = "texts.json"
RESULTS = "text-results.json"
MAX_RESULTS = 256 << 20
"""Bytes of the file that a child answers in."""


def write_items(path: Path, items: TextItems) -> None:
    """For the child to read; 0600."""
    write_private(path, json.dumps(asdict(items)).encode())


def read_items(path: Path) -> TextItems:
    """The items as the parent wrote them."""
    from pydantic import TypeAdapter

    return TypeAdapter(TextItems).validate_json(path.read_bytes())


def write_answers(path: Path, answers: TextAnswers) -> None:
    """For the parent to check; a likelihood that is no number is none it would believe."""
    write_private(path, json.dumps(asdict(answers)).encode())


def read_answers(path: Path, items: TextItems) -> TextAnswers:
    """The answers, if they are some to these items.

    Raises:
        EvaluationFailedError: they are not.
    """
    from pydantic import TypeAdapter

    broken = "the evaluation child left no valid answers to the texts"
    try:
        if path.stat().st_size > MAX_RESULTS:
            raise EvaluationFailedError(f"{path.name} is larger than {MAX_RESULTS >> 20} MiB")
        found = TypeAdapter(TextAnswers).validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise EvaluationFailedError(broken) from error
    counts = (len(found.continuations), len(found.documents), len(found.completions))
    if counts != (len(items.continuations), len(items.documents), len(items.completions)):
        raise EvaluationFailedError(broken)
    likelihoods = [*(value for value, _ in found.continuations), *found.documents]
    if not all(math.isfinite(value) and value <= 0 for value in likelihoods):
        raise EvaluationFailedError("the model gives a text no likelihood that is a number")
    return found


def ask_texts(
    request: TextRequest, items: TextItems, *, progress: Callable[[str], None]
) -> tuple[TextAnswers, TextReport]:
    """Ask one model in a confined child. A fork that does not fit answers nothing; its report says why.

    Raises:
        EvaluationFailedError: the child died, ran too long or broke its contract.
        IsolationError: full isolation is required, and this machine does not give it.
    """
    from evals.sandbox import CHILD, Errand, admit, run
    from evals.wire import dump, load_text_report

    request = replace(
        request,
        original=request.original.absolute(),
        weights=tuple(path.absolute() for path in request.weights),
        items=request.items.absolute(),
        scratch=request.scratch.absolute(),
    )
    admit(request.device, request.limits)
    write_items(request.items, items)
    errand = Errand(
        scratch=request.scratch,
        inputs=(request.original, request.items, *request.weights),
        outputs=(RESULTS,),
        device=request.device,
        limits=request.limits,
        timeout_seconds=request.timeout_seconds,
    )
    report = load_text_report(run(errand, [*CHILD, "texts"], dump(request), progress=progress))
    if report.misfit:
        return TextAnswers(), report
    return read_answers(request.scratch / RESULTS, items), report


def rolling_windows(tokens: Sequence[int], first: int, longest: int) -> list[tuple[list[int], list[int]]]:
    """Split a text that is longer than a model's context so that each token is predicted once.

    Every window but the first sees as much before its tokens as fits (`get_rolling_token_windows` of the
    lm-evaluation-harness with a context of one token).

    Args:
        tokens: The text.
        first: The token that stands before it.
        longest: Tokens of a window at most.

    Returns:
        (context, continuation) pairs of token ids, in order.
    """
    if not tokens:
        return []
    size = min(longest, len(tokens))
    windows = [([first], list(tokens[:size]))]
    done = size
    while done < len(tokens):
        count = min(len(tokens) - done, longest)
        end = done + count
        windows.append((list(tokens[end - longest - 1 : done]), list(tokens[done:end])))
        done = end
    return windows
