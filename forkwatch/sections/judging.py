"""Sections [evaluation], [outputs], [policy] and [attest]: from measurements to a signed verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from forkwatch.sections.base import Section

Share = Annotated[float, Field(gt=0, lt=1)]


class EvaluationSettings(Section):
    """How models are measured."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    tier: Literal["screen", "quick", "full"] = "quick"
    """How much of a release's prompt suite is asked."""
    max_new_tokens: int = Field(default=40, ge=8)
    samples: int = Field(default=2, ge=1)
    seed: int = 0
    timeout_seconds: float = Field(default=1800.0, gt=0)
    memory_gib: float | None = Field(default=None, ge=1)
    """Memory of one evaluation; None: three quarters of what this machine or container has."""
    require_isolation: bool = False
    """Evaluate nothing where the child process would run with reduced isolation."""


class OutputsSettings(Section):
    """How a release's classifier of outputs is made."""

    classifier: bool = True
    """Train it after a run that measured other forks than the last one, on the answers that are there."""


class PolicySettings(Section):
    """Where the lines are. Policy, not science: docs/methodology.md argues the defaults."""

    alpha: Share = 0.01
    removed_below: Share = 0.5
    degraded_drop: Share = 0.15
    fail_on: Literal["info", "low", "medium", "high", "critical"] = "high"


class AttestSettings(Section):
    """Who signs verdicts."""

    private_key: Path | None = None
    """PEM of an EC key; None: the one that `forkwatch attest key` made, if it did."""
