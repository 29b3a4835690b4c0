"""The guard's child: `python -I -m evals.judges.guard_child ANSWER_FD PROGRESS_FD`, the rest on stdin.

A guard's weights are the operator's choice, but it reads a fork's answers, and its checkpoint is a file like
any other: it runs as confined as a fork does. Only `evals.judges.guard` starts it; one line comes back.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

from evals.child import guarded
from evals.confine import confine
from evals.plan import load_plan


def main(arguments: list[str]) -> None:
    """Confine, judge, answer."""
    answer, progress = int(arguments[0]), int(arguments[1])
    line = guarded(lambda: _work(progress))
    with os.fdopen(answer, "wb") as pipe:
        pipe.write(line)


def _work(progress: int) -> bytes:
    plan = load_plan(sys.stdin.buffer.readline())
    request = json.loads(sys.stdin.buffer.read())
    confine(plan)
    warnings.simplefilter("ignore")  # the log is for errors; a library's advice is not about this run

    def tell(done: int, total: int) -> None:
        os.write(progress, f"judge {done}/{total}\n".encode())

    # torch starts threads, so it is imported after `confine`.
    from evals.judges.guard_formats import GuardKind
    from evals.judges.guard_model import run_guard
    from evals.judges.interface import Answered

    pairs = json.loads(Path(request["answers"]).read_bytes())
    opinions = run_guard(
        Path(request["folder"]),
        GuardKind(request["kind"]),
        request["device"],
        [Answered(prompt, text) for prompt, text in pairs],
        tell,
    )
    rows = [[opinion.label.value, opinion.harmful, opinion.reason] for opinion in opinions]
    return json.dumps(rows).encode() + b"\n"


if __name__ == "__main__":
    main(sys.argv[1:])
