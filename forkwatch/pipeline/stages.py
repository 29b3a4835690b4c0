"""Stages 3 to 7 for one snapshot: match, inspect, sketch, diff, evaluate, compare outputs.

Each function takes plain inputs and returns a plain result; `examine` in `funnel` decides which of them run.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from crawler.interface import ByteSource, Snapshot
from crawler.local import LocalFile
from detector.errors import DetectorError, MalformedWeightsError, NothingComparedError, UnreadableTensorError
from detector.files import inspect_files
from detector.interface import Diff, FileFinding, FileMatch, OutputTest, Sketch
from evals.interface import EvalRequest, EvalResult
from forkwatch.pipeline.blobs import blob_path, keep_blob
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.originals import Original, place_file
from forkwatch.pipeline.weight_files import weight_files
from forkwatch.policy.facts import Unreadable

SKETCH_SHARE, SMALL_SHARE = 0.002, 0.005
"""Share of a fork's bytes that a sketch may read (DESIGN section 3), and of a small one's."""
SKETCH_FLOOR, SMALL_MOST = 4 << 20, 16 << 20
"""Bytes a sketch may read however small the fork is, as headers and a few bands do not shrink with the model;
and bytes up to which the share of a small one holds."""


_UNREADABLE = (MalformedWeightsError, UnreadableTensorError, NothingComparedError)


def _unreadable(error: DetectorError) -> Unreadable:
    """Weights that break their format, or that are in none we read: two findings, told apart."""
    finding = "malformed-weights" if isinstance(error, MalformedWeightsError) else "unreadable-weights"
    return Unreadable(finding, str(error))


def inspect(context: Context, snapshot: Snapshot, match: FileMatch) -> tuple[FileFinding, ...]:
    """Dangerous and damaged files, read by range, never executed; the publisher's own files are left out.

    Raises:
        AccessDeniedError: they cannot be read just now, which must not be kept as "nothing was found".
    """
    found = inspect_files(snapshot, lambda path: context.hub.open(snapshot, path))
    return tuple(finding for finding in found if finding.path not in match.identical)


def sketch(context: Context, original: Original, snapshot: Snapshot) -> Sketch | Unreadable:
    """Headers and sampled row bands, by ranged reads."""
    from detector.formats import open_weights
    from detector.sketch import sketch_weights

    files = {file.path: context.hub.open(snapshot, file.path) for file in weight_files(snapshot)}
    budget = sketch_budget(snapshot.total_bytes)
    try:
        return sketch_weights(
            open_weights(original_files(original)), open_weights(files), budget_bytes=budget
        )
    except _UNREADABLE as error:
        return _unreadable(error)


def sketch_budget(total_bytes: int) -> int:
    """Bytes that a sketch of a repository may read: 0.2 %, and up to 0.5 % of those of a gigabyte or two."""
    small = min(int(SMALL_SHARE * total_bytes), SMALL_MOST)
    return max(SKETCH_FLOOR, small, int(SKETCH_SHARE * total_bytes))


def diff(context: Context, original: Original, snapshot: Snapshot) -> Diff | Unreadable:
    """Every changed tensor, from downloaded and verified files."""
    from detector.diff import diff_weights
    from detector.formats import open_weights

    files: dict[str, ByteSource] = {
        file.path: LocalFile(context.hub.download(snapshot, file.path, context.talk.progress))
        for file in weight_files(snapshot)
    }
    try:
        return diff_weights(
            open_weights(original_files(original)), open_weights(files), progress=context.talk.progress
        )
    except _UNREADABLE as error:
        return _unreadable(error)


def original_files(original: Original) -> Mapping[str, ByteSource]:
    """The release's weight files, local."""
    names = sorted(path.name for path in original.folder.iterdir() if path.name.endswith(".safetensors"))
    index = original.folder / "model.safetensors.index.json"
    paths = [original.folder / name for name in names] + ([index] if index.is_file() else [])
    return {path.name: LocalFile(path) for path in paths}


def evaluate_model(
    context: Context, original: Original, snapshot: Snapshot | None, baseline: EvalResult | None
) -> EvalResult:
    """Measure a fork, or the original itself (no snapshot), in a confined child process."""
    from evals.run import evaluate

    options = context.settings.evaluation
    who = original.repo if snapshot is None else snapshot.repo
    with _scratch(context) as scratch:
        weights: tuple[Path, ...] = ()
        if snapshot is not None:
            weights = _materialise(context, snapshot, scratch / "weights")
        request = EvalRequest(
            original=original.folder,
            weights=weights,
            suite=original.suite,
            baseline_transcript=None
            if baseline is None
            else blob_path(context.state, baseline.transcript.name),
            scratch=scratch,
            max_new_tokens=options.max_new_tokens,
            samples=options.samples,
            seed=options.seed + (0 if snapshot is None else 1),  # independent samples for the two-sample test
            timeout_seconds=options.timeout_seconds,
            device=options.device,
        )
        result = evaluate(request, progress=lambda line: context.talk.note(f"{who}: {line}"))
        return replace(result, transcript=Path(keep_blob(context.state, result.transcript)))


def test_outputs(context: Context, original: EvalResult, fork: EvalResult) -> OutputTest:
    """Sampled answers of fork and original to the same harmless prompts."""
    from detector.outputs import compare_outputs
    from evals.wire import load_transcript

    ours = load_transcript(blob_path(context.state, original.transcript.name))
    theirs = load_transcript(blob_path(context.state, fork.transcript.name))
    return compare_outputs(ours.sampled, theirs.sampled, alpha=context.settings.policy.alpha)


@contextmanager
def _scratch(context: Context) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=context.state.scratch))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _materialise(context: Context, snapshot: Snapshot, folder: Path) -> tuple[Path, ...]:
    paths = []
    for file in weight_files(snapshot):
        place_file(context.hub.download(snapshot, file.path, context.talk.progress), folder / file.path)
        paths.append(folder / file.path)
    return tuple(paths)
