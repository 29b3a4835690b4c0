"""Option types that several commands share."""

from __future__ import annotations

import math
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from forkwatch.errors import Exit
from forkwatch.policy.catalogue import SEVERITIES
from reports.scan import ScanDocument

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
ReleaseOption = Annotated[
    str | None,
    typer.Option("--release", "-r", help="Guarded release (default: the only one).", metavar="ORG/NAME"),
]
RequireIsolationOption = Annotated[
    bool,
    typer.Option("--require-isolation", help="Run nothing of a fork where isolation would be reduced."),
]

TokenFileOption = Annotated[
    Path | None, typer.Option("--token-file", help="File with the endpoint's token.", metavar="FILE")
]
PlainHttpOption = Annotated[
    bool, typer.Option("--allow-plain-http", help="Let answers travel unencrypted to another machine.")
]


MAX_DAYS = 36_500
"""Of an option: a century."""


def span(days: float) -> timedelta:
    """An option's days. A range lets NaN pass.

    Raises:
        typer.BadParameter: it is no number.
    """
    if math.isnan(days):
        raise typer.BadParameter("--days is no number")
    return timedelta(days=days)


class SeverityChoice(StrEnum):
    """Severities a build can be made to fail on."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class DepthChoice(StrEnum):
    """How far a scan goes."""

    MATCH = "match"
    SKETCH = "sketch"
    DIFF = "diff"
    EVAL = "eval"


def scan_exit(document: ScanDocument, fail_on: str) -> Exit:
    """The exit code a scan's document amounts to."""
    floor = SEVERITIES.index(SeverityChoice(fail_on).value)
    concerns = [finding for finding in document.findings if finding.direction == "for"]
    if any(SEVERITIES.index(finding.severity) >= floor for finding in concerns):
        return Exit.FINDING
    return Exit.INCONCLUSIVE if document.verdict.label == "inconclusive" else Exit.OK
