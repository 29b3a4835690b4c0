"""Runs the corpus: a process of its own for each case, forked from one that has read nothing hostile.

`python -m tests.hostile.runner` prints one line of JSON a case: name, findings, CPU seconds, peak MB, exit.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import time
import traceback

from tests.hostile.corpus import CASES
from tests.hostile.examine import examine

WALL = 60
"""Seconds after which a case is killed: machines that run tests are busy, so its CPU time is what counts."""


def _child(name: str, pipe: int) -> None:
    case = CASES[name]()
    start = time.process_time()
    found = sorted(examine(case))
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    line = json.dumps({"found": found, "expected": case.expected, "seconds": seconds, "peak": peak})
    os.write(pipe, line.encode())


def run(name: str) -> dict[str, object]:
    """One case in its own process."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _child(name, theirs)
        except BaseException:  # noqa: BLE001 - told, and the process ends
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(theirs)
    if not select.select([ours], [], [], WALL)[0]:
        os.kill(child, signal.SIGKILL)
    answer = os.read(ours, 1 << 16)
    os.close(ours)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"name": name, "exit": status, **(json.loads(answer) if answer else {})}


if __name__ == "__main__":
    for case_name in CASES:
        print(json.dumps(run(case_name)), flush=True)  # noqa: T201 - its output
