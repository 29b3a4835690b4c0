"""A job in a process of its own, whose memory is the system's again when it is over.

    python -m forkwatch.daemon.apart

Training loads libraries and makes tables that a worker would hold for the rest of its life. The worker keeps
the lease meanwhile; when it dies, what it has started ends as well, and the job is done again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

from pydantic import TypeAdapter

from forkwatch.jobs.interface import Job, NewJob
from forkwatch.jobs.worker import ElsewhereError
from forkwatch.settings import Settings, hand_over, take_over

_JOB, _NEXT = TypeAdapter(Job), TypeAdapter(tuple[NewJob, ...])


def do_apart(settings: Settings, job: Job) -> Sequence[NewJob]:
    """Do a job as a worker with these settings would; what is to be done next.

    Raises:
        ElsewhereError: it failed, or the process died.
    """
    asked = {"parent": os.getpid(), "settings": hand_over(settings), "job": _JOB.dump_json(job).decode()}
    command = [sys.executable, "-m", "forkwatch.daemon.apart"]
    done = subprocess.run(command, input=json.dumps(asked).encode(), stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        reason = done.stdout.decode("utf-8", "replace") or f"its process ended with {done.returncode}"
        raise ElsewhereError(reason)
    return _NEXT.validate_json(done.stdout)


def main() -> None:
    """Do the job that stands on stdin, and write what comes next, or the reason, to stdout."""
    from forkwatch import logs
    from forkwatch.cli.session import session
    from forkwatch.daemon.parent import end_with
    from forkwatch.daemon.talk import LogTalk
    from forkwatch.pipeline.tasks import handlers

    asked = json.load(sys.stdin)
    end_with(asked["parent"])
    logs.configure()
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    job = _JOB.validate_json(asked["job"])
    with answer:
        try:
            with session(take_over(asked["settings"]), talk=LogTalk()) as context:
                answer.write(_NEXT.dump_json(tuple(handlers(context)[job.kind](job))))
        except Exception as error:  # noqa: BLE001 - the worker says what became of the job
            answer.write(f"{type(error).__name__}: {error}".encode())
            sys.exit(1)


if __name__ == "__main__":
    main()
