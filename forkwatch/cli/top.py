"""The program itself, without its commands."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

import forkwatch


def new_program() -> typer.Typer:
    """To which commands are added."""
    program = typer.Typer(
        name="forkwatch",
        help=forkwatch.__doc__,
        epilog="Exit codes: 0 nothing found, 1 finding at or above --fail-on, 2 usage, 3 inconclusive, "
        "4 Hub or network, 5 internal, 6 signature invalid.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    program.callback()(options)
    return program


def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show tracebacks and what libraries log.")
    ] = False,
) -> None:
    """Options of every command."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.DEBUG if verbose else logging.ERROR, format="%(name)s: %(message)s"
    )
    for noisy in ("httpcore2", "httpx2"):  # they log addresses, signed ones included
        logging.getLogger(noisy).setLevel(logging.WARNING)
