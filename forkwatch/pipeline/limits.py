"""What the settings say, in the words of `evals`."""

from __future__ import annotations

from evals.compare import LossLimits
from evals.interface import Limits
from forkwatch.sections.judging import EvaluationSettings, PolicySettings


def limits_of(options: EvaluationSettings) -> Limits:
    """How child processes are to be held."""
    return Limits(memory_gib=options.memory_gib, require_isolation=options.require_isolation)


def loss_limits(policy: PolicySettings) -> LossLimits:
    """When a loss of refusals counts."""
    return LossLimits(
        removed_below=policy.removed_below, degraded_drop=policy.degraded_drop, alpha=policy.alpha
    )
