"""A list of tasks done by this process and a fork of it, for machines with more than one core.

The fork has all that this process knows, without a word about it having to be written and read again. Who
calls this sees to it that nothing is open that two processes must not use, and that no other thread holds a
lock that the tasks need.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import struct
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

MOST = 4_000
"""Tasks whose numbers fit into a pipe that nobody reads yet: 64 KiB."""
_NUMBER = struct.Struct("=H")


def can_share() -> bool:
    """Whether there is somebody to share with."""
    return hasattr(os, "fork") and hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1


def shared(
    tasks: Sequence[Task], do: Callable[[Task], Result], end: Callable[[], None] = lambda: None
) -> list[Result]:
    """What `do` gives for each task, in no fixed order. Each process takes the next one when it is ready.

    Args:
        tasks: 4,000 at most.
        do: has no effect on this process but its result, which is pickled.
        end: called in the fork when it has done its last.

    Raises:
        Exception: what `do` raised, here or in the fork.
        ChildProcessError: the fork was killed.
    """
    if len(tasks) > MOST:
        raise ValueError(f"{len(tasks)} tasks are more than {MOST}")
    waiting, put = os.pipe()
    os.write(put, b"".join(map(_NUMBER.pack, range(len(tasks)))))
    os.close(put)
    answers, answer = os.pipe()
    gc.freeze()  # a search for cycles would write to each object, and so copy its page
    child = os.fork()
    if child == 0:
        _be_the_fork(waiting, answer, tasks, do, end)
    os.close(answer)
    try:
        done = [do(tasks[number]) for number in _numbers(waiting)]
        with open(answers, "rb", closefd=False) as file:
            told = file.read()
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        os.close(waiting)
        os.close(answers)
        os.waitpid(child, 0)
        gc.unfreeze()
    return done + _answer(told)


def _numbers(waiting: int) -> Iterator[int]:
    """Of tasks that nobody has taken. A read of a pipe is one step: no number is read twice, or in halves."""
    while number := os.read(waiting, _NUMBER.size):
        yield _NUMBER.unpack(number)[0]


def _be_the_fork(
    waiting: int, answer: int, tasks: Sequence[Task], do: Callable[[Task], Result], end: Callable[[], None]
) -> NoReturn:
    """Never returns, nor runs what this process would do at its end."""
    try:
        above = os.getppid()
        done: list[Result] = []
        for number in _numbers(waiting):
            done.append(do(tasks[number]))
            if os.getppid() != above:  # killed: nobody waits for the answer, and others for its locks
                os._exit(1)
        end()
        told = pickle.dumps(done)
    except Exception as error:  # noqa: BLE001 - the process that asked raises it
        told = _as_pickle(error)
    try:
        with open(answer, "wb") as file:
            file.write(told)
    finally:
        os._exit(0)


def _as_pickle(error: Exception) -> bytes:
    try:
        told = pickle.dumps(error)
        pickle.loads(told)  # noqa: S301 - ours
    except Exception:  # noqa: BLE001 - whatever an error of others' does when it is pickled
        return pickle.dumps(RuntimeError("".join(traceback.format_exception(error))))
    return told


def _answer(told: bytes) -> list[Result]:
    if not told:
        raise ChildProcessError("the process that did half of the work was killed")
    found = pickle.loads(told)  # noqa: S301 - the fork of this process wrote it, into a pipe of their own
    if isinstance(found, Exception):
        raise found
    answers: list[Result] = found
    return answers
