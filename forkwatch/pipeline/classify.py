"""`forkwatch classify`: a file of outputs, a release and what is known of it → what the outputs say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from detector.outputs.classifier import Classifier
from detector.outputs.classifier_files import CONFIG, read_classifier
from detector.outputs.files import read_scored
from detector.outputs.gather import Outputs, gather, gather_stream
from detector.outputs.interface import ALPHA, BadOutputsError, BadPackError, Classification, ReferencePack
from detector.outputs.label import Evidence, classify, explanations
from detector.outputs.pack import INDEX, read_pack
from detector.outputs.sequential import read_state, write_state
from detector.outputs.stream import Reference, Stream, begin, count, require_same
from forkwatch.errors import UnknownReleaseError
from forkwatch.pipeline.classifier import classifier_folder
from forkwatch.pipeline.classifier_training import pack_folder
from forkwatch.pipeline.references import stored_releases
from forkwatch.state import StateDir


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked."""

    outputs: Path
    release: str
    """`org/name`, or `org/name@commit`."""
    pack: Path | None = None
    """Folder of a reference pack; None: the one that is kept of a guarded release, if there is one."""
    state: Path | None = None
    """File of a stream, made if it is not there; None: the outputs are looked at once."""
    alpha: float = ALPHA


@dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """What was found."""

    classification: Classification
    release: str
    root_digest: str | None
    fork: str | None
    explanations: tuple[str, ...]
    n_read: int
    alpha: float
    calibration_id: str | None
    """Of the stream; None: there is none."""


@dataclass(frozen=True, slots=True)
class _Subject:
    release: str
    root_digest: str | None


def run_classify(request: Request, state: StateDir) -> Classified:
    """Read everything, test what can be tested, and store the stream if there is one.

    Raises:
        BadOutputsError: the file of outputs is not valid, or was scored by another release.
        BadPackError: the pack is not valid, or of another release.
        StreamError: the stored stream is damaged, or counts something else.
        UnknownReleaseError: the release is neither guarded nor that of the pack.
    """
    scored, others = read_scored(request.outputs)
    subject, pack = _release(request, state)
    outputs = Outputs(scored=scored, others=others)
    said = _scorer(outputs, subject.release)
    if request.state is None:
        classifier = _classifier(state, subject, scored=bool(scored))
        found, calibration = gather(outputs, pack, alpha=request.alpha, classifier=classifier), None
    else:
        stream = _count(request.state, outputs, pack, subject)
        found, calibration = gather_stream(stream, outputs, pack, alpha=request.alpha), stream.calibration_id
    found = replace(found, caveats=(*said, *found.caveats))
    return Classified(
        classification=classify(found, alpha=request.alpha),
        release=subject.release,
        root_digest=subject.root_digest,
        fork=_fork(found),
        explanations=explanations(found, request.alpha),
        n_read=len(outputs.all),
        alpha=request.alpha,
        calibration_id=calibration,
    )


def _release(request: Request, state: StateDir) -> tuple[_Subject, ReferencePack | None]:
    wanted = request.release.lower()
    guarded = [
        row
        for row in stored_releases(state)
        if wanted in {row.repo.lower(), f"{row.repo}@{row.commit}".lower()}
    ]
    if guarded:
        row = guarded[0]
        folder = request.pack or pack_folder(state, row.root_digest)
        kept = request.pack is not None or (folder / INDEX).is_file()
        pack = read_pack(folder, root_digest=row.root_digest) if kept else None
        return _Subject(f"{row.repo}@{row.commit}", row.root_digest), pack
    if request.pack is None:
        raise UnknownReleaseError(
            f"{request.release} is not a guarded release, and no reference pack says what it is",
            tip="Add it with `forkwatch release add`, or give --pack.",
        )
    pack = read_pack(request.pack)
    if wanted not in {pack.release.lower(), pack.release.partition("@")[0].lower()}:
        raise BadPackError(
            f"{request.pack}: the reference pack is of {pack.release}, not of {request.release}"
        )
    return _Subject(pack.release, pack.root_digest), pack


def _classifier(state: StateDir, subject: _Subject, *, scored: bool) -> Classifier | None:
    """The one that was trained of the release; the one by texts alone where the other lacks scores."""
    if not subject.root_digest:
        return None
    folders = [
        classifier_folder(state, subject.root_digest, scored=with_scores) for with_scores in (True, False)
    ]
    there = [folder for folder in folders if (folder / CONFIG).is_file()]
    if not there:
        return None
    return read_classifier(there[0] if scored else there[-1], root_digest=subject.root_digest)


def _scorer(outputs: Outputs, release: str) -> Sequence[str]:
    """A caveat where nobody knows whose weights scored."""
    scorer = next((one.scorer for one in outputs.scored), release)
    if scorer in {release, release.partition("@")[0]}:
        return ()
    if "/" in scorer:
        raise BadOutputsError(f"the outputs were scored by {scorer}, not by {release}")
    by = f"a folder called {scorer}" if scorer else "weights that are not named"
    return (f"The outputs were scored by {by}; that it is the release is taken on trust.",)


def _count(path: Path, outputs: Outputs, pack: ReferencePack | None, subject: _Subject) -> Stream:
    reference = (
        Reference(release=subject.release, root_digest=subject.root_digest or "")
        if pack is None
        else Reference.of(pack)
    )
    stored = read_state(path)
    forks = outputs.forks
    if stored.stream is None:
        stream = begin(reference, forks)
    else:
        stream = stored.stream
        # Outputs without scores add nothing to the ratios, and need no forks.
        require_same(stream, reference, forks if outputs.drawn else stream.seen.forks)
    own = outputs.own
    grown = count(stream, reference, own.scored, own.others)
    write_state(path, grown, stored)
    return grown


def _fork(found: Evidence) -> str | None:
    """The fork that is named: by likelihood ratios, else by transcripts."""
    known = (one.fork for one in found.attribution if one.fork is not None)
    return next((fork for fork in known if fork not in found.conversions), None)
