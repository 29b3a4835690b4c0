"""The one place where errors become a line, a tip and an exit code."""

from __future__ import annotations

import errno
import functools
import io
import logging
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from forkwatch.cli.output import say
from forkwatch.errors import Exit, exit_code, user_facing
from forkwatch.text import plain

P = ParamSpec("P")

_log = logging.getLogger("forkwatch")


def _to_the_end(command: Callable[[], None]) -> None:
    """Run it and write out its output, so that a reader who went away is noticed here."""
    try:
        command()
    finally:
        sys.stdout.flush()


def _of_the_machine(error: Exception) -> str | None:
    """What is the machine's fault and no bug of ours: a full disk, a database that is away or locked."""
    from sqlalchemy.exc import OperationalError

    from forkwatch.logs import redacted

    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"no space left: {plain(str(error.filename or error.strerror), 300)}"
    if isinstance(error, OperationalError):
        return f"the database cannot be used: {redacted(str(error.orig))[:300]}"
    return None


def handled(command: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command: errors of ours become one clear line, anything else is an internal error (5)."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal without our signs still gets the rest
        try:
            _to_the_end(lambda: command(*args, **kwargs))
        except BrokenPipeError as error:
            # What is left in the buffer is for nobody, and must not complain when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from error
        except KeyboardInterrupt as error:
            say("forkwatch: interrupted; what was finished is kept")
            raise typer.Exit(130) from error
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except user_facing() as error:
            _log.debug("traceback", exc_info=True)
            tip = getattr(error, "tip", "")
            say(f"forkwatch: {plain(str(error), 600)}" + (f"\n  tip: {tip}" if tip else ""))
            raise typer.Exit(exit_code(error)) from error
        except (
            Exception
        ) as error:  # the outermost edge: a bug of ours must not look like a finding (exit code 1)
            _log.debug("traceback", exc_info=True)
            if (trouble := _of_the_machine(error)) is not None:
                say(f"forkwatch: {trouble}")
                say("  tip: what was finished is kept; run it again when that is mended")
                raise typer.Exit(Exit.INTERNAL) from error
            say(f"forkwatch: internal error: {type(error).__name__}: {plain(str(error), 600)}")
            say("  tip: run it again with `forkwatch --verbose …` and report the traceback")
            raise typer.Exit(Exit.INTERNAL) from error

    return wrapper
