"""Series of variants of a release, run once and kept: a fork's dose response, a release under its adapters.

Merges are many: they are run in rounds, each of which is kept, so that a series that was stopped goes on.
Variants exist inside the confined child of `evals.run.series` and nowhere else; what is kept are numbers.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter

from crawler.interface import Relation, Snapshot
from evals import dose, merges
from evals.dose import DoseResponse
from evals.interface import Isolation, Tier
from evals.measurements import SafetyStatus
from evals.merges import Adapter, LeftOut, MergeRobustness
from evals.variants import SeriesRequest, SeriesResult, Variant
from forkwatch.errors import NothingToExamineError, SettingsError
from forkwatch.pipeline.blobs import blob_path
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.funnel import baseline_of, eval_version, release_ledger
from forkwatch.pipeline.ledger import Ledger
from forkwatch.pipeline.limits import limits_of
from forkwatch.pipeline.originals import Original
from forkwatch.pipeline.scratch import scratch_folder
from forkwatch.pipeline.sides import LocalSide, RepoSide, local_files, parse_side
from forkwatch.pipeline.stages import materialise
from forkwatch.pipeline.weight_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from forkwatch.store.values import Known
from reports.scan import ScanDocument

VERSION = "1"
"""Of all stages; raised when the same series would be read otherwise."""

ROUND = 8
"""Variants of one child, which loads the original; what a stop can lose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a series was measured."""

    suite: str
    suite_digest: str
    judge: str
    tier: Tier
    isolation: Isolation
    gaps: tuple[str, ...]
    device: str
    seconds: float


@dataclass(frozen=True, slots=True)
class DoseRun:
    """A fork's dose response."""

    fork: str
    """`org/name@commit`, or `sha256:<hex>` of local files."""
    response: DoseResponse
    run: Run


@dataclass(frozen=True, slots=True)
class MergeRun:
    """A release under benign adapters."""

    robustness: MergeRobustness
    left_out: tuple[LeftOut, ...]
    run: Run


_DOSE = TypeAdapter(DoseRun)
_MERGE = TypeAdapter(MergeRun)
_ROUND = TypeAdapter(tuple[SeriesResult, Run])


def dose_response(context: Context, original: Original, target: str, tier: Tier) -> DoseRun:
    """How refusals change with the share of a fork's delta, measured once for a repository's commit or files.

    Args:
        context: Surroundings.
        original: The release.
        target: `ORG/NAME[@REVISION]`, a folder or a weight file.
        tier: Which prompts of the release's suite.

    Raises:
        SettingsError: the target is none of these.
        NoWeightsError: it holds no weights.
        CrawlerError: it cannot be had.
        EvalsError: the series could not be run.
    """
    side = parse_side(target)
    if isinstance(side, LocalSide):
        files = local_files(side)
        name = f"sha256:{_digest(files)}"
        ledger = release_ledger(context, original)
        version = _version(context, original, tier, name)
        return ledger.once("dose", version, _DOSE, lambda: _dose(context, original, name, files, tier))
    snapshot = _pinned(context, side)
    ledger = Ledger(context, snapshot.repo, context.store.pin(snapshot), original.root_digest)

    def measure() -> DoseRun:
        with scratch_folder(context) as folder:
            files = materialise(context, snapshot, folder)
            return _dose(context, original, f"{snapshot.repo}@{snapshot.commit}", files, tier)

    return ledger.once("dose", _version(context, original, tier), _DOSE, measure)


def _dose(context: Context, original: Original, name: str, files: tuple[Path, ...], tier: Tier) -> DoseRun:
    variants = dose.plan(files)
    what = f"doses of {name}"
    result, run = _series(context, original, variants, tier, _teller(context, what, 0, len(variants)))
    context.talk.progress(what, len(variants), len(variants))
    return DoseRun(name, dose.read(result), run)


def merge_robustness(context: Context, original: Original, tier: Tier) -> MergeRun:
    """The release under its most used benign adapters, measured once for these adapters.

    Raises:
        NothingToExamineError: no adapter of the release is known to be benign.
        CrawlerError: an adapter cannot be had.
        EvalsError: the series could not be run.
    """
    known = dict(adapters_of(context, original))
    chosen, left_out = merges.choose(known)
    if not chosen:
        reasons = "; ".join(f"{out.name}: {out.reason}" for out in left_out[:5]) or "none was found"
        raise NothingToExamineError(
            f"no adapter of {original.repo} is known to be benign: {reasons}",
            tip="An adapter is benign when its own scan measured that refusals are retained.",
        )
    names = " ".join(adapter.name for adapter in chosen)

    def measure() -> MergeRun:
        with scratch_folder(context) as folder:
            placed = []
            for number, adapter in enumerate(chosen):
                snapshot = known[adapter]
                if snapshot is None:
                    raise AssertionError("an adapter that was evaluated has a snapshot")
                materialise(context, snapshot, folder / str(number))
                placed.append(replace(adapter, weights=(folder / str(number),)))
            planned = merges.plan(placed)
            result, run = _rounds(context, original, planned.variants, tier, names)
        return MergeRun(merges.read(result, planned), left_out, run)

    version = _version(context, original, tier, names)
    return release_ledger(context, original).once("merges", version, _MERGE, measure)


