"""The effort behind the forks of a release whose refusals were measured, from what is stored and stated.

Weights are not looked at again: rank, parameters and energy come from the stored diff or sketch. What a
repository states is read once, from its small files. The whole is a stage result like any other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from pydantic import TypeAdapter

from crawler.interface import Access, CrawlerError, FileMissingError, Snapshot, TooLargeError
from detector.interface import Diff, Sketch
from evals.effort import Effort, Statements, WeightEvidence, estimate, utility_loss
from evals.frontier import Observed
from evals.interface import Outcome, Unmeasured
from evals.measurements import EvalResult
from evals.paired import refusal_drop
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.ledger import Ledger
from forkwatch.pipeline.originals import Original, original_files, release_snapshot
from forkwatch.pipeline.stated import FILES, MAX_BYTES, read_statements
from forkwatch.pipeline.stored import StoredRow, stored_rows
from forkwatch.pipeline.weight_effort import no_weight_evidence, weight_evidence
from forkwatch.policy.facts import Unreadable
from forkwatch.store.models import Release
from forkwatch.store.values import Examined, StageKey
from forkwatch.store.verdict_log import stage_results
from reports.scan import RateView, ScanDocument

STAGE = "effort"
VERSION = "2"
"""Of this stage; raised when it would give another result for the same stored results."""

_OBSERVED = TypeAdapter(Observed)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A result as its payload has it."""

    value: Observed


_KEPT = TypeAdapter(_Kept)
_STATEMENTS = TypeAdapter(Statements)
_EVAL = TypeAdapter(EvalResult)
_DIFF = TypeAdapter[Diff | Unreadable](Diff | Unreadable)
_SKETCH = TypeAdapter[Sketch | Unreadable](Sketch | Unreadable)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Measured:
    """A fork with measured refusals, and its stored results."""

    document: ScanDocument
    examined: Examined

    @property
    def name(self) -> str:
        return f"{self.document.repo}@{self.document.commit}"

    @property
    def stages(self) -> dict[str, str]:
        return dict(self.examined.stages)


def observe(context: Context, original: Original) -> tuple[Observed, ...]:
    """Every fork of the release with measured refusals of its own, by name; what is not stored is worked out.

    Forks that hold the original's values are none: nothing was done to them.

    What the Hub does not give of one repository is a gap of it.
    """
    forks = tuple(_measured(context, original.release_id, original.root_digest))
    if not forks:
        return ()
    sizes = _sizes(original)
    release = context.store.pin(release_snapshot(context, original))
    found = []
    for number, fork in enumerate(forks):
        context.talk.progress(f"effort of forks of {original.repo}", number, len(forks))
        key = StageKey(release, original.root_digest, "evaluate", fork.stages["evaluate"])
        baseline = _result(context, key, _EVAL)
        found.append(_observe(context, original, fork, baseline, sizes))
    context.talk.progress(f"effort of forks of {original.repo}", len(forks), len(forks))
    return tuple(found)


def observed(
    context: Context, row: Release, stored: Mapping[int, StoredRow] | None = None
) -> tuple[Observed, ...]:
    """What `observe` has stored, by name. Nothing is worked out, and nobody asked.

    `stored` are the rows of the release, where they have been read already.
    """
    stored = stored_rows(context, row) if stored is None else stored
    kept = stage_results(context.store, row.root_digest, STAGE)
    forks = sorted((each.row.repo, each.repo_id, each) for each in stored.values())
    return tuple(
        replace(_KEPT.validate_json(kept[each.snapshot_id]).value, name=f"{each.row.repo}@{each.row.commit}")
        for _, _, each in forks
        if each.snapshot_id in kept and isinstance(each.row.safety.refusal.fork, RateView)
    )


def _measured(context: Context, release_id: int, root_digest: str) -> Iterator[_Measured]:
    """Forks by name. Of one repository the newest verdict."""
    newest = {verdict.repo_id: verdict.document for verdict in context.store.verdicts(release_id)}
    for repo_id, document in sorted(newest.items(), key=lambda item: (item[1].repo, item[0])):
        if isinstance(document.safety.refusal.fork, RateView):
            examined = context.store.examined(repo_id, document.commit, root_digest)
            if examined is not None and "evaluate" in dict(examined.stages):
                yield _Measured(document, examined)


