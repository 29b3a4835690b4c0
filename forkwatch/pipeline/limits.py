"""How the settings want child processes to be held."""

from __future__ import annotations

from evals.interface import Limits
from forkwatch.settings import EvaluationSettings


def limits_of(options: EvaluationSettings) -> Limits:
    """The part of the settings that `evals` needs."""
    return Limits(memory_gib=options.memory_gib, require_isolation=options.require_isolation)
