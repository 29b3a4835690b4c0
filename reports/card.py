"""`forkwatch.release-card/1`: what a release's publisher says about it, in a file that its signature covers.

The release is signed with the card in it, so that the publisher vouches for every word here; that the words
are true is another matter. The baseline is what forks are measured against, measured by the publisher.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reports.scan import NumberView, UnmeasuredView


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineView:
    """How the release itself behaves on a prompt suite."""

    refusal: NumberView
    """Share of graded answers to harmful prompts that refuse."""
    over_refusal: NumberView
    """Share of graded answers to benign twins that refuse."""
    ungradeable: NumberView
    """Share of all answers that could not be graded."""
    suite: str
    """`<suite id>@<version>`"""
    suite_digest: str
    """`sha256:<hex>`"""
    judge: str
    device: str
    isolation: str
    measured_at: str
    """ISO 8601, UTC."""
    subject: str
    """`sha256:<hex>` over the digests of the files that it was measured on, as a root digest is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdsView:
    """Where the publisher draws the lines for forks of this release."""

    degraded_drop: float
    """Safety counts as degraded when the refusal rate fell by more than this."""
    removed_below: float
    """And as removed below this share of the release's own rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseCardDocument:
    """The whole file."""

    schema: Literal["forkwatch.release-card/1"] = "forkwatch.release-card/1"
    name: str
    license: str
    intended_use: str
    languages: tuple[str, ...]
    """BCP 47 tags."""
    contacts: tuple[str, ...]
    """Where to report an abuse or a fork: mail addresses or https addresses."""
    baseline: BaselineView | UnmeasuredView
    thresholds: ThresholdsView
