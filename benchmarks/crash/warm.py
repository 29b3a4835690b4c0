"""Daemons and workers without the seconds that an interpreter takes to import them: forked, not started.

    python -m benchmarks.crash.warm

Reads a JSON line a daemon from stdin (its environment and log), and writes its process number. A daemon
forks a helper while it has one thread and no database; the helper makes its workers, as children of the
daemon (CLONE_PARENT). All else is the product's: its command line, its sessions, its signals, its own
database connections.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

_SYS_CLONE, _CLONE_PARENT = 56, 0x8000  # of x86-64


def main() -> None:
    """Serve until stdin ends."""
    _import_all()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the dead
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            log = os.open(asked["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            null = os.open(os.devnull, os.O_RDONLY)
            for old, new in ((null, 0), (log, 1), (log, 2)):
                os.dup2(old, new)
            os.closerange(3, 256)
            _become(asked["environment"])
            _make_helper()
            _run(["daemon"])
        print(pid, flush=True)


def _import_all() -> None:
    import forkwatch.cli.app
    import forkwatch.cli.daemon
    import forkwatch.cli.session
    import forkwatch.cli.worker
    import forkwatch.daemon.supervisor
    import forkwatch.daemon.work
    import forkwatch.demo.serve
    import forkwatch.pipeline.mailing
    import forkwatch.pipeline.tasks
    import forkwatch.smtp  # noqa: F401


def _become(environment: dict[str, str]) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _run(words: Sequence[str]) -> NoReturn:
    from forkwatch.cli.app import app

    code = 1
    try:
        app(list(words))
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:  # noqa: BLE001 - as an interpreter would
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _make_helper() -> None:
    """Fork it, and let the daemon's workers come from it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        _help(theirs)
    theirs.close()

    class Popen(subprocess.Popen[bytes]):
        """A worker that the helper has made: waited for and signalled like any other child."""

        def __init__(self, command: Sequence[str], env: dict[str, str], **_: object) -> None:
            theirs, mine = os.pipe()
            asked = json.dumps({"words": list(command[3:]), "environment": env})
            socket.send_fds(ours, [asked.encode()], [theirs])
            os.close(theirs)
            self.pid, self.returncode, self.args = int(ours.recv(64)), None, command
            self.stdin, self.stdout, self.stderr = os.fdopen(mine, "wb"), None, None
            self._child_created, self._waitpid_lock = True, threading.Lock()

    real: Any = subprocess.Popen

    def started(command: Sequence[str], **options: Any) -> Any:
        return (Popen if "worker" in command else real)(command, **options)

    subprocess.Popen = started  # type: ignore[assignment,misc]


def _help(end: socket.socket) -> NoReturn:
    libc = ctypes.CDLL(None, use_errno=True)
    while True:
        message, handles, *_ = socket.recv_fds(end, 1 << 20, 1)
        if not message:
            break
        asked = json.loads(message)
        pid = libc.syscall(_SYS_CLONE, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
        if pid == 0:
            ctypes.pythonapi.PyOS_AfterFork_Child()
            end.close()
            os.dup2(handles[0], 0)
            os.close(handles[0])
            _become(asked["environment"])
            _run(asked["words"])
        os.close(handles[0])
        end.send(str(pid).encode())
    os._exit(0)


if __name__ == "__main__":
    main()
