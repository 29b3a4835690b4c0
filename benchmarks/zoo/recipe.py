"""What a recipe is: an edit, what it is called, and the containers it is put in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.zoo.containers import Files
from benchmarks.zoo.expect import Kinds, Sight
from benchmarks.zoo.models import Model, Spec, Weights
from detector.interface import EditKind as K

STRENGTHS = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
CONTAINERS = ("fp16", "q8_0", "q4_0", "q4_k", "int8")
LOSSLESS = ("own",)


@dataclass(frozen=True)
class Scene:
    """What a recipe works on."""

    model: Model
    weights: Weights
    """float32."""
    seed: int
    scratch: Path


@dataclass(frozen=True)
class Made:
    """What came out, before it is stored."""

    weights: Weights
    parents: Mapping[str, Weights] = field(default_factory=dict)
    """Other models whose weights the detector is given."""
    known: Mapping[str, Weights] = field(default_factory=dict)
    """Other models that the detector is given a sample of, as an index has it."""
    files: Files | None = None
    """For what is not a full checkpoint."""


@dataclass(frozen=True)
class Recipe:
    """One edit."""

    name: str
    truth: Kinds
    make: Callable[[Scene], Made | Weights]
    sight: Sight = Sight.ALWAYS
    dense: K = K.FULL_FINETUNE
    """What the change looks like if only its places can be told."""
    also: frozenset[Kinds] = frozenset()
    """Other kind sets that are as right, whatever the container; the reason stands beside it."""
    benign: bool = False
    """A directional call would be libel, and the edit resembles one in something."""
    related: bool | None = True
    """Derives from the original; None: it does, in a disguise, and `unknown` is an honest answer."""
    containers: tuple[str, ...] = LOSSLESS
    suits: Callable[[Spec], bool] = lambda _: True


def kinds(*found: K) -> Kinds:
    """A kind set."""
    return frozenset(found)
