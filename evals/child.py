"""The evaluation child: `python -I -m evals.child ANSWER_FD PROGRESS_FD`, request on stdin, one line back.

It confines itself before torch is imported and before any byte of a fork is read. Only `evals.run` starts it.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

from evals.confine import confine
from evals.wire import dump, load_request


def main(arguments: list[str]) -> None:
    """Confine, measure, answer. An error ends the process with a traceback in its log."""
    answer, progress = (int(argument) for argument in arguments)
    request = load_request(sys.stdin.buffer.read())
    cpu_seconds = int(request.timeout_seconds + 1) * (os.cpu_count() or 1)
    gpu = request.device != "cpu" and any(Path("/dev").glob("nvidia[0-9]*"))
    confinement = confine(request.scratch, cpu_seconds=cpu_seconds, gpu=gpu)
    warnings.simplefilter("ignore")  # the log is for errors; a library's advice is not about this run

    from evals.measure import measure  # torch starts threads, so after `confine`

    def tell(text: str) -> None:
        os.write(progress, f"{text}\n".encode())

    report = dump(measure(request, confinement, tell))
    with os.fdopen(answer, "wb") as pipe:
        pipe.write(report)


if __name__ == "__main__":
    main(sys.argv[1:])
