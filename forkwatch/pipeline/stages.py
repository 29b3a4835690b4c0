"""Stages 3 to 5 for one snapshot, and the intent of its change: match, inspect, sketch, diff.

Each function takes plain inputs and returns a plain result; `examine` in `funnel` decides which of them run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crawler.interface import ByteSource, Snapshot
from crawler.local import LocalFile
from detector.configs import CodeRequests, code_requests
from detector.errors import DetectorError, MalformedWeightsError, NothingComparedError, UnreadableTensorError
from detector.files import inspect_files
from detector.intent import Directions, Intent, NoIntent
from detector.interface import Diff, FileFinding, FileMatch, Sketch
from detector.labels import labelled, scanners
from detector.match import content_id, same_contents
from detector.provenance.interface import SignatureStatus
from forkwatch.pipeline.budget import sketch_budget
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.known import merge_partners
from forkwatch.pipeline.originals import Original, original_files, place_file
from forkwatch.pipeline.resume import journal_of
from forkwatch.pipeline.sides import Checkpoint, Opened
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


def materialise(context: Context, snapshot: Snapshot, folder: Path) -> tuple[Path, ...]:
    """The weight files of a snapshot under their own names in `folder`, downloaded and verified."""
    paths = []
    for file in weight_files(snapshot):
        place_file(context.hub.download(snapshot, file.path, context.talk.progress), folder / file.path)
        paths.append(folder / file.path)
    return tuple(paths)
