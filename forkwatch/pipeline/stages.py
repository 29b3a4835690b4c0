"""Stages 3 to 7 for one snapshot: match, inspect, sketch, diff, intent, evaluate, compare outputs.

Each function takes plain inputs and returns a plain result; `examine` in `funnel` decides which of them run.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from crawler.interface import ByteSource, Snapshot
from crawler.local import LocalFile
from detector.configs import CodeRequests, code_requests
from detector.errors import DetectorError, MalformedWeightsError, NothingComparedError, UnreadableTensorError
from detector.files import inspect_files
from detector.intent import Directions, Intent, NoIntent
from detector.interface import Diff, FileFinding, FileMatch, OutputTest, Sketch
from detector.labels import labelled, scanners
from detector.match import content_id, same_contents
from detector.provenance.interface import SignatureStatus
from evals.interface import (
    Behaviour,
    DirectionRequest,
    EvalRequest,
    EvalResult,
    Label,
    PromptKind,
    RefusalDirection,
    Tier,
    Unmeasured,
)
from forkwatch.pipeline.blobs import blob_path, keep_blob
from forkwatch.pipeline.budget import sketch_budget
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.known import merge_partners
from forkwatch.pipeline.limits import limits_of
from forkwatch.pipeline.originals import Original, original_files, place_file
from forkwatch.pipeline.pair import Opened
from forkwatch.pipeline.resume import journal_of
from forkwatch.pipeline.sides import Checkpoint
from forkwatch.pipeline.small import open_for_sketch
from forkwatch.pipeline.weight_files import weight_files
from forkwatch.policy.facts import Unreadable

_UNREADABLE = (MalformedWeightsError, UnreadableTensorError, NothingComparedError)


def _unreadable(error: DetectorError) -> Unreadable:
    """Weights that break their format, or that are in none we read: two findings, told apart."""
    finding = "malformed-weights" if isinstance(error, MalformedWeightsError) else "unreadable-weights"
    return Unreadable(finding, str(error))


def inspect(
    context: Context, original: Original, snapshot: Snapshot, match: FileMatch
) -> tuple[FileFinding, ...]:
    """Dangerous and damaged files, read by range, never executed; the publisher's own files are left out.

    Raises:
        AccessDeniedError: they cannot be read just now, which must not be kept as "nothing was found".
    """

    def owned(path: str) -> CodeRequests | None:
        covered = original.manifest.file(path) is not None and (original.folder / path).is_file()
        return code_requests(str(original.repo), (original.folder / path).read_bytes()) if covered else None

    known = frozenset(match.identical)

    def read(path: str) -> ByteSource:
        return context.hub.open(snapshot, path)

    found = inspect_files(snapshot, read, known, owned)
    return tuple(labelled((finding for finding in found if finding.path not in known), read, scanners()))


def sketch(context: Context, original: Original, snapshot: Snapshot) -> Sketch | Unreadable:
    """Headers and sampled row bands, by ranged reads; headers alone where hashes prove a copy."""
    from detector.formats import open_with_paths
    from detector.sketch import sketch_copy, sketch_weights

    chosen = {file.path: file for file in weight_files(snapshot)}
    files = open_for_sketch(context.hub, snapshot, chosen)
    budget = sketch_budget(snapshot.total_bytes)
    try:
        base, own_paths = open_with_paths(original_files(original))
        fork, paths = open_with_paths(files)
        contents = [content_id(chosen[path]) for path in paths]
        same = same_contents(_signed_contents(original, own_paths, contents), contents)
        if same:
            return sketch_copy(base, fork, len(paths), hash_note(original.signature))
        return sketch_weights(base, fork, budget_bytes=budget, known_to_differ=same is False)
    except _UNREADABLE as error:
        return _unreadable(error)


def hash_note(signature: SignatureStatus) -> str:
    """How equal hashes are known: whose word the fork's is, and whose the release's."""
    known = "covered by the signature" if signature is SignatureStatus.VERIFIED else "as pinned on first use"
    return f"SHA-256 reported by the Hub, {known}"


def _signed_contents(original: Original, paths: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """What the release's files hold, in the kind of id that the fork's have."""
    small = all(name.startswith("git:") for name in theirs)
    signed = [original.manifest.file(path) for path in paths]
    return [
        "" if file is None else f"git:{file.git_oid}" if small else f"sha256:{file.sha256}" for file in signed
    ]


def diff(context: Context, original: Original, snapshot: Snapshot) -> Diff | Unreadable:
    """Every changed tensor, from downloaded and verified files; known models may turn out to be parents."""
    from detector.diff import diff_weights
    from detector.formats import open_weights

    def advance(_tensor: str, done: int, total: int) -> None:
        context.talk.progress(f"{snapshot.repo}: compared", done, total)

    files = _downloaded(context, snapshot)
    try:
        ours = _checkpoint(original)
        base = Opened(ours, open_weights(ours.files), None)
        identity = (f"{snapshot.repo}@{snapshot.commit}",)
        size = sum(file.size for file in files.values())
        checkpoint = Checkpoint(str(snapshot.repo), snapshot.commit, files, identity, size)
        fork = Opened(checkpoint, open_weights(files), None)
        partners = merge_partners(context, original, fork.reader, snapshot.repo, snapshot.commit)
        with journal_of(context.state, base, fork, context.talk) as journal:
            return diff_weights(
                base.reader,
                fork.reader,
                progress=advance,
                known=partners.known,
                parents=partners.parents,
                journal=journal,
            )
    except _UNREADABLE as error:
        return _unreadable(error)


def _checkpoint(original: Original) -> Checkpoint:
    files = original_files(original)
    size = sum(file.size for file in files.values())
    return Checkpoint(original.name, original.commit, files, (original.root_digest,), size)


def _downloaded(context: Context, snapshot: Snapshot) -> dict[str, ByteSource]:
    return {
        file.path: LocalFile(context.hub.download(snapshot, file.path, context.talk.progress))
        for file in weight_files(snapshot)
    }


def evaluate_model(
    context: Context, original: Original, snapshot: Snapshot | None, baseline: EvalResult | None
) -> EvalResult:
    """Measure a fork, or the original itself (no snapshot), in a confined child process."""
    from evals.fitted import fit_judge
    from evals.run import evaluate

    options = context.settings.evaluation
    who = original.repo if snapshot is None else snapshot.repo
    with _scratch(context) as folder:
        weights: tuple[Path, ...] = ()
        if snapshot is not None:
            weights = materialise(context, snapshot, folder / "weights")
        request = EvalRequest(
            original=original.folder,
            weights=weights,
            suite=original.suite,
            tier=Tier(options.tier),
            baseline_transcript=None
            if baseline is None
            else blob_path(context.state, baseline.transcript.name),
            calibration=None
            if baseline is None or baseline.calibration is None
            else blob_path(context.state, baseline.calibration.name),
            scratch=folder / "child",
            max_new_tokens=options.max_new_tokens,
            samples=options.samples,
            seed=options.seed + (0 if snapshot is None else 1),  # independent samples for the two-sample test
            timeout_seconds=options.timeout_seconds,
            device=options.device,
            limits=limits_of(options),
        )
        result = evaluate(request, progress=lambda line: context.talk.note(f"{who}: {line}"))
        if snapshot is not None:
            return replace(result, transcript=Path(keep_blob(context.state, result.transcript)))
        fitted = fit_judge(result, original.suite, folder)
        assert fitted.calibration is not None
        return replace(
            fitted,
            transcript=Path(keep_blob(context.state, result.transcript)),
            calibration=Path(keep_blob(context.state, fitted.calibration)),
        )


def refusal_direction(
    context: Context, original: Original, baseline: EvalResult
) -> RefusalDirection | Unmeasured:
    """The original's refusal direction, measured on it alone in a confined child process; kept as a blob."""
    from evals.run import refusal_direction as measure
    from evals.suite import load_suite

    options, behaviour = context.settings.evaluation, baseline.behaviour
    twins = load_suite(original.suite).headline(PromptKind.BENIGN_TWIN)
    with _scratch(context) as scratch:
        request = DirectionRequest(
            original=original.folder,
            suite=original.suite,
            refused=_labelled(behaviour, Label.REFUSED, frozenset(behaviour.harmful)),
            answered=_labelled(behaviour, Label.COMPLIED, frozenset(twin.id for twin in twins)),
            scratch=scratch,
            timeout_seconds=options.timeout_seconds,
            device=options.device,
            limits=limits_of(options),
        )
        found = measure(request, progress=lambda line: context.talk.note(f"{original.repo}: {line}"))
        if isinstance(found, Unmeasured):
            return found
        return replace(found, file=Path(keep_blob(context.state, found.file)))