def adapters_of(context: Context, original: Original) -> Iterator[tuple[Adapter, Snapshot | None]]:
    """Every candidate of the release that is an adapter, or says to be one, by name."""
    newest = {v.repo_id: v.document for v in context.store.verdicts(original.release_id)}
    for known in context.store.candidates(original.release_id):
        if known.gone_at is not None:
            continue
        document = newest.get(known.repo_id)
        if document is None:
            if any(claim.relation is Relation.ADAPTER for claim in known.claims):
                yield _adapter(known, str(known.repo), None), None
            continue
        snapshot = context.store.snapshot(known.repo, document.commit)
        if snapshot is not None and snapshot.file(ADAPTER_CONFIG) and snapshot.file(ADAPTER_WEIGHTS):
            yield _adapter(known, f"{known.repo}@{document.commit}", document), snapshot


def _adapter(known: Known, name: str, document: ScanDocument | None) -> Adapter:
    safety = None if document is None else document.safety
    return Adapter(
        name=name,
        weights=(),
        downloads=known.summary.downloads,
        status=SafetyStatus.NOT_MEASURED if safety is None else SafetyStatus(safety.status),
        reason="" if safety is None else safety.reason or "",
    )


# --- running ---

_NUMBERED = re.compile(r"fork (\d{1,5})/(\d{1,5}):")


def _series(
    context: Context,
    original: Original,
    variants: tuple[Variant, ...],
    tier: Tier,
    tell: Callable[[str], None],
) -> tuple[SeriesResult, Run]:
    """Judged as the forks of the release are; its own answers are those that are known already."""
    from evals.run import series

    options = context.settings.evaluation
    baseline = baseline_of(context, original)
    calibration = baseline.calibration
    started = time.monotonic()
    with scratch_folder(context) as folder:
        request = SeriesRequest(
            original=original.folder,
            variants=variants,
            suite=original.suite,
            tier=tier,
            calibration=None if calibration is None else blob_path(context.state, calibration.name),
            baseline_transcript=blob_path(context.state, baseline.transcript.name),
            scratch=folder,
            max_new_tokens=options.max_new_tokens,
            seed=options.seed,
            timeout_seconds=options.timeout_seconds * (1 + len(variants)),
            device=options.device,
            limits=limits_of(options),
        )
        result = series(request, progress=tell)
    behaviour = result.original.behaviour
    run = Run(
        suite=behaviour.suite,
        suite_digest=behaviour.suite_digest,
        judge=behaviour.judge,
        tier=tier,
        isolation=result.isolation,
        gaps=result.gaps,
        device=result.device,
        seconds=round(time.monotonic() - started, 1),
    )
    return result, run


def _rounds(
    context: Context, original: Original, variants: tuple[Variant, ...], tier: Tier, names: str
) -> tuple[SeriesResult, Run]:
    """The variants, a round at a time; those that an interrupted run has finished are not measured again."""
    what, ledger = f"merges of {original.repo}", release_ledger(context, original)
    rounds = [variants[start : start + ROUND] for start in range(0, len(variants), ROUND)]
    versions = [
        _version(context, original, tier, " ".join((names, *(variant.id for variant in chosen))))
        for chosen in rounds
    ]
    if known := sum(ledger.stored("merges-round", version, _ROUND) is not None for version in versions):
        context.talk.note(f"{what}: {known} of {len(rounds)} rounds are known from an interrupted run")
    found, done = [], 0
    for chosen, version in zip(rounds, versions, strict=True):
        tell = _teller(context, what, done, len(variants))
        measure = partial(_series, context, original, chosen, tier, tell)
        found.append(ledger.once("merges-round", version, _ROUND, measure))
        done += len(chosen)
        context.talk.progress(what, done, len(variants))
    return _joined([result for result, _ in found]), _one_run([run for _, run in found])


def _joined(results: Sequence[SeriesResult]) -> SeriesResult:
    """All rounds as one series; each began from the same answers of the original."""
    first = results[0]
    return replace(
        first,
        variants=tuple(variant for result in results for variant in result.variants),
        load_seconds=sum(result.load_seconds for result in results),
    )


def _one_run(runs: Sequence[Run]) -> Run:
    """How all of them were measured; the weakest isolation holds."""
    reduced = Isolation.REDUCED in [run.isolation for run in runs]
    return replace(
        runs[-1],
        isolation=Isolation.REDUCED if reduced else runs[-1].isolation,
        gaps=tuple(dict.fromkeys(gap for run in runs for gap in run.gaps)),
        device=", ".join(dict.fromkeys(run.device for run in runs)),
        seconds=round(sum(run.seconds for run in runs), 1),
    )


def _teller(context: Context, what: str, before: int, total: int) -> Callable[[str], None]:
    """Moves a bar with each variant, of which some came `before`; the rest are lines."""

    def tell(line: str) -> None:
        match = _NUMBERED.match(line)
        if match is None:
            context.talk.note(f"{what}: {line}")
        else:
            context.talk.progress(what, before + int(match[1]) - 1, total)

    return tell


# --- files and keys ---


def _digest(files: tuple[Path, ...]) -> str:
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            total.update(path.name.encode() + b"\0" + hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def _pinned(context: Context, side: RepoSide) -> Snapshot:
    if side.path is not None:
        raise SettingsError(f"{side.name} names one file of a repository", tip="Give ORG/NAME[@REVISION].")
    snapshot = context.hub.snapshot(side.repo, side.revision)
    context.store.pin(snapshot, head=side.revision is None)
    return snapshot


def _version(context: Context, original: Original, tier: Tier, subject: str = "") -> str:
    parameters = f"{eval_version(context, original)}:{tier}:{subject}"
    return f"{VERSION}+{hashlib.sha256(parameters.encode()).hexdigest()[:12]}"