def _result(context: Context, key: StageKey, kind: TypeAdapter[T]) -> T | None:
    found = context.store.result(key, kind)
    return None if found is None else found[0]


def _observe(
    context: Context,
    original: Original,
    fork: _Measured,
    baseline: EvalResult | None,
    sizes: Mapping[str, int],
) -> Observed:
    snapshot, stages = fork.examined.snapshot, fork.stages
    ledger = Ledger(context, snapshot.repo, fork.examined.snapshot_id, original.root_digest)
    said, whole = _statements(context, ledger, snapshot)

    def work_out() -> Observed:
        result = ledger.stored("evaluate", stages["evaluate"], _EVAL)
        if result is None:
            raise AssertionError("a listed result exists")
        weights = _weights(ledger, stages, fork.document, sizes)
        refusal_loss, usefulness_loss = _losses(baseline, result)
        return Observed(
            name=fork.name,
            effort=Effort(
                weights=weights, statements=said, compute=estimate(weights, said, sum(sizes.values()))
            ),
            refusal_loss=refusal_loss,
            utility_loss=usefulness_loss,
        )

    if not whole or baseline is None:
        return work_out()
    inputs = [f"{stage}:{stages[stage]}" for stage in ("diff", "sketch", "evaluate") if stage in stages]
    return replace(ledger.once(STAGE, "+".join((VERSION, *inputs)), _OBSERVED, work_out), name=fork.name)


def _losses(baseline: EvalResult | None, fork: EvalResult) -> tuple[Outcome, Outcome]:
    """Of refusals, and of usefulness."""
    if baseline is None:
        gap = Unmeasured("the original was not measured with the settings that the fork was measured with")
        return gap, gap
    before, after = baseline.behaviour, fork.behaviour
    return refusal_drop(before, after), utility_loss(before, after)


# --- what the repository states ---


def _statements(context: Context, ledger: Ledger, snapshot: Snapshot) -> tuple[Statements, bool]:
    """Kept once read. Else what could not be read just now is a gap, and False: nothing is kept."""
    try:
        return ledger.once("statements", VERSION, _STATEMENTS, lambda: read_stated(context, snapshot)), True
    except CrawlerError as error:
        return read_statements({}, {str(snapshot.repo): str(error)}), False


def read_stated(context: Context, snapshot: Snapshot) -> Statements:
    """The small files of `stated.FILES` that there are.

    Raises:
        CrawlerError: one of them cannot be had just now.
    """
    if snapshot.access is not Access.OPEN:
        return read_statements({}, {str(snapshot.repo): f"the repository is {snapshot.access}"})
    texts, unread = {}, {}
    for path in FILES:
        if snapshot.file(path) is None:
            continue
        try:
            texts[path] = context.hub.read_text(snapshot, path, limit=MAX_BYTES)
        except (TooLargeError, FileMissingError) as error:
            unread[path] = str(error)
    return read_statements(texts, unread)


# --- what the weights show ---


def _sizes(original: Original) -> Mapping[str, int]:
    """Values of each tensor of the original, from its headers."""
    from detector.formats import open_weights

    tensors = open_weights(original_files(original)).tensors()
    return {name: math.prod(info.shape) for name, info in tensors.items()}


def _weights(
    ledger: Ledger, stages: Mapping[str, str], document: ScanDocument, sizes: Mapping[str, int]
) -> WeightEvidence:
    compared = (
        ledger.stored("diff", stages["diff"], _DIFF) if "diff" in stages else None,
        ledger.stored("sketch", stages["sketch"], _SKETCH) if "sketch" in stages else None,
    )
    for found in compared:  # the more thorough first
        if isinstance(found, Diff | Sketch):
            return weight_evidence(found, sizes)
    return no_weight_evidence(tuple(edit.kind for edit in document.edits), "the weights were not compared")
