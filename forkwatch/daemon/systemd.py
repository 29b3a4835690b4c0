"""Words to systemd (sd_notify(3)): a datagram to the socket that it names. Nothing where it names none."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(*lines: str) -> None:
    """Tell the service manager, e.g. `READY=1`, `STATUS=…`; best effort."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.sendto("\n".join(lines).encode(), target)


def watchdog_seconds() -> float | None:
    """How often it wants to hear from us; None: it does not watch."""
    pid, interval = os.environ.get("WATCHDOG_PID", str(os.getpid())), os.environ.get("WATCHDOG_USEC", "")
    return int(interval) / 1e6 if interval.isdecimal() and pid == str(os.getpid()) else None
