"""`forkwatch.output-classifier/1`: how good a release's classifier of outputs is. No output, no ranking.

The types below *are* the JSON contract: fields are added, never renamed. Plain values, as in `reports.scan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reports.scan import NumberView


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerView:
    """Share found of units of n outputs, at the document's level."""

    n: int
    rate: NumberView


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyView:
    """An edit family in one split."""

    split: str
    """In words."""
    family: str
    forks: int
    auroc: float
    """Mean over forks, of one output."""
    powers: tuple[PowerView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellView:
    """False alarms of one setting of the release itself."""

    cell: str
    powers: tuple[PowerView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeView:
    """What the caller has, and how well that works."""

    mode: str
    """`score` or `text`."""
    needs: str
    """In words."""
    outputs: int
    """Calibration outputs of the smallest cell."""
    largest: int
    """Outputs that can be judged together; 0: there is no threshold."""
    families: tuple[FamilyView, ...]
    cells: tuple[CellView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedView:
    """A model that it was trained on."""

    model: str
    """`org/name@<commit>`, or `authentic`."""
    family: str
    counts_as: str
    """`authentic` or `modified`, as policy has it."""
    outputs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierDocument:
    """The card of a classifier."""

    release: str
    """`org/name@<commit>`"""
    digest: str
    """Of its configuration, which names the digest of its numbers."""
    made_at: str
    expires: str
    alpha: float
    needed: int
    """Calibration units for a threshold."""
    modes: tuple[ModeView, ...]
    trained_on: tuple[TrainedView, ...]
    left_out: tuple[str, ...]
    markdown: str
    """The same as a page, with what it is for and how it is fooled."""
    schema: Literal["forkwatch.output-classifier/1"] = "forkwatch.output-classifier/1"
