"""A seccomp filter for a process that only computes: no process, socket, debugging, mounting, new identity.

A deny-list in classic BPF, because the CUDA driver's calls cannot be listed; what is allowed touches files
that were opened or may be opened (Landlock decides that, but not who may change modes, owners and times, and
not before its third version who may truncate), memory, threads and clocks. The filter is installed from
inside, after our own code is loaded and before a byte of a fork is read, and cannot be taken off again.
Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux 6.17.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator, Mapping

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Name, number on x86_64, number on aarch64; `-` where an architecture has no such call.
_NUMBERS = """
clone 56 220    clone3 435 435    prctl 157 167    mmap 9 222    socket 41 198    socketpair 53 199
kill 62 129    tgkill 234 131    prlimit64 302 261    sched_setaffinity 203 122    ioctl 16 29    fcntl 72 25
open 2 -    openat 257 56    openat2 437 437

fork 57 -    vfork 58 -    execve 59 221    execveat 322 281    setsid 112 157    setpgid 109 154
ptrace 101 117    process_vm_readv 310 270    process_vm_writev 311 271    kcmp 312 272
process_madvise 440 440    process_mrelease 448 448    migrate_pages 256 238    move_pages 279 239
pidfd_open 434 434    pidfd_getfd 438 438    pidfd_send_signal 424 424    tkill 200 130
rt_sigqueueinfo 129 138    rt_tgsigqueueinfo 297 240    setpriority 141 140    ioprio_set 251 30
sched_setattr 314 274    sched_setparam 142 118    sched_setscheduler 144 119
bpf 321 280    perf_event_open 298 241    userfaultfd 323 282    fanotify_init 300 262
io_uring_setup 425 425    io_uring_enter 426 426    io_uring_register 427 427
mount 165 40    umount2 166 39    pivot_root 155 41    chroot 161 51    move_mount 429 429
open_tree 428 428    fsopen 430 430    fsconfig 431 431    fsmount 432 432    fspick 433 433
mount_setattr 442 442    open_tree_attr 467 467    unshare 272 97    setns 308 268
name_to_handle_at 303 264    open_by_handle_at 304 265    mknod 133 -    mknodat 259 33
chmod 90 -    fchmod 91 52    fchmodat 268 53    fchmodat2 452 452    chown 92 -    fchown 93 55
lchown 94 -    fchownat 260 54    utime 132 -    utimes 235 -    futimesat 261 -    utimensat 280 88
setxattr 188 5    lsetxattr 189 6    fsetxattr 190 7    setxattrat 463 463    file_setattr 469 469
removexattr 197 14    lremovexattr 198 15    fremovexattr 199 16    removexattrat 466 466
add_key 248 217    request_key 249 218    keyctl 250 219
setuid 105 146    setgid 106 144    setreuid 113 145    setregid 114 143    setresuid 117 147
setresgid 119 149    setgroups 116 159    setfsuid 122 151    setfsgid 123 152    capset 126 91
kexec_load 246 104    kexec_file_load 320 294    init_module 175 105    finit_module 313 273
delete_module 176 106    reboot 169 142    swapon 167 224    swapoff 168 225    syslog 103 116
acct 163 89    quotactl 179 60    quotactl_fd 443 443    sethostname 170 161    setdomainname 171 162
settimeofday 164 170    clock_settime 227 112    adjtimex 159 171    clock_adjtime 305 266
iopl 172 -    ioperm 173 -    modify_ldt 154 -    personality 135 92
shmget 29 194    shmat 30 196    shmctl 31 195    semget 64 190    semop 65 193    semctl 66 191
semtimedop 220 192    msgget 68 186    msgsnd 69 189    msgrcv 70 188    msgctl 71 187    mq_open 240 180
memfd_create 319 279    memfd_secret 447 447    map_shadow_stack 453 453
truncate 76 45    flock 73 32    mq_unlink 241 181    lsm_set_self_attr 460 460
inotify_init 253 -    inotify_init1 294 26    inotify_add_watch 254 27
"""
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_DENY = 0x00050000 | errno.EPERM
_UNKNOWN = 0x00050000 | errno.ENOSYS
_X32 = 0x40000000

_CLONE_THREAD = 0x10000
_CLONE_NAMESPACES = 0x7E020080
_SHARED, _ANONYMOUS, _GROWS_DOWN = 0x1, 0x20, 0x100
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _MODE_FILTER = 1, 22, 2
_OWNERS = (8, 15, 1024)
"""`fcntl` F_SETOWN and F_SETOWN_EX aim signals at other processes; F_SETLEASE holds up their opening."""
_ACCESS_MODE, _O_TRUNC = 0x3, 0x200
_TERMINAL = (0x5412, 0x541C, 0x8901, 0x8902)
"""`ioctl` TIOCSTI, TIOCLINUX (typing into a terminal), FIOSETOWN, SIOCSPGRP."""

Instruction = tuple[int, int, int, int]
"""Code, jump when true, jump when false, operand: `struct sock_filter`."""


def numbers(machine: str) -> Mapping[str, int]:
    """System call numbers by name, on `x86_64` or `aarch64`."""
    words = _NUMBERS.split()
    column = words[1 + list(_AUDIT_ARCH).index(machine) :: 3]
    return {name: int(number) for name, number in zip(words[::3], column, strict=True) if number != "-"}


def build(machine: str, pid: int, *, gpu: bool) -> bytes:
    """The filter for the process `pid`, as an array of `struct sock_filter`.

    Args:
        machine: `x86_64` or `aarch64`.
        pid: The only process that may be signalled or limited.
        gpu: Leave the CUDA driver Unix sockets, shared anonymous memory and memory files.
    """
    known = dict(numbers(machine))
    rules = _rules(pid, gpu=gpu)
    allowed = {"memfd_create", "socketpair"} if gpu else set()
    program: list[Instruction] = [
        *((_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _AUDIT_ARCH[machine]), (_RETURN, 0, 0, _KILL)),
        *((_LOAD, 0, 0, 0), (_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)),
    ]
    for name, number in known.items():
        body = rules.get(name, [(_RETURN, 0, 0, _DENY)])
        if name not in allowed:
            program += [(_EQUAL, 0, len(body), number), *body]
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _rules(pid: int, *, gpu: bool) -> Mapping[str, list[Instruction]]:
    """What is returned for the calls that depend on their arguments."""
    memory = [] if gpu else [(_ANY_BIT, 0, 2, _ANONYMOUS), (_ANY_BIT, 0, 1, _SHARED), (_RETURN, 0, 0, _DENY)]
    return {
        "clone": [
            _argument(0),
            *((_ANY_BIT, 0, 1, _CLONE_NAMESPACES), (_RETURN, 0, 0, _DENY)),
            *_allow_if(_ANY_BIT, _CLONE_THREAD),
        ],
        # Its flags lie behind a pointer; the C library falls back to `clone`.
        "clone3": [(_RETURN, 0, 0, _UNKNOWN)],
        "prctl": [_argument(0), *_deny_if(_EQUAL, _PR_SET_PDEATHSIG), (_RETURN, 0, 0, _ALLOW)],
        # RLIMIT_DATA counts neither shared memory nor stacks that grow.
        "mmap": [_argument(3), *_deny_if(_ANY_BIT, _GROWS_DOWN), *memory, (_RETURN, 0, 0, _ALLOW)],
        "socket": [_argument(0), *(_allow_if(_EQUAL, 1) if gpu else [(_RETURN, 0, 0, _DENY)])],
        "kill": [_argument(0), *_allow_if(_EQUAL, pid)],
        "tgkill": [_argument(0), *_allow_if(_EQUAL, pid)],
        "prlimit64": [_argument(0), *_allow_if(_EQUAL, 0, otherwise=False), *_allow_if(_EQUAL, pid)],
        "sched_setaffinity": [_argument(0), *_allow_if(_EQUAL, 0)],
        "ioctl": [
            _argument(1),
            *(part for code in _TERMINAL for part in _deny_if(_EQUAL, code)),
            (_RETURN, 0, 0, _ALLOW),
        ],
        # Before its third version, Landlock does not see that a file opened for reading is cut to nothing.
        "open": _open(1),
        "openat": _open(2),
        "openat2": [(_RETURN, 0, 0, _UNKNOWN)],  # its flags lie behind a pointer
        "fcntl": [
            _argument(1),
            *(part for code in _OWNERS for part in _deny_if(_EQUAL, code)),
            (_RETURN, 0, 0, _ALLOW),
        ],
    }


def _open(flags: int) -> list[Instruction]:
    """Deny truncating by an open that cannot write."""
    return [
        _argument(flags),
        *((_ANY_BIT, 0, 2, _O_TRUNC), (_ANY_BIT, 1, 0, _ACCESS_MODE), (_RETURN, 0, 0, _DENY)),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _argument(index: int) -> Instruction:
    """Load the low half of an argument; both architectures are little-endian."""
    return (_LOAD, 0, 0, 16 + 8 * index)


def _deny_if(test: int, operand: int) -> Iterator[Instruction]:
    yield (test, 0, 1, operand)
    yield (_RETURN, 0, 0, _DENY)


def _allow_if(test: int, operand: int, *, otherwise: bool = True) -> Iterator[Instruction]:
    """Allow when the test holds; deny otherwise, or go on."""
    yield (test, 0, 1, operand)
    yield (_RETURN, 0, 0, _ALLOW)
    if otherwise:
        yield (_RETURN, 0, 0, _DENY)


def install(libc: ctypes.CDLL, *, gpu: bool) -> None:
    """Filter this process from here on; it must have one thread and have given up new privileges.

    Raises:
        OSError: the kernel or the processor has no filter.
    """
    machine = platform.machine()
    if machine not in _AUDIT_ARCH:
        raise OSError(errno.ENOSYS, f"no filter for {machine}")
    code = build(machine, os.getpid(), gpu=gpu)
    kept = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(kept))
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.c_char_p(program), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
