"""A hostile child cannot stall, flood, mislead or outlive its parent. All children here are real."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from evals.interface import EvaluationFailedError
from evals.process import LOG, MAX_ANSWER, MAX_PROGRESS, printable, run_child

HEADER = "import os, sys, time; answer, progress = map(int, sys.argv[1:]); "
SAY = "os.write(answer, b'hello\\n')"


def run(scratch: Path, code: str, *, seconds: float = 60.0) -> tuple[bytes, list[str]]:
    told: list[str] = []
    line = run_child(
        [sys.executable, "-I", "-c", HEADER + code],
        b"{}\n",
        scratch,
        timeout_seconds=seconds,
        progress=told.append,
    )
    return line, told


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_an_honest_child(tmp_path: Path) -> None:
    """The line comes back, progress is told in order, and other output goes to the log."""
    code = f"os.write(progress, b'one\\ntwo\\n'); print('chatter', flush=True); sys.stdin.read(); {SAY}"
    assert run(tmp_path, code) == (b"hello", ["one", "two"])
    assert (tmp_path / LOG).read_text() == "chatter\n"


def test_the_request_arrives(tmp_path: Path) -> None:
    """The child reads the request from its standard input."""
    line, _ = run(tmp_path, "os.write(answer, sys.stdin.buffer.read())")
    assert line == b"{}"


@pytest.mark.skipif(sys.platform != "linux", reason="pipes are as large as they are")
def test_a_long_request_is_not_waited_for(tmp_path: Path) -> None:
    """A child that never reads ends by the wall clock, though the names of 200 shards are asked about."""
    started = time.monotonic()
    with pytest.raises(EvaluationFailedError, match="wall-clock"):
        run_child(
            [sys.executable, "-I", "-c", "import time; time.sleep(60)"],
            b"x" * 900_000,
            tmp_path,
            timeout_seconds=1.0,
            progress=lambda _: None,
        )
    assert time.monotonic() - started < 30


def test_the_environment_is_scrubbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token, proxy or endpoint reaches the child; its home is the scratch folder and the Hub is off."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "HF_ENDPOINT"):
        monkeypatch.setenv(name, "secret")
    line, _ = run(tmp_path, "import json; os.write(answer, (json.dumps(dict(os.environ)) + '\\n').encode())")
    environment = json.loads(line)
    assert "secret" not in environment.values()
    assert environment["HOME"] == environment["HF_HOME"] == str(tmp_path)
    assert environment["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("code", ["time.sleep(600)", "os.close(answer); os.close(progress); time.sleep(600)"])
def test_a_child_that_hangs_is_killed(tmp_path: Path, code: str) -> None:
    """The wall clock ends a child that says nothing, also one that closed its pipes."""
    started = time.monotonic()
    with pytest.raises(EvaluationFailedError, match="wall-clock"):
        run(tmp_path, code, seconds=1.0)
    assert time.monotonic() - started < 60


def test_grandchildren_die_too(tmp_path: Path) -> None:
    """A process that the child left behind does not survive the call."""
    code = (
        "import subprocess;"
        "p = subprocess.Popen([sys.executable, '-I', '-c', 'import time; time.sleep(600)']);"
        "os.write(answer, b'%d\\n' % p.pid)"
    )
    line, _ = run(tmp_path, code)
    for _ in range(500):
        if not is_running(int(line)):
            break
        time.sleep(0.02)
    assert not is_running(int(line))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("sys.exit('out of luck')", r"failed \(exit 1\): out of luck"),
        ("os.kill(os.getpid(), 9)", "SIGKILL"),
        (f"{SAY}; sys.exit(3)", "exit 3"),
        ("pass", "did not answer"),
        ("os.write(answer, b'no end of line')", "did not answer"),
        (f"{SAY}; {SAY}", "one line"),
        ("[os.write(answer, b'x' * 65536) for _ in range(10**9)]", "more than"),
        ("1 / 0", "ZeroDivisionError"),
        ("print('\\x1b[2J\\u202egone'); sys.stdout.flush(); os._exit(4)", r"exit 4\): \[2Jgone"),
    ],
)
def test_broken_contracts(tmp_path: Path, code: str, message: str) -> None:
    """Dying, silence, too much and too little are errors with the child's last words, made printable."""
    with pytest.raises(EvaluationFailedError, match=message):
        run(tmp_path, code)


def test_endless_progress_is_not_listened_to(tmp_path: Path) -> None:
    """A flood of progress is cut, harmless, and stripped of control characters."""
    code = f"[os.write(progress, b'\\x1b[31m' + b'x' * 999 + b'\\n') for _ in range(3000)]; {SAY}"
    line, told = run(tmp_path, code)
    assert line == b"hello"
    assert 0 < len(told) <= MAX_PROGRESS // 1000 + 1
    assert all(text == "[31m" + "x" * 196 for text in told)


def test_a_line_of_the_largest_size_passes(tmp_path: Path) -> None:
    """The cap itself is allowed."""
    line, _ = run(
        tmp_path, f"f = os.fdopen(answer, 'wb'); f.write(b'x' * {MAX_ANSWER - 1} + b'\\n'); f.close()"
    )
    assert len(line) == MAX_ANSWER - 1


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """Neither success nor failure leaks a file descriptor."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    run(tmp_path, SAY)
    with pytest.raises(EvaluationFailedError):
        run(tmp_path, "os.kill(os.getpid(), 15)")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_printable_is_one_short_line() -> None:
    """Any bytes become a short line without control characters."""
    assert printable(b"\xff\x00a\r\nb\x1b" + b"c" * 500) == "\ufffdab" + "c" * 197