def _labelled(behaviour: Behaviour, wanted: Label, among: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name, label in behaviour.labels if label is wanted and name in among)


def intent(
    context: Context,
    original: Original,
    snapshot: Snapshot,
    directions: Directions,
    changed: frozenset[str],
) -> Intent | NoIntent:
    """How the changed tensors lie to the original's refusal direction, from downloaded and verified files."""
    from detector.formats import open_weights
    from detector.intent import measure_intent

    files = _downloaded(context, snapshot)
    return measure_intent(open_weights(original_files(original)), open_weights(files), directions, changed)


def test_outputs(context: Context, original: EvalResult, fork: EvalResult) -> OutputTest:
    """Sampled answers of fork and original to the same harmless prompts."""
    from detector.outputs import compare_outputs
    from evals.wire import load_transcript

    ours = load_transcript(blob_path(context.state, original.transcript.name))
    theirs = load_transcript(blob_path(context.state, fork.transcript.name))
    harmful = {*original.behaviour.harmful, *fork.behaviour.harmful}  # sampled for their stability alone
    plain, others = (
        {name: answers for name, answers in side.sampled.items() if name not in harmful}
        for side in (ours, theirs)
    )
    return compare_outputs(plain, others, alpha=context.settings.policy.alpha)


@contextmanager
def _scratch(context: Context) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=context.state.scratch))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def materialise(context: Context, snapshot: Snapshot, folder: Path) -> tuple[Path, ...]:
    """The weight files of a snapshot under their own names in `folder`, downloaded and verified."""
    paths = []
    for file in weight_files(snapshot):
        place_file(context.hub.download(snapshot, file.path, context.talk.progress), folder / file.path)
        paths.append(folder / file.path)
    return tuple(paths)
