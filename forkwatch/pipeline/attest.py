"""Signed verdicts: what a scan document and the store know of a snapshot, as an in-toto attestation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crawler.interface import RepoFile, Snapshot
from detector.errors import DetectorError, InvalidAttestationError
from detector.formats import is_weight_file
from detector.provenance.attest import Statement, Subject, open_attestation, sign_statement
from detector.provenance.coverage import files_below
from detector.provenance.hashing import hash_file
from detector.provenance.keys import PublicKey, SigningKey
from forkwatch import __version__
from forkwatch.store.models import Release
from forkwatch.store.store import Store
from forkwatch.store.values import Examined
from reports import attestation
from reports import document as scan_document
from reports.attestation import (
    AttestedFinding,
    AttestedRelease,
    AttestedSafety,
    AttestedSnapshot,
    AttestedVerdict,
    StageVersion,
    VerdictPredicate,
    WeightFile,
)
from reports.interface import InvalidDocumentError, SignedVerdict
from reports.scan import ScanDocument


@dataclass(frozen=True, slots=True)
class Checked:
    """A verdict whose signature holds, and in what it differs from files that it was held against."""

    predicate: VerdictPredicate
    key: PublicKey
    differences: tuple[str, ...]
    """One sentence each; hostile text."""


NO_VERDICT_FROM = frozenset(
    {"statements", "effort", "dose", "merges", "merges-round", "classifier", "attribution"}
)
"""Stages for the reader, worked out beside the funnel: no verdict rests on them, and none changes by them."""


def attest(document: ScanDocument, row: Release | None, examined: Examined | None, key: SigningKey) -> str:
    """The signed verdict about one snapshot, as a sigstore bundle.

    Args:
        document: what was found, under the repository's present name.
        row: the release, if it is guarded here: whose files are the original's, and the prompt suite. With
            another root digest than the document's it is another release, whatever its name: neither it nor
            the results against it are used, and the statement is about the commit alone.
        examined: the snapshot and the results about it, if they are in the store.
        key: the operator's.
    """
    if row is not None and row.root_digest != document.original.root_digest:
        row = examined = None
    weights = () if examined is None else _weights(examined.snapshot, row)
    predicate = VerdictPredicate(
        snapshot=AttestedSnapshot(repo=document.repo, commit=document.commit, weights=weights),
        release=AttestedRelease(
            name=document.release,
            root_digest=document.original.root_digest,
            signature=document.original.signature,
            signer=document.original.signer,
        ),
        verdict=AttestedVerdict(
            label=document.verdict.label,
            certainty=document.verdict.certainty,
            summary=document.verdict.summary,
        ),
        findings=tuple(
            AttestedFinding(
                id=finding.id,
                severity=finding.severity,
                certainty=finding.certainty,
                direction=finding.direction,
            )
            for finding in document.findings
        ),
        not_measured=document.verdict.not_measured,
        safety=_safety(document, row),
        stages=() if examined is None else tuple(_stages(examined)),
        program=f"forkwatch {__version__}",
        judged_at=document.scanned_at,
        document=_digest(document),
    )
    text = attestation.to_json(predicate)
    subjects = _subjects(attestation.from_json(text).snapshot)
    return sign_statement(Statement(subjects, attestation.PREDICATE_TYPE, text), key).decode()


def sign_verdict(
    store: Store, row: Release, repo_id: int, document: ScanDocument, key: SigningKey
) -> SignedVerdict:
    """The signed verdict about a repository, be it gone by now, as the site publishes it."""
    examined = store.examined(repo_id, document.commit, row.root_digest)
    return SignedVerdict(repo=document.repo, bundle=attest(document, row, examined, key))


def check_attestation(
    bundle: bytes, keys: Sequence[PublicKey], *, scan: str | None = None, folder: Path | None = None
) -> Checked:
    """Verify a signed verdict; then hold it against a scan document and a folder of files, if given.

    Raises:
        InvalidAttestationError: the signature, the format or the predicate is not what it should be.
        InvalidDocumentError: `scan` is not a scan document.
    """
    opened = open_attestation(bundle, attestation.PREDICATE_TYPE, keys)
    try:
        predicate = attestation.from_json(opened.statement.predicate)
    except InvalidDocumentError as error:
        raise InvalidAttestationError(f"the predicate is malformed: {error}") from error
    if opened.statement.subjects != _subjects(predicate.snapshot):
        raise InvalidAttestationError("the subjects are not the snapshot that the predicate names")
    differences: list[str] = []
    if scan is not None:
        differences += _against_scan(predicate, scan)
    if folder is not None:
        differences += _against_folder(predicate, folder)
    return Checked(predicate, opened.key, tuple(differences))


def _digest(scan: ScanDocument) -> str:
    return attestation.document_digest(scan_document.to_json(scan))


def _subjects(snapshot: AttestedSnapshot) -> tuple[Subject, ...]:
    """The snapshot by its commit, and each weight file that is not the release's by its digest.

    A consumer may match any one subject. A shard that was left as it was is the release's too, and a verdict
    about a fork must never be found for it.
    """
    name = f"{snapshot.repo}@{snapshot.commit}"
    subjects = [Subject(name, "gitCommit", snapshot.commit)]
    for file in snapshot.weights:
        if file.original:
            continue
        if file.sha256 is not None:
            subjects.append(Subject(f"{name}/{file.path}", "sha256", file.sha256))
        elif file.git_blob is not None:
            subjects.append(Subject(f"{name}/{file.path}", "gitBlob", file.git_blob))
    return tuple(subjects)


def _weights(snapshot: Snapshot, row: Release | None) -> tuple[WeightFile, ...]:
    """Files that may hold weights, by path."""
    entries = [] if row is None else row.manifest.get("files", [])
    originals = {digest for entry in entries for digest in (entry["sha256"], entry["git_oid"])}
    files = (file for file in snapshot.files if is_weight_file(file.path))
    return tuple(_weight(file, originals) for file in sorted(files, key=lambda file: file.path))


def _weight(file: RepoFile, originals: set[str]) -> WeightFile:
    return WeightFile(
        path=file.path,
        size=file.size,
        sha256=file.sha256,
        git_blob=None if file.sha256 is not None else file.git_oid,
        original=(file.sha256 or file.git_oid) in originals,
    )


def _safety(document: ScanDocument, row: Release | None) -> AttestedSafety:
    safety = document.safety
    suite = "" if row is None or not safety.suite else row.suite
    return AttestedSafety(
        status=safety.status,
        suite=safety.suite,
        suite_digest=f"sha256:{suite}" if suite else None,
        judge=safety.judge,
        isolation=safety.isolation,
    )


def _stages(examined: Examined) -> list[StageVersion]:
    return [
        StageVersion(stage=stage, version=version)
        for stage, version in examined.stages
        if stage not in NO_VERDICT_FROM
    ]


def _against_scan(predicate: VerdictPredicate, scan: str) -> list[str]:
    given = scan_document.from_json(scan)
    if attestation.document_digest(scan) == predicate.document:
        return []
    pairs = (
        ("repository", predicate.snapshot.repo, given.repo),
        ("commit", predicate.snapshot.commit, given.commit),
        ("release", predicate.release.name, given.release),
        ("verdict", predicate.verdict.label, given.verdict.label),
    )
    differing = [
        f"{name}: attested {ours}, the document says {theirs}"
        for name, ours, theirs in pairs
        if ours != theirs
    ]
    return differing or ["the document says something else than the one that was attested"]


def _against_folder(predicate: VerdictPredicate, folder: Path) -> list[str]:
    """Every attested weight file is there with its bytes, and no other weight file is."""
    attested = {file.path: file for file in predicate.snapshot.weights}
    if not attested:
        return ["the attestation names no weight file that a folder could be compared with"]
    try:
        present = {path for path in files_below(folder) if is_weight_file(path)}
    except OSError as error:
        return [f"the folder cannot be listed: {error}"]
    differences = [f"{path} is not in the folder" for path in sorted(attested.keys() - present)]
    differences += [f"{path} is not attested" for path in sorted(present - attested.keys())]
    for path in sorted(attested.keys() & present):
        try:
            found = hash_file(folder, path)
        except (DetectorError, OSError) as error:
            differences.append(f"{path} cannot be read: {error}")
            continue
        file = attested[path]
        same = found.sha256 == file.sha256 if file.sha256 is not None else found.git_oid == file.git_blob
        if not same:
            differences.append(f"{path} has other bytes")
    return differences
