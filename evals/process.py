"""Running a child that may be hostile: own session, scrubbed environment, wall clock, bounded answers.

The child gets its request on stdin, answers with one line on a pipe of its own, tells its progress on
another, and writes all else to a log. Nothing it does can block the parent past the deadline.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evals.interface import EvaluationFailedError

MAX_ANSWER = 4 << 20
"""Bytes of the child's one line; a report on 1000 prompts has about 100 KB."""

MAX_PROGRESS = 1 << 20
"""Bytes of progress listened to."""

LOG = "child.log"
_PASSED = (
    "CUDA_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH",
    "MKL_NUM_THREADS",
    "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)
_WAIT = 0.02
"""Seconds between looks at a child that closed its pipes and has not ended."""


def scrubbed_environment(scratch: Path) -> Mapping[str, str]:
    """An allow-list: no token, no proxy, no cache outside the scratch folder, the Hub switched off."""
    kept = {name: os.environ[name] for name in _PASSED if name in os.environ}
    fixed = {
        "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads stall for minutes on a machine that others use too
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "HF_HOME": str(scratch),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**kept, **fixed}


def run_child(
    command: Sequence[str],
    request: bytes,
    scratch: Path,
    *,
    timeout_seconds: float,
    progress: Callable[[str], None],
) -> bytes:
    """Run `command` with the numbers of its answer and progress pipes appended.

    Returns:
        The child's one line.

    Raises:
        EvaluationFailedError: it ran too long, failed, said too much, or said nothing.
    """
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout_seconds
    with contextlib.ExitStack() as stack:
        answer, progress_pipe = _Pipe.open(stack, MAX_ANSWER), _Pipe.open(stack, MAX_PROGRESS)
        log = stack.enter_context((scratch / LOG).open("wb"))
        child = subprocess.Popen(
            [*command, str(answer.write_end), str(progress_pipe.write_end)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=scratch,
            env=scrubbed_environment(scratch),
            pass_fds=(answer.write_end, progress_pipe.write_end),
            start_new_session=True,
        )
        try:
            answer.close_write_end()
            progress_pipe.close_write_end()
            _send(child, request)
            _listen(answer, progress_pipe, deadline, _Lines(progress))
            _await_exit(child, deadline)
        finally:
            # The leader is not yet reaped, so its group id cannot belong to anybody else.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if child.returncode != 0:
        raise EvaluationFailedError(f"the evaluation child {_fate(child.returncode)}{last_words(scratch)}")
    line, end, rest = bytes(answer.data).partition(b"\n")
    if not end or rest:
        raise EvaluationFailedError("the evaluation child did not answer with one line")
    return line


@dataclass(slots=True)
class _Pipe:
    """A pipe we read from, up to `limit` bytes."""

    read_end: int
    write_end: int
    limit: int
    data: bytearray = field(default_factory=bytearray)
    writing: bool = True

    @staticmethod
    def open(stack: contextlib.ExitStack, limit: int) -> _Pipe:
        """A new pipe, closed with the stack."""
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        pipe = _Pipe(read_end, write_end, limit)
        stack.callback(os.close, read_end)
        stack.callback(pipe.close_write_end)
        return pipe

    def close_write_end(self) -> None:
        """Close our copy of the child's end, once."""
        if self.writing:
            os.close(self.write_end)
            self.writing = False


@dataclass(slots=True)
class _Lines:
    """Cuts bytes into short printable lines and tells them."""

    tell: Callable[[str], None]
    heard: int = 0
    rest: bytes = b""

    def feed(self, part: bytes) -> None:
        """Take more bytes; silently deaf after `MAX_PROGRESS`."""
        self.heard += len(part)
        if self.heard > MAX_PROGRESS:
            return
        *lines, self.rest = (self.rest + part).split(b"\n")
        for line in lines:
            self.tell(printable(line))


def printable(raw: bytes, limit: int = 200) -> str:
    """Hostile bytes as a line for a terminal: no control or format characters, at most `limit` characters."""
    return "".join(c for c in raw.decode("utf-8", "replace") if c.isprintable())[:limit]


def _send(child: subprocess.Popen[bytes], request: bytes) -> None:
    """Hand over the request; it fits into the pipe, so a child that does not read cannot stall us."""
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError), child.stdin as stdin:
        stdin.write(request)


def _listen(answer: _Pipe, progress: _Pipe, deadline: float, lines: _Lines) -> None:
    """Read both pipes until the child closed both.

    Raises:
        EvaluationFailedError: the deadline passed, or the answer is too long.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(answer.read_end, selectors.EVENT_READ)
        selector.register(progress.read_end, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(_remaining(deadline)):
                part = os.read(key.fd, 1 << 16)
                if not part:
                    selector.unregister(key.fd)
                elif key.fd == progress.read_end:
                    lines.feed(part)
                elif len(answer.data) + len(part) > answer.limit:
                    raise EvaluationFailedError(f"the evaluation child sent more than {MAX_ANSWER >> 20} MiB")
                else:
                    answer.data += part


def _remaining(deadline: float) -> float:
    """Seconds left.

    Raises:
        EvaluationFailedError: none.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise EvaluationFailedError("the evaluation ran out of its wall-clock time")
    return left


def _await_exit(child: subprocess.Popen[bytes], deadline: float) -> None:
    while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(min(_WAIT, _remaining(deadline)))


def _fate(code: int) -> str:
    if code > 0:
        return f"failed (exit {code})"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def last_words(scratch: Path) -> str:
    """The last line of the child's log, for an error message; empty when it said nothing."""
    with contextlib.suppress(OSError), (scratch / LOG).open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
        if lines := log.read().strip().splitlines():
            return f": {printable(lines[-1])}"
    return ""
