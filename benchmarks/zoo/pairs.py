"""The pairs: every recipe on every model that suits it, in every container it is meant for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.zoo import containers, expect, models
from benchmarks.zoo.containers import Files
from benchmarks.zoo.expect import Kinds, Sight
from benchmarks.zoo.models import SPECS, Spec
from benchmarks.zoo.recipe import Made, Recipe, Scene
from benchmarks.zoo.recipes import recipes
from detector.interface import EditKind as K
from detector.interface import LineageStatus

QUANTISED = {"q8_0", "q5_1", "q4_0", "q4_k", "int8", "nf4"}
DTYPE_OF = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}
COMPOSED_ON = {
    ("llama", 128, False),
    ("llama", 256, False),
    ("qwen2", 256, False),
    ("gemma2", 64, True),
    ("mixtral", 64, False),
    ("neox", 128, False),
}
"""(architecture, hidden, trained) of the models that edits are put into other containers on."""
DERIVED = frozenset({LineageStatus.PROVED, LineageStatus.CONSISTENT})


@dataclass(frozen=True)
class Pair:
    """A fork to be made, and its name."""

    spec: Spec
    recipe: Recipe
    container: str
    seed: int

    @property
    def name(self) -> str:
        """`llama-128-drawn/lora-r8-0.01/own`."""
        return f"{self.spec.name}/{self.recipe.name}/{self.container}"


@dataclass(frozen=True)
class Answers:
    """What may be said of a pair."""

    full: frozenset[Kinds]
    """Right answers of the full diff."""
    sketch: frozenset[Kinds]
    """Right answers of the sketch."""
    clear: bool = True
    """The oracle says that the edit is visible to the full diff."""
    relative: float = 0.0
    """Median ‖Δ‖ / ‖W‖ of the touched tensors before storing; 0 when none was."""


@dataclass(frozen=True)
class Built:
    """A fork with what may be said of it."""

    original: Files
    fork: Files
    parents: Mapping[str, Files]
    known: Mapping[str, Files]
    truth: Kinds
    answers: Answers
    lineage: frozenset[LineageStatus]


def all_pairs(seed: int) -> Iterator[Pair]:
    """All pairs of one seed."""
    for spec in SPECS:
        for recipe in recipes():
            for container in recipe.containers if recipe.suits(spec) else ():
                if _wanted(spec, recipe, container):
                    yield Pair(spec, recipe, container, seed)


def _wanted(spec: Spec, recipe: Recipe, container: str) -> bool:
    if container == "own":
        return True
    if DTYPE_OF.get(container) == spec.dtype:
        return False
    shape = containers.GGUF_ARCHITECTURES.get(spec.architecture)
    if container in {"q8_0", "q5_1", "q4_0", "q4_k"} and shape is None:
        return False
    if container == "q4_k" and spec.hidden % 256:
        return False
    return recipe.name == "same" or (spec.architecture, spec.hidden, spec.trained) in COMPOSED_ON


def build(pair: Pair, scratch: Path) -> Built:
    """Make the files, and decide what may be said."""
    model = models.load(pair.spec, pair.seed, scratch)
    weights = {name: value.float() for name, value in model.weights.items()}
    made = pair.recipe.make(Scene(model, weights, pair.seed, scratch))
    made = made if isinstance(made, Made) else Made(made)
    original = containers.store(model, weights, "own").files
    if made.files is not None:
        right = frozenset({pair.recipe.truth})
        return Built(original, made.files, {}, {}, pair.recipe.truth, Answers(right, right), _lineage(pair))
    stored = containers.store(model, made.weights, pair.container)
    parents, known = (
        {name: containers.store(model, other, "own").files for name, other in others.items()}
        for others in (made.parents, made.known)
    )
    wrapper, optional = _wrapper(pair)
    truth = pair.recipe.truth
    erased = bool(truth) and not wrapper and expect.unchanged(weights, stored.values)
    if (not truth and not wrapper) or (erased and pair.recipe.related):
        same = frozenset({K.REPACKAGED if pair.container == "sharded" else K.IDENTICAL})
        answers = Answers(frozenset({same}), _sketched({same}), clear=not erased)
        return Built(original, stored.files, parents, known, same, answers, _lineage(pair))
    full = expect.look(weights, made.weights, stored.values)
    near = expect.look(weights, made.weights, stored.values, model.layers)
    right, clear = _right(pair, full, wrapper, optional)
    sketch, _ = _right(pair, near, wrapper, optional)
    if K.MERGE in truth:
        # a sketch is given no other models
        sketch |= {frozenset({K.FULL_FINETUNE}) | wrapper, frozenset({K.UNKNOWN}) | wrapper}
    answers = Answers(right, _sketched(sketch), clear=clear, relative=full.relative)
    return Built(original, stored.files, parents, known, truth | wrapper, answers, _lineage(pair))


def _right(pair: Pair, seen: expect.Seen, wrapper: Kinds, optional: Kinds) -> tuple[frozenset[Kinds], bool]:
    """Right answers for who sees so much, and whether the edit is visible."""
    recipe, quantised = pair.recipe, pair.container in QUANTISED
    clear = expect.is_clear(recipe.sight, seen, quantised=quantised)
    if recipe.truth == {K.UNRELATED}:
        return frozenset({recipe.truth}), clear  # a container of a stranger is not the original's
    found = expect.acceptable(recipe.truth, wrapper, recipe.dense, clear=clear, optional=optional)
    if quantised and not clear and recipe.sight in {Sight.DENSE, Sight.MERGE}:
        # gains and biases are stored nearly exactly: that they moved is all there is to see
        found |= {frozenset({K.PARTIAL_FINETUNE}) | wrapper}
    return found | {other | wrapper for other in recipe.also}, clear


def _lineage(pair: Pair) -> frozenset[LineageStatus]:
    if pair.recipe.related is None:
        return DERIVED | {LineageStatus.UNKNOWN}
    return DERIVED if pair.recipe.related else frozenset({LineageStatus.UNRELATED})


def _wrapper(pair: Pair) -> tuple[Kinds, Kinds]:
    """Kinds that the container adds, and kinds that may stand beside them.

    int8 and NF4 leave embeddings and gains in half precision, which is a cast where the original had another.
    """
    if pair.container in QUANTISED:
        beside = {K.DTYPE_CAST} if pair.container in {"int8", "nf4"} else set()
        return frozenset({K.QUANTIZED}), frozenset(beside)
    if pair.container in DTYPE_OF and pair.recipe.truth != {K.UNRELATED}:
        return frozenset({K.DTYPE_CAST}), frozenset()
    return frozenset(), frozenset()


def _sketched(right: frozenset[Kinds] | set[Kinds]) -> frozenset[Kinds]:
    """Sampled rows show neither equal bytes nor equal values, and can miss a patch of two rows."""
    found = set(right)
    if any(K.IDENTICAL in said or K.REPACKAGED in said for said in right):
        found |= {frozenset({kind}) for kind in (K.IDENTICAL, K.REPACKAGED, K.UNKNOWN)}
    if frozenset({K.SPARSE_PATCH}) in right:
        found |= {frozenset({kind}) for kind in (K.IDENTICAL, K.REPACKAGED, K.UNKNOWN)}
    return frozenset(found)
