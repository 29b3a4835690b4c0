"""Where the `forkwatch` program begins.

Reading all commands to run one takes longer than a small build of the site. So a group of commands that is
named first is read alone, and so is a command that many scripts run; everything else, help included, is the
whole program's.
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from types import FrameType
from typing import NoReturn

from forkwatch.cli.top import new_program

GROUPS = ("attest", "classifier", "config", "db", "dispute", "index", "judge", "queue", "report", "suite")
"""Whose commands are all in the module of that name."""
ALONE = ("diff",)
"""Commands that are the function, in the module, of that name."""


def main() -> None:
    """Entry point of the `forkwatch` program."""
    signal.signal(signal.SIGTERM, _terminated)
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in GROUPS:
        program = new_program()
        program.add_typer(import_module(f"forkwatch.cli.{name}").app, name=name)
    elif name in ALONE:
        program = new_program()
        program.command(name)(getattr(import_module(f"forkwatch.cli.{name}"), name))
    else:
        from forkwatch.cli.app import app as program
    program()


def _terminated(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
