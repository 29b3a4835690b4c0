"""What the catalogue says about one kind of finding."""

from __future__ import annotations

from dataclasses import dataclass

from reports.scan import Severity

SEVERITIES: tuple[Severity, ...] = ("info", "low", "medium", "high", "critical")


@dataclass(frozen=True, slots=True)
class FindingSpec:
    """One row of the catalogue."""

    id: str
    title: str
    severity: Severity
    meaning: str
    established: str
    remedy: str
