"""The evaluation child: `python -I -m evals.child TASK ANSWER_FD PROGRESS_FD`, request on stdin, a line back.

It confines itself before torch is imported and before any byte of a fork is read. Only `evals.run` starts it.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

from evals.confine import Confinement, confine
from evals.interface import DirectionRequest, EvalRequest
from evals.wire import dump, load_direction_request, load_request


def main(arguments: list[str]) -> None:
    """Confine, measure, answer. An error ends the process with a traceback in its log."""
    task, answer, progress = arguments[0], int(arguments[1]), int(arguments[2])
    raw = sys.stdin.buffer.read()
    request = load_direction_request(raw) if task == "direction" else load_request(raw)
    cpu_seconds = int(request.timeout_seconds + 1) * (os.cpu_count() or 1)
    gpu = request.device != "cpu" and any(Path("/dev").glob("nvidia[0-9]*"))
    confinement = confine(request.scratch, cpu_seconds=cpu_seconds, gpu=gpu)
    warnings.simplefilter("ignore")  # the log is for errors; a library's advice is not about this run
    report = _answer(request, confinement, progress)
    with os.fdopen(answer, "wb") as pipe:
        pipe.write(report)


def _answer(request: EvalRequest | DirectionRequest, confinement: Confinement, progress: int) -> bytes:
    def tell(text: str) -> None:
        os.write(progress, f"{text}\n".encode())

    # torch starts threads, so it is imported after `confine`.
    if isinstance(request, DirectionRequest):
        from evals.direction import measure_direction

        return dump(measure_direction(request, confinement, tell))
    from evals.measure import measure

    return dump(measure(request, confinement, tell))


if __name__ == "__main__":
    main(sys.argv[1:])
