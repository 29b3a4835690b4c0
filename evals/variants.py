"""Models made from one original by swapping numbers in place: forks in a row, merges, doses of a delta.

The values exist only inside the confined child, are never written to a file, and are taken back afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from evals.interface import Isolation, Limits, Outcome, Tier
from evals.measurements import Behaviour

DEFAULT_LIMITS = Limits()


class Storage(StrEnum):
    """How the values of a variant are held."""

    ORIGINAL = "original"
    """In the dtype of the original."""
    INT4 = "int4"
    """Linear layers rounded to a 4-bit grid (absolute maximum, groups of 64 along the input) and back: what a
    4-bit copy of it would compute with, without a 4-bit kernel."""
    INT8 = "int8"
    """The same on an 8-bit grid, a step for each output row."""


@dataclass(frozen=True, slots=True)
class Part:
    """One delta: a fork's weight files, or a PEFT adapter folder, minus the original."""

    weights: tuple[Path, ...]
    scale: float = 1.0
    """Factor on the delta; 1 is the fork itself, bit for bit."""


@dataclass(frozen=True, slots=True)
class Variant:
    """The original plus the sum of some deltas. No part: the original itself."""

    id: str
    parts: tuple[Part, ...]
    storage: Storage = Storage.ORIGINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRequest:
    """Variants of one original, measured in one child: it is loaded once, and restored between them."""

    original: Path
    variants: tuple[Variant, ...]
    suite: Path
    tier: Tier = Tier.SCREEN
    calibration: Path | None = None
    baseline_transcript: Path | None = None
    """The original's answers; None: they are made first, in the same child."""
    scratch: Path
    max_new_tokens: int = 40
    seed: int = 0
    timeout_seconds: float = 3600.0
    device: str = "auto"
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantResult:
    """What one variant measured; unmeasured, with the reason, where it does not fit the original."""

    id: str
    behaviour: Behaviour
    kl_per_token: Outcome
    perplexity_ratio: Outcome
    seconds: float
    swap_seconds: float
    """Of which: putting the values in and taking them back, verified."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesResult:
    """All variants, in the order asked, and the original they are held against."""

    original: VariantResult
    variants: tuple[VariantResult, ...]
    isolation: Isolation
    gaps: tuple[str, ...]
    device: str
    load_seconds: float
