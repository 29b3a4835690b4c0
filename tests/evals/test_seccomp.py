"""The filter decides as it says, on both architectures; only one of them can be run here."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from evals.seccomp import build, numbers

PID = 4321
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS


def decide(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """Run classic BPF on one system call, as the kernel would."""
    call = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    code = list(struct.iter_unpack("=HBBI", program))
    at, loaded = 0, 0
    while True:
        operation, yes, no, operand = code[at]
        match operation:
            case 0x20:
                (loaded,) = struct.unpack_from("=I", call, operand)
                at += 1
            case 0x06:
                return int(operand)
            case _:
                holds = {0x15: loaded == operand, 0x35: loaded >= operand, 0x45: bool(loaded & operand)}
                at += 1 + (yes if holds[operation] else no)


@pytest.fixture(params=sorted(ARCHITECTURES))
def machine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_what_is_decided_by_arguments(machine: str) -> None:
    """Threads, own signals, own limits and private memory pass; their foreign kin do not."""
    of = numbers(machine)

    def asked(name: str, *arguments: int, gpu: bool = False) -> int:
        return decide(build(machine, PID, gpu=gpu), ARCHITECTURES[machine], of[name], *arguments)

    thread = 0x3D0F00
    assert asked("clone", thread) == ALLOW
    assert asked("clone", thread | 0x10000000) == EPERM
    assert asked("clone", 0x1200011) == EPERM
    assert asked("clone3", 0, 88) == ENOSYS
    assert [asked(name, PID, 9) for name in ("kill", "tgkill")] == [ALLOW] * 2
    assert [asked("kill", target, 0) for target in (1, 0, (1 << 32) - 1)] == [EPERM] * 3
    assert [asked("prlimit64", target) for target in (0, PID, 1)] == [ALLOW, ALLOW, EPERM]
    assert [asked("prctl", option) for option in (1, 15)] == [EPERM, ALLOW]
    assert [asked("fcntl", 0, command) for command in (1, 8, 15, 1024)] == [ALLOW, *[EPERM] * 3]
    cut, read, write = 0x200, 0, 1
    for mode, verdict in ((read, ALLOW), (write, ALLOW), (read | cut, EPERM), (write | cut, ALLOW)):
        assert asked("openat", 0, 0, mode) == verdict
        assert "open" not in of or asked("open", 0, mode) == verdict
    assert asked("openat2", 0, 0, 0, 24) == ENOSYS
    assert [asked("ioctl", 0, command) for command in (0x5401, 0x5412)] == [ALLOW, EPERM]
    private, shared, file, stack = 0x22, 0x21, 0x01, 0x122
    assert [asked("mmap", 0, 1, 3, flags) for flags in (private, shared, file, stack)] == [
        *(ALLOW, EPERM, ALLOW, EPERM)
    ]
    assert [asked("mmap", 0, 1, 3, flags, gpu=True) for flags in (shared, stack)] == [ALLOW, EPERM]
    assert [asked("socket", family) for family in (1, 2, 10, 16)] == [EPERM] * 4
    assert [asked("socket", family, gpu=True) for family in (1, 2, 10, 16, 40)] == [ALLOW, *[EPERM] * 4]


def test_everything_else_in_the_table_is_denied(machine: str) -> None:
    """And what is not in it, such as reading and futexes, is allowed; other architectures are killed."""
    program = build(machine, PID, gpu=False)
    judged = {"clone", "clone3", "prctl", "mmap", "kill", "tgkill", "prlimit64"}
    judged |= {"sched_setaffinity", "ioctl", "fcntl", "open", "openat", "openat2"}
    of = numbers(machine)
    for name in of.keys() - judged:
        assert decide(program, ARCHITECTURES[machine], of[name]) == EPERM, name
    read, futex = (0, 202) if machine == "x86_64" else (63, 98)
    assert [decide(program, ARCHITECTURES[machine], number) for number in (read, futex)] == [ALLOW] * 2
    assert decide(program, 0x40000003, read) == KILL
    assert decide(program, ARCHITECTURES[machine], 0x40000000 | read) == KILL


def test_the_numbers_are_the_kernel_s(machine: str) -> None:
    """Against the headers of this machine, as far as they are new enough to know a call."""
    header = HEADERS[machine]
    if not header.is_file():
        pytest.skip(f"needs {header}: install the kernel's headers (linux-libc-dev)")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    theirs = {name: int(number) for name, number in found}
    ours = numbers(machine)
    assert len(ours.keys() & theirs.keys()) > 100
    assert {name: number for name, number in ours.items() if theirs.get(name, number) != number} == {}
