"""The evaluation child: `python -I -m evals.child TASK ANSWER_FD PROGRESS_FD`, plan and request on stdin.

It confines itself before torch is imported and before any byte of a fork is read. Only `evals.sandbox` starts
it; one line comes back.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict

from evals.confine import Confinement, confine
from evals.interface import EXIT_NO_MEMORY, DirectionRequest, EvalRequest
from evals.outputs.interface import CollectRequest, ScoreRequest
from evals.outputs.wire import dump_report, load_collect_request, load_score_request
from evals.plan import load_plan
from evals.text_items import TextRequest
from evals.variants import SeriesRequest
from evals.wire import dump, load_direction_request, load_request, load_series_request, load_text_request

Request = EvalRequest | DirectionRequest | SeriesRequest | TextRequest | CollectRequest | ScoreRequest

_LOADERS: Mapping[str, Callable[[bytes], Request]] = {
    "evaluate": load_request,
    "direction": load_direction_request,
    "series": load_series_request,
    "collect": load_collect_request,
    "score": load_score_request,
    "texts": load_text_request,
}


def main(arguments: list[str]) -> None:
    """Confine, do the task, answer."""
    task, answer, progress = arguments[0], int(arguments[1]), int(arguments[2])
    line = guarded(lambda: _work(task, progress))
    with os.fdopen(answer, "wb") as pipe:
        pipe.write(line)


def guarded(work: Callable[[], bytes]) -> bytes:
    """Do it, or end this process at once, with the error as the last line of its log.

    Libraries in Rust panic with what is no `Exception`; and after an error in one thread, the interpreter
    would wait for the others.
    """
    try:
        return work()
    except BaseException as error:  # noqa: BLE001 - see above
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(EXIT_NO_MEMORY if _is_full(error) else 1)


def _is_full(error: BaseException) -> bool:
    """Whether memory ran out, told without torch, which may not be there yet."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return not names.isdisjoint({"MemoryError", "OutOfMemoryError"}) or "DefaultCPUAllocator" in str(error)


def _work(task: str, progress: int) -> bytes:
    plan = load_plan(sys.stdin.buffer.readline())
    raw = sys.stdin.buffer.read()
    # Loading a request imports pydantic; what it needs is closed afterwards.
    request = _LOADERS[task](raw) if raw else None
    confinement = confine(plan)
    if request is None:
        return json.dumps(asdict(confinement)).encode() + b"\n"
    warnings.simplefilter("ignore")  # the log is for errors; a library's advice is not about this run
    return _answer(request, confinement, progress)


def _answer(request: Request, confinement: Confinement, progress: int) -> bytes:
    def tell(text: str) -> None:
        os.write(progress, f"{text}\n".encode())

    # torch starts threads, so it is imported after `confine`.
    if isinstance(request, DirectionRequest):
        from evals.direction import measure_direction

        return dump(measure_direction(request, confinement, tell))
    if isinstance(request, SeriesRequest):
        from evals.series import measure_series

        return dump(measure_series(request, confinement, tell))
    if isinstance(request, CollectRequest):
        from evals.outputs.collect import collect_answers

        return dump_report(collect_answers(request, confinement, tell))
    if isinstance(request, ScoreRequest):
        from evals.outputs.score import score_answers

        return dump_report(score_answers(request, confinement, tell))
    if isinstance(request, TextRequest):
        from evals.text_child import answer_texts

        return dump(answer_texts(request, confinement, tell))
    from evals.measure import measure

    return dump(measure(request, confinement, tell))


if __name__ == "__main__":
    main(sys.argv[1:])
