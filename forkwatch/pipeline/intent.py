"""Whether a fork's change acts on the directions that carry the original's refusals: asked once, kept, shown.

The original's direction is measured once per release and prompt suite, after the original's own evaluation,
which says which prompts it refuses. It is kept as a 0600 blob of the local state like a transcript, and like
one it is neither published nor exported: documents carry the numbers of `detector.intent` alone.

What comes out goes into the document and nowhere else: `Facts`, from which findings and verdicts are made,
has no field for it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from crawler.interface import Snapshot
from detector.errors import DetectorError
from detector.intent import Directions, Intent, NoIntent, load_directions
from detector.interface import VALUE_PRESERVING, Diff, EditKind, LineageStatus, TensorStatus
from evals.interface import EvaluationFailedError, RefusalDirection, Unmeasured
from evals.measurements import EvalResult
from forkwatch.pipeline import behaviour, stages
from forkwatch.pipeline.blobs import blob_path
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.ledger import Ledger
from forkwatch.pipeline.originals import Original
from forkwatch.policy.facts import NotReached, Unreadable, WeightFacts

VERSION = "1"
"""Of both stages below."""

_DIRECTION = TypeAdapter[RefusalDirection | Unmeasured](RefusalDirection | Unmeasured)
_INTENT = TypeAdapter[Intent | NoIntent](Intent | NoIntent)


@dataclass(frozen=True, slots=True)
class Aim:
    """What is known of a fork's intent, and the direction that it was compared with."""

    intent: Intent | NoIntent
    direction: RefusalDirection | None = None


NOT_LOOKED = Aim(NoIntent("not looked at"))


def why_no_aim(weights: WeightFacts) -> str:
    """Why a change is not compared with the refusal direction; empty when it is."""
    if isinstance(weights, Unreadable | NotReached):
        return weights.reason
    kinds = {edit.kind for edit in weights.edits}
    if weights.lineage.status is LineageStatus.UNRELATED:
        return "the weights are unrelated to the release"
    if kinds and kinds <= VALUE_PRESERVING:
        return "the values are the original's, up to rounding"
    if not weights.tensors:
        return "the weights were not compared in full"
    if EditKind.LAYER_SURGERY in kinds:
        return "the fork's layers are not the original's, one for one"
    return ""


def direction_of(
    context: Context, original: Original, ledger: Ledger, baseline: EvalResult, version: str
) -> RefusalDirection | Unmeasured:
    """The release's refusal direction, measured once for each way of measuring the release.

    Args:
        context: the surroundings.
        original: the release.
        ledger: the release's own.
        baseline: what the original did with the prompts of the suite.
        version: of the evaluation that `baseline` is from.
    """
    try:
        return ledger.once(
            "direction",
            f"{VERSION}:{version}",
            _DIRECTION,
            lambda: behaviour.refusal_direction(context, original, baseline),
        )
    except EvaluationFailedError as error:
        # The verdict does not need it, so it must not be in its way. Nothing is kept: the next scan tries
        # again.
        return Unmeasured(f"the refusal direction could not be measured: {error}")


def take_aim(  # noqa: PLR0913 - two models, what is known of each, and where to keep what comes of it
    context: Context,
    original: Original,
    direction: RefusalDirection | Unmeasured,
    snapshot: Snapshot,
    diff: Diff,
    ledger: Ledger,
) -> Aim:
    """Compare what the diff says was changed with the direction."""
    if isinstance(direction, Unmeasured):
        return Aim(NoIntent(direction.reason))
    changed = frozenset(tensor.name for tensor in diff.tensors if tensor.status is TensorStatus.CHANGED)
    inputs = hashlib.sha256("\n".join([direction.file.name, *sorted(changed)]).encode()).hexdigest()
    path = blob_path(context.state, direction.file.name)
    try:
        intent = ledger.once(
            "intent",
            f"{VERSION}+{inputs[:12]}",
            _INTENT,
            lambda: stages.intent(context, original, snapshot, _directions(path, direction), changed),
        )
    except DetectorError as error:
        return Aim(NoIntent(str(error)))
    return Aim(intent, direction)


def _directions(path: Path, found: RefusalDirection) -> Directions:
    return load_directions(path, sources=found.sources, best=found.best, written=found.written)
