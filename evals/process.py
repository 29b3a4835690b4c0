"""Running a child that may be hostile: own session, scrubbed environment, wall clock, bounded answers.

The child gets its request on stdin, answers with one line on a pipe of its own, tells its progress on
another, and says all else on a third, of which the beginning is kept in a log. Nothing it does can block the
parent past the deadline, fill the disk, or make the parent open a file that the child has placed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from evals.interface import EXIT_NO_MEMORY, EvaluationFailedError, NoMemoryError

MAX_ANSWER = 4 << 20
"""Bytes of the child's one line; a report on 1000 prompts has about 100 KB."""

MAX_PROGRESS = 1 << 20
"""Bytes of progress listened to."""

MAX_LOG = 1 << 20
"""Bytes kept of what the child says otherwise."""

LOG = "child.log"
_TAIL = 4096
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
        "TORCHINDUCTOR_CACHE_DIR": str(scratch),  # looked at when torch's compiler is imported, never used
        "TMPDIR": str(scratch),
        "HF_HOME": str(scratch),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**kept, **fixed}


def run_child(  # noqa: PLR0913 - keyword-only, one with a default
    command: Sequence[str],
    request: bytes,
    scratch: Path,
    *,
    timeout_seconds: float,
    progress: Callable[[str], None],
    max_answer: int = MAX_ANSWER,
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
        answer, telling, saying = (_Pipe.open(stack) for _ in range(3))
        log = _Log(stack.enter_context(_new_file(scratch / LOG)))
        child = subprocess.Popen(
            [*command, str(answer.write_end), str(telling.write_end)],
            stdin=subprocess.PIPE,
            stdout=saying.write_end,
            stderr=saying.write_end,
            cwd=scratch,
            env=scrubbed_environment(scratch),
            pass_fds=(answer.write_end, telling.write_end),
            start_new_session=True,
        )
        try:
            for pipe in (answer, telling, saying):
                pipe.close_write_end()
            _send(child, request)
            line = _Answer(max_answer)
            feeds = {answer.read_end: line.feed, telling.read_end: _Lines(progress).feed}
            _listen(feeds, {saying.read_end: log.feed}, deadline)
            while _is_running(child):
                saying.drain(log.feed)
                time.sleep(min(_WAIT, _remaining(deadline)))
        finally:
            # The leader is not yet reaped, so its group id cannot belong to anybody else.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            saying.drain(log.feed)
    if child.returncode == EXIT_NO_MEMORY:
        raise NoMemoryError("the model does not fit into memory, even with one chat at a time")
    if child.returncode != 0:
        raise EvaluationFailedError(f"the evaluation child {_fate(child.returncode)}{log.last_words()}")
    return line.whole()


def _new_file(path: Path) -> BinaryIO:
    """A file of our own, whatever lay there."""
    path.unlink(missing_ok=True)
    return path.open("xb", buffering=0)


@dataclass(slots=True)
class _Pipe:
    """A pipe we read from."""

    read_end: int
    write_end: int
    writing: bool = True

    @staticmethod
    def open(stack: contextlib.ExitStack) -> _Pipe:
        """A new pipe, closed with the stack."""
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        pipe = _Pipe(read_end, write_end)
        stack.callback(os.close, read_end)
        stack.callback(pipe.close_write_end)
        return pipe

    def close_write_end(self) -> None:
        """Close our copy of the child's end, once."""
        if self.writing:
            os.close(self.write_end)
            self.writing = False

    def drain(self, feed: Callable[[bytes], None], limit: int = 1 << 22) -> None:
        """Pass on what is there now, `limit` bytes at most."""
        with contextlib.suppress(BlockingIOError):
            while limit > 0 and (part := os.read(self.read_end, 1 << 16)):
                limit -= len(part)
                feed(part)


@dataclass(slots=True)
class _Answer:
    """The one line."""

    limit: int
    data: bytearray = field(default_factory=bytearray)

    def feed(self, part: bytes) -> None:
        """Take more bytes.

        Raises:
            EvaluationFailedError: they are too many.
        """
        if len(self.data) + len(part) > self.limit:
            raise EvaluationFailedError(f"the evaluation child sent more than {self.limit >> 20} MiB")
        self.data += part

    def whole(self) -> bytes:
        """The line.

        Raises:
            EvaluationFailedError: it is not one.
        """
        line, end, rest = bytes(self.data).partition(b"\n")
        if not end or rest:
            raise EvaluationFailedError("the evaluation child did not answer with one line")
        return line


@dataclass(slots=True)
class _Log:
    """Keeps the first `MAX_LOG` bytes in a file, and the end in memory."""

    file: BinaryIO
    room: int = MAX_LOG
    tail: bytes = b""

    def feed(self, part: bytes) -> None:
        """Take more bytes."""
        self.file.write(part[: self.room])
        self.room = max(0, self.room - len(part))
        self.tail = (self.tail + part)[-_TAIL:]

    def last_words(self) -> str:
        """The last line, for an error message; empty when nothing was said."""
        lines = self.tail.strip().splitlines()
        return f": {printable(lines[-1])}" if lines else ""


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
    """Hand over the request; it fits into the pipe, so a child that does not read cannot stall us.

    Raises:
        EvaluationFailedError: it does not fit.
    """
    assert child.stdin is not None
    if len(request) > fcntl.fcntl(child.stdin, fcntl.F_GETPIPE_SZ):
        try:
            fcntl.fcntl(child.stdin, fcntl.F_SETPIPE_SZ, len(request))
        except OSError as error:
            raise EvaluationFailedError(f"a request of {len(request) >> 10} KiB is too long") from error
    with contextlib.suppress(BrokenPipeError), child.stdin as stdin:
        stdin.write(request)


def _listen(
    feeds: Mapping[int, Callable[[bytes], None]],
    others: Mapping[int, Callable[[bytes], None]],
    deadline: float,
) -> None:
    """Read descriptors until the child has closed all of `feeds`; `others` are read meanwhile.

    Raises:
        EvaluationFailedError: the deadline passed.
    """
    with selectors.DefaultSelector() as selector:
        for descriptor, feed in {**feeds, **others}.items():
            selector.register(descriptor, selectors.EVENT_READ, feed)
        while not feeds.keys().isdisjoint(selector.get_map()):
            for key, _ in selector.select(_remaining(deadline)):
                if part := os.read(key.fd, 1 << 16):
                    key.data(part)
                else:
                    selector.unregister(key.fd)


def _remaining(deadline: float) -> float:
    """Seconds left.

    Raises:
        EvaluationFailedError: none.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise EvaluationFailedError("the evaluation ran out of its wall-clock time")
    return left


def _is_running(child: subprocess.Popen[bytes]) -> bool:
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _fate(code: int) -> str:
    """How it ended; bubblewrap adds 128 to the number of the signal that ended the process in it."""
    number = -code if code < 0 else code - 128
    if number <= 0:
        return f"failed (exit {code})"
    try:
        return f"was ended by {signal.Signals(number).name}"
    except ValueError:
        return f"was ended by signal {number}"
