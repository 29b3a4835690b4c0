"""Is it the release? Judged by digests: against what a trusted signer signed, or against a guarded release.

A copy without a bundle can be authentic, for it may hold the very bytes of a guarded release; a copy with the
bundle of somebody else cannot. Names decide nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from detector.errors import InvalidBundleError
from detector.provenance.bundle import open_bundle
from detector.provenance.checked import CheckedFile, FileState, paths_in
from detector.provenance.checkpoint import CheckpointStatus, judge_files
from detector.provenance.interface import OpenedBundle, SignedFiles, Trust
from forkwatch.pipeline.subjects import Compared, Subject


class Authenticity(StrEnum):
    """The verdict. Each has one exit code."""

    AUTHENTIC = "authentic"
    ALTERED = "altered"
    """It is not the release it was compared with."""
    INVALID = "invalid-signature"
    UNSIGNED = "unsigned"
    """No bundle, and no guarded release to compare with."""
    INCONCLUSIVE = "inconclusive"


class Grounds(StrEnum):
    """Why it is believed that what a copy is compared with is the release."""

    SIGNED = "signed"
    """A signer whom you trust signed it."""
    PINNED = "pinned"
    """Nobody whom you trust did: it is what was found when the release was added."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What a copy is compared with."""

    name: str
    """`org/name@commit`"""
    signed: SignedFiles
    """Of a release that nobody signed, only the files that a loader uses: other files may differ."""
    trust: Trust
    at: datetime
    """When it was verified: its certificates were valid then."""
    signature: str
    """Path of its bundle."""
    known: Mapping[str, str]
    """Git blob ids by SHA-256."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What `forkwatch verify` found."""

    status: Authenticity
    reason: str
    """One sentence, of printable text."""
    signer: str = ""
    """Who signed, when a trusted signer did; empty otherwise."""
    root_digest: str = ""
    """Of what the copy was compared with."""
    release: Reference | None = None
    """The guarded release that it was compared with."""
    compared: Compared = field(default_factory=lambda: Compared((), (), 0))

    @property
    def basis(self) -> Grounds | None:
        """What the files were compared with; None when they were not compared."""
        if not self.files:
            return None
        signed = self.release is None or self.release.trust.signers
        return Grounds.SIGNED if signed else Grounds.PINNED

    @property
    def files(self) -> tuple[CheckedFile, ...]:
        """All files that were looked at."""
        return self.compared.files


def judge_by_trust(subject: Subject, trust: Trust, *, at: datetime, signature: str) -> Judgement:
    """Against its own bundle, which somebody in `trust` must have signed. No state is needed.

    Raises:
        TrustError: the trust cannot be used.
        CrawlerError: the Hub could not be asked.
    """
    try:
        bundle = subject.bundle(signature)
        if bundle is None:
            return Judgement(Authenticity.UNSIGNED, f"there is no {signature}")
        opened = open_bundle(bundle, trust, at=at)
    except InvalidBundleError as error:
        return Judgement(Authenticity.INVALID, str(error))
    return _compared(subject, opened.signed, signature, opened.signer)


def judge_by_releases(
    subject: Subject, references: Sequence[Reference], *, at: datetime, named: bool
) -> Judgement:
    """Against guarded releases: the one whose files the bundle signs, else the one with the same bytes.

    Args:
        subject: the copy.
        references: the guarded releases that it may be a copy of.
        at: now. A bundle of other files than a release's needs certificates that are valid.
        named: the user named the one release that it must be.

    Raises:
        TrustError: a stored key cannot be used.
        CrawlerError: the Hub could not be asked.
    """
    opened, refused, reasons = _open_with_each(subject, references, at)
    for release, bundle in opened:
        if _is_of(bundle, release):
            return _compared(subject, bundle.signed, release.signature, bundle.signer, release)
    if opened and not named:
        signer, names = opened[0][1].signer, ", ".join(release.name for release, _ in opened)
        return Judgement(
            Authenticity.INCONCLUSIVE,
            f"signed by whom you trust for {names}, but other files: another version, or another model",
            signer,
            opened[0][1].signed.root_digest,
        )
    # A bundle that does not verify condemns a copy, unless it is of a release that nobody signed.
    candidates = [release for release in references if release not in refused]
    nearest = _nearest(subject, candidates, named=named)
    if nearest is not None and not (refused and nearest.status is not Authenticity.AUTHENTIC):
        if opened:
            why = f"its bundle, signed by {opened[0][1].signer}, is of other files; {nearest.reason}"
            return replace(nearest, reason=why, signer=opened[0][1].signer)
        return nearest
    if refused:
        return Judgement(Authenticity.INVALID, reasons[0], release=refused[0] if named else None)
    return Judgement(Authenticity.UNSIGNED, "no bundle, and no file in common with a guarded release")


def _open_with_each(
    subject: Subject, references: Sequence[Reference], at: datetime
) -> tuple[list[tuple[Reference, OpenedBundle]], list[Reference], list[str]]:
    """Releases whose signer signed the copy's bundle, those whose signer did not, and why not."""
    opened, refused, reasons = [], [], []
    for release in references:
        if not release.trust.signers:
            continue
        try:
            bundle = subject.bundle(release.signature)
            if bundle is not None:
                opened.append((release, _opened(bundle, release, at)))
        except InvalidBundleError as error:
            refused.append(release)
            reasons.append(str(error))
    return opened, refused, reasons


def _opened(bundle: bytes, release: Reference, at: datetime) -> OpenedBundle:
    """A bundle that is good now; or the one of the very files that were pinned while it was good.

    Certificates end, and whoever finds the key of one that has ended could sign anything as of the past.

    Raises:
        InvalidBundleError: neither.
    """
    try:
        return open_bundle(bundle, release.trust, at=at)
    except InvalidBundleError:
        with contextlib.suppress(InvalidBundleError):
            pinned = open_bundle(bundle, release.trust, at=release.at)
            if _is_of(pinned, release):
                return pinned
        raise


def _is_of(bundle: OpenedBundle, release: Reference) -> bool:
    return sorted(bundle.signed.digests) == sorted(release.signed.digests)


def _nearest(subject: Subject, references: Sequence[Reference], *, named: bool) -> Judgement | None:
    """The judgement against the release that shares the most files; None when none shares any."""
    best: tuple[int, Judgement] | None = None
    for release in references:
        judged = _compared(subject, release.signed, release.signature, "", release)
        matched = len(paths_in(judged.files, FileState.MATCHED))
        if judged.status is Authenticity.AUTHENTIC:
            return judged
        if (matched or named) and (best is None or matched > best[0]):
            best = matched, judged
    return None if best is None else best[1]


_STATUS = {
    CheckpointStatus.AUTHENTIC: Authenticity.AUTHENTIC,
    CheckpointStatus.ALTERED: Authenticity.ALTERED,
    CheckpointStatus.UNREADABLE: Authenticity.INCONCLUSIVE,
}


def _compared(
    subject: Subject, signed: SignedFiles, signature: str, signer: str, release: Reference | None = None
) -> Judgement:
    known = release.known if release is not None else {}
    compared = subject.compare(signed, signature, known)
    status, reason = judge_files(compared.files)
    return Judgement(_STATUS[status], reason, signer, signed.root_digest, release, compared)
